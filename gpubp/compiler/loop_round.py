"""The body of a loop backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gpubp import ops
from gpubp.compiler.loop_body import Body, Loop
from gpubp.compiler.loop_build import add_loop, stacked
from gpubp.compiler.loop_sums import Sum
from gpubp.core import INPUT, Array, Graph, Kind, Node, tracing


class Pass(Protocol):
    """What a round needs to know of the backward pass that it belongs to; see `loop_grad`."""

    graph: Graph
    node: Node
    inputs: Sequence[Array]
    loop: Loop
    source: dict[int, Node]
    float_carries: list[int]
    carry_seeds: list[Node]

    def last(self, k: int) -> Array: ...


class Round:
    """The body of the loop backwards, made from a round and its pullback."""

    def __init__(self, back: Pass, values: dict[int, Array]) -> None:
        self.back, self.values = back, values
        self.graph = back.graph
        self.body = Body(back.graph)
        self.start: list[Node] = []
        self.sliced: list[tuple[Node, Node]] = []
        self.made: dict[int, Node] = {}
        self.totals: dict[int, int] = {}
        self.loop_node: Node | None = None

    def run(self, slopes: dict[int, Node | None], sums: dict[int, Sum | None]) -> Node:
        """Append the loop.

        Args:
            slopes: by the position of a forward input, its cotangent in a round.
            sums: of those that are the same in every round, how to make their sums behind the
                loop; None where the loop adds them up.
        """
        back, body = self.back, self.body
        self.slopes = slopes
        carried = [position for position, total in sums.items() if total is None]
        factors = [f for total in sums.values() if total for f in total.factors]
        starts = [back.last(k) for k in back.float_carries]
        for seed in back.carry_seeds:
            self.made[seed.index] = body.input(seed.shape, seed.dtype)
        for position in carried:
            slope = slopes[position]
            assert slope is not None
            self.totals[position] = len(starts)
            zero = Array(self.graph, self.graph.constant(np.zeros((), slope.dtype)))
            with tracing(self.graph):
                starts.append(ops.broadcast_to(zero, slope.shape))
        totals = [body.input(s.shape, s.dtype) for s in starts[len(back.float_carries) :]]
        wanted = [g for p, g in slopes.items() if g is not None and sums.get(p) is None]
        wanted += [f for f in factors if not self._is_forward(f)]
        self._gather(wanted)
        after = [self._slope_of_carry(k) for k in back.float_carries]
        for total, position in zip(totals, carried):
            slope = slopes[position]
            assert slope is not None
            with tracing(body):
                after.append((Array(body, total) + Array(body, self._node(slope))).node)
        for node in wanted:
            self._node(node)
        inside = [self.made[seed.index] for seed in back.carry_seeds] + totals
        carries = list(zip(inside, after, [s.node for s in starts], strict=True))
        loop = back.loop
        made = add_loop(
            back.node.spec, self.graph, body, carries, self.sliced, loop.length, not loop.reverse
        )
        self.loop_node = made
        return made

    def _slope_of_carry(self, k: int) -> Node:
        position = self.back.loop.carries[k][0]
        slope = self.slopes.get(position)
        if slope is not None:
            return self._node(slope)
        given = self.back.loop.body.inputs[position]
        zero = Array(self.body, self.body.constant(np.zeros((), given.dtype)))
        with tracing(self.body):
            out: Array = ops.broadcast_to(zero, given.shape)
        return out.node

    def _gather(self, wanted: Sequence[Node]) -> None:
        """Inputs for all that comes from outside, before anything is made of them: the body's
        first inputs are those that change from round to round."""
        seen: set[int] = set()
        waiting = list(wanted)
        while waiting:
            node = waiting.pop()
            if node.index in seen or node.index in self.made:
                continue
            seen.add(node.index)
            if node.index in self.values:
                self._slice(node, self.values[node.index])
            elif self._from_outside(node):
                source = self.back.source[node.index]
                self._slice(node, stacked(self.graph, self.back.node, source))
            else:
                waiting += node.inputs

    def _is_forward(self, node: Node) -> bool:
        """A value of the round forwards; so is what a gradient asks of a loop in the round."""
        source = self.back.source
        if node.spec.kind is Kind.PIECE and node.index not in source:
            inner = source.get(node.inputs[0].index)
            if inner is not None:
                source[node.index] = self.back.loop.body.add(node.spec, (inner,), node.attrs)
        return node.index in source

    def _from_outside(self, node: Node) -> bool:
        """A value of the round forwards that is read, not made again."""
        source = self.back.source[node.index] if self._is_forward(node) else None
        if source is None or (source.is_leaf and source.spec is not INPUT):
            return False
        if source.spec is INPUT:
            loop = self.back.loop
            position = source.payload
            return position in loop.sliced or any(position == p for p, _ in loop.carries)
        return source.spec.kind is not Kind.VIEW

    def _slice(self, node: Node, stack: Array) -> None:
        inside = self.made[node.index] = self.body.input(node.shape, node.dtype)
        self.sliced.append((inside, stack.node))

    def _node(self, node: Node) -> Node:
        """A node of the round in the body."""
        order, waiting = [], [node]
        seen: set[int] = set()
        while waiting:
            found = waiting.pop()
            if found.index not in self.made and found.index not in seen:
                seen.add(found.index)
                order.append(found)
                waiting += found.inputs
        for found in sorted(order, key=lambda n: n.index):
            self.made[found.index] = self._made(found)
        return self.made[node.index]

    def _made(self, node: Node) -> Node:
        if node.spec is INPUT:  # the same in every round
            position = self.back.source[node.index].payload
            return self.body.lift(self.back.inputs[position])
        if node.is_leaf:
            return self.body.constant(node.payload, node.weak)
        inputs = tuple([self.made[i.index] for i in node.inputs])
        return self.body.add(node.spec, inputs, node.attrs, node.weak)

    def stack(self, node: Node) -> Array:
        """The values of a node of the round in all rounds: of the loop forwards, or of this one."""
        if self._is_forward(node):
            return stacked(self.graph, self.back.node, self.back.source[node.index])
        assert self.loop_node is not None
        if node.index in self.values:
            return self.values[node.index]
        return stacked(self.graph, self.loop_node, self._node(node))
