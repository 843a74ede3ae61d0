"""The gradient of a loop: a loop backwards.

Each round of it takes the cotangents of the carry, and the values of its own round that it needs:
those that the loop forwards computed and a gradient reads are stacked as the loop's pieces; views
of them, and what is cheaper to read than to keep, are made again. Cotangents of what the body reads
from around it are sums over all rounds: where they are products or sums (of weights and biases),
their factors are stacked and one product is made of all rounds behind the loop; others are added up
in a carry.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpubp import ops
from gpubp.compiler.grad import pullback_of_all
from gpubp.compiler.loop_body import BEFORE, FINAL, VALUE, Loop, piece
from gpubp.compiler.loop_round import Round
from gpubp.compiler.loop_sums import sum_of_rounds
from gpubp.core import INPUT, Array, Graph, Node, active_graph, tracing
from gpubp.errors import GradientError


def loop_vjp(
    pieces: Sequence[tuple[Node, Array]], y: Array, *inputs: Array, loop: Loop
) -> list[Array | None]:
    """The cotangents of a loop's inputs, given those of some pieces."""
    if loop.until >= 0:
        raise GradientError(
            "while_loop and cond have no gradient. Use gp.scan, or gp.ops.where, to train."
        )
    graph = active_graph()
    assert graph is not None
    return Backwards(graph, y.node, inputs, loop, pieces).cotangents()


class Backwards:
    """One backward pass.

    Args:
        graph: the one that the loop stands in.
        node: the loop's.
        inputs: of the loop.
        loop: what it does.
        pieces: some pieces, and their cotangents.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        inputs: Sequence[Array],
        loop: Loop,
        pieces: Sequence[tuple[Node, Array]],
    ) -> None:
        self.graph, self.node, self.inputs, self.loop = graph, node, inputs, loop
        body = loop.body
        # A graph in which a round and its pullback stand one after the other.
        self.round = Graph()
        self.round.facts = graph.facts
        self.source: dict[int, Node] = {}  # node of a copied round -> the body's
        self.copy: dict[int, Node] = {}
        for given in body.nodes:
            made = self._copied(given)
            self.copy[given.index], self.source[made.index] = made, given
        moved = {id(rule): rule.moved(self.round, self.copy) for rule in body.rules.values()}
        for at, rule in body.rules.items():
            self.round.rules[self.copy[at].index] = moved[id(rule)]
        self.pieces = {(p.attrs["kind"], p.attrs["at"]): g for p, g in pieces}
        self.float_carries = [
            k for k, (_, after) in enumerate(loop.carries) if after.dtype.kind == "f"
        ]

    def _copied(self, node: Node) -> Node:
        if node.spec is INPUT:
            return self.round.input(node.shape, node.dtype, node.weak)
        inputs = tuple([self.copy[i.index] for i in node.inputs])
        return self.round.append(
            node.spec, inputs, node.attrs, node.shape, node.dtype, node.payload, node.weak
        )

    def cotangents(self) -> list[Array | None]:
        """One for each input of the loop."""
        loop, body = self.loop, self.loop.body
        seeds, values = self._seeds()
        wrt = [self.copy[n.index] for n in body.inputs if n.dtype.kind == "f"]
        found = pullback_of_all(self.round, seeds, wrt)
        slopes = {self.source[n.index].payload: g for n, g in zip(wrt, found)}
        carried = {position for position, _ in loop.carries}
        shared = [p for p, g in slopes.items() if g and p not in carried and p not in loop.sliced]
        sums = {
            p: sum_of_rounds(g) for p, g in slopes.items() if g and p in shared
        }  # None: added up in a carry
        back = Round(self, values)
        node = back.run(slopes, sums)
        out: list[Array | None] = [None] * len(self.inputs)
        for number, k in enumerate(self.float_carries):
            out[loop.carries[k][0]] = self._initial(k, piece(node, self.graph, FINAL, number))
        for position, g in slopes.items():
            if position in loop.sliced and g is not None:
                out[position] = back.stack(g)
        for position in shared:
            total = sums[position]
            with tracing(self.graph):
                if total is not None:
                    out[position] = total.make(back.stack)
                else:
                    out[position] = piece(node, self.graph, FINAL, back.totals[position])
        return out

    def _seeds(self) -> tuple[list[tuple[Node, Node]], dict[int, Array]]:
        """Values of a round with inputs for their cotangents; and, by such an input, the stacked
        cotangents that are known. Those of the carry come first, in order.
        """
        seeds, known = [], {}
        for k in self.float_carries:
            after = self.copy[self.loop.carries[k][1].index]
            seeds.append((after, self.round.input(after.shape, after.dtype)))
            if (BEFORE, k) in self.pieces:
                g = self.pieces[BEFORE, k]
                first = int(not self.loop.reverse)
                extra = self.round.input(after.shape, after.dtype)
                with tracing(self.graph):
                    known[extra.index] = g[first : first + self.loop.length]
                seeds.append((after, extra))
        for (kind, at), g in self.pieces.items():
            if kind == VALUE:
                value = self.copy[at]
                given = self.round.input(value.shape, value.dtype)
                seeds.append((value, given))
                known[given.index] = g
        self.carry_seeds = [s for _, s in seeds if s.index not in known]
        return seeds, known

    def _initial(self, k: int, g: Array) -> Array:
        """The cotangent of a carry before the first round."""
        history = self.pieces.get((BEFORE, k))
        if history is None:
            return g
        at = self.loop.length if self.loop.reverse else 0
        with tracing(self.graph):
            found: Array = g + history[at]
        return found

    def last(self, k: int) -> Array:
        """The cotangent of a carry after the last round."""
        found = self.pieces.get((FINAL, k))
        if found is not None:
            return found
        after = self.loop.carries[k][1]
        zero = Array(self.graph, self.graph.constant(np.zeros((), after.dtype)))
        with tracing(self.graph):
            made: Array = ops.broadcast_to(zero, after.shape)
        return made
