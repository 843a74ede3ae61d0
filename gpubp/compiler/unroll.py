"""Loops written out, round after round: for backends that run none, and for proofs.

Comes in: a graph. Goes out: the same values without loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.compiler.loop_body import BEFORE, FINAL, Loop
from gpubp.core import CONST, Graph, Kind, Node, live_order
from gpubp.errors import BackendError
from gpubp.ops.index import CONCAT
from gpubp.ops.logic import WHERE
from gpubp.ops.shape import RESHAPE
from gpubp.ops.slicing import SLICE

AT_ONCE = 32  # arrays that are joined by one op


def unroll(graph: Graph) -> Graph:
    """A copy of the live part of a graph with its loops written out; itself if there are none."""
    if not any(n.spec.kind is Kind.LOOP for n in graph.nodes):
        return graph
    made = Graph()
    inputs = [made.input(n.shape, n.dtype) for n in graph.inputs]
    unroller = _Unroller(made)
    found = unroller.run(graph, dict(zip([n.index for n in graph.inputs], inputs)))
    made.writes = [(s, found[n.index]) for s, n in graph.writes]
    made.outputs = [found[n.index] for n in graph.outputs]
    return made


class _Unroller:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(self, source: Graph, values: dict[int, Node]) -> dict[int, Node]:
        """Append the live part of a graph; `values`: its inputs, by index, and what is known."""
        pieces: dict[int, list[Node]] = {}
        order = live_order(source)
        for node in order:
            if node.spec.kind is Kind.PIECE:
                pieces.setdefault(node.inputs[0].index, []).append(node)
        for node in order:
            if node.index in values or node.spec.kind is Kind.PIECE:
                continue
            if node.spec.kind is Kind.LOOP:
                self._loop(node, pieces[node.index], values)
            else:
                values[node.index] = self._copied(node, values)
        return values

    def _copied(self, node: Node, values: dict[int, Node]) -> Node:
        if node.spec is CONST:
            return self.graph.constant(node.payload)
        if node.is_leaf:
            return self.graph.slot(node.payload)
        inputs = tuple([values[i.index] for i in node.inputs])
        return self.graph.append(node.spec, inputs, node.attrs, node.shape, node.dtype)

    def _loop(self, node: Node, pieces: Sequence[Node], values: dict[int, Node]) -> None:
        loop: Loop = node.attrs["loop"]
        if loop.until >= 0 and loop.length > 1:
            raise BackendError(
                "this backend runs no loops whose length is not known beforehand: run a program "
                "with gp.while_loop on another one, or use gp.scan."
            )
        given = [values[i.index] for i in node.inputs]
        carry = [given[position] for position, _ in loop.carries]
        history, rounds = [carry], {}
        body = Graph()
        body.nodes, body.inputs = loop.body.nodes, loop.body.inputs
        stacked = {p.attrs["at"] for p in pieces if p.attrs["kind"] not in (FINAL, BEFORE)}
        body.outputs = [a for _, a in loop.carries] + [loop.body.nodes[at] for at in stacked]
        for t in loop.rounds():
            inputs = list(given)
            for position in loop.sliced:
                inputs[position] = self._element(given[position], t)
            for (position, _), value in zip(loop.carries, carry):
                inputs[position] = value
            known = {n.index: x for n, x in zip(body.inputs, inputs)}
            rounds[t] = self.run(body, known)
            after = [rounds[t][node.index] for _, node in loop.carries]
            if loop.until >= 0:  # done in any case, and then chosen
                after = [self._chosen(carry[loop.until], a, b) for a, b in zip(after, carry)]
            carry = after
            history.append(carry)
        for piece in pieces:
            values[piece.index] = self._piece(piece, loop, history, rounds)

    def _piece(
        self, piece: Node, loop: Loop, history: list[list[Node]], rounds: dict[int, dict[int, Node]]
    ) -> Node:
        kind, at = piece.attrs["kind"], piece.attrs["at"]
        if kind == FINAL:
            last: Node = history[-1][at]
            return last
        if kind == BEFORE:
            parts = [carry[at] for carry in (reversed(history) if loop.reverse else history)]
        else:
            parts = [rounds[t][at] for t in range(loop.length)]
        return self._stacked(parts, piece)

    def _chosen(self, condition: Node, new: Node, old: Node) -> Node:
        return self.graph.append(WHERE, (condition, new, old), {}, new.shape, new.dtype)

    def _element(self, node: Node, t: int) -> Node:
        """Element t along the first axis."""
        rest = node.shape[1:]
        attrs: dict[str, Any] = {
            "starts": (t, *[0] * len(rest)),
            "stops": (t + 1, *rest),
            "steps": (1,) * len(node.shape),
        }
        part = self.graph.append(SLICE, (node,), attrs, (1, *rest), node.dtype)
        return self.graph.append(RESHAPE, (part,), {"shape": rest}, rest, node.dtype)

    def _stacked(self, parts: Sequence[Node], like: Node) -> Node:
        if not parts:
            return self.graph.constant(np.zeros(like.shape, like.dtype))
        shape = (1, *like.shape[1:])
        rows = [self.graph.append(RESHAPE, (p,), {"shape": shape}, shape, p.dtype) for p in parts]
        while len(rows) > 1:  # a CUDA kernel takes only so many parameters
            rows = [self._joined(rows[i : i + AT_ONCE]) for i in range(0, len(rows), AT_ONCE)]
        return rows[0]

    def _joined(self, rows: Sequence[Node]) -> Node:
        if len(rows) == 1:
            return rows[0]
        shape = (sum(r.shape[0] for r in rows), *rows[0].shape[1:])
        return self.graph.append(CONCAT, tuple(rows), {"axis": 0}, shape, rows[0].dtype)
