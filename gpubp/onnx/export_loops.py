"""Loops as ONNX's Scan and Loop.

A loop that reads elements along an axis is a Scan; one that counts, or asks a condition, is a Loop.
What a body reads of the graph around, it reads by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from gpubp.compiler.loop_body import BEFORE, FINAL, Loop
from gpubp.core import Node
from gpubp.onnx.writer import Writer, described

Names = dict[int, str]
Emit = Callable[[Writer, Sequence[Node], Names], None]
Wanted = tuple[str, int]


def written(
    w: Writer, node: Node, names: Sequence[str], wanted: Sequence[Wanted], emit: Emit
) -> dict[Wanted, str]:
    """Write a loop.

    Args:
        w: where it stands.
        node: of the op `loop`.
        names: of its inputs.
        wanted: the pieces that are used: see `Loop.type_of`.
        emit: writes nodes of a body.

    Returns:
        The names of the pieces.
    """
    loop: Loop = node.attrs["loop"]
    stacks = [piece for piece in wanted if piece[0] != FINAL]
    nodes = [loop.carries[at][1].index if kind == BEFORE else at for kind, at in stacks]
    body = _Body(w, loop, names, nodes, emit)
    found = body.scan() if loop.sliced else body.counted()
    count = len(loop.carries)
    pieces = {(FINAL, k): name for k, name in enumerate(found[:count])}
    for (kind, at), name in zip(stacks, found[count:], strict=True):
        if kind == BEFORE:
            name = _with_start(w, names[loop.carries[at][0]], name, loop.reverse)
        pieces[kind, at] = name
    return pieces


def _with_start(w: Writer, start: str, after: str, reverse: bool) -> str:
    """What a carry was before the first round and after each."""
    first = w.node("Unsqueeze", start, w.constant(np.array([0], np.int64)))
    return w.node("Concat", *((after, first) if reverse else (first, after)), axis=0)


class _Body:
    """One loop and its body."""

    def __init__(
        self, w: Writer, loop: Loop, names: Sequence[str], stacked: Sequence[int], emit: Emit
    ) -> None:
        self._w, self._loop, self._names = w, loop, names
        self._stacked, self._emit = stacked, emit
        self._inner = Writer(w.known, w)
        self._carried = [position for position, _ in loop.carries]

    def scan(self) -> list[str]:
        """As a Scan, forwards or backwards."""
        loop, count = self._loop, len(self._loop.sliced)
        graph = self._graph([*self._carried, *loop.sliced], [])
        given = [self._names[p] for p in (*self._carried, *loop.sliced)]
        back = int(loop.reverse)
        return self._w.several(
            "Scan",
            given,
            len(loop.carries) + len(self._stacked),
            body=graph,
            num_scan_inputs=count,
            scan_input_directions=[back] * count,
            scan_output_directions=[back] * len(self._stacked),
        )

    def counted(self) -> list[str]:
        """As a Loop of a known number of rounds, or until a carry is False."""
        w, loop = self._w, self._loop
        round_, going = self._inner.fresh("round"), self._inner.fresh("going")
        graph = self._graph(self._carried, [(round_, np.int64), (going, np.bool_)])
        rounds = w.constant(np.int64(loop.length)) if loop.until < 0 else ""
        first = "" if loop.until < 0 else self._names[self._carried[loop.until]]
        given = [rounds, first, *[self._names[p] for p in self._carried]]
        count = len(loop.carries) + len(self._stacked)
        found = w.several("Loop", given, count, body=graph)
        if loop.reverse:
            carries = len(loop.carries)
            found[carries:] = [w.slice(n, [-1], [-(2**62)], [0], [-1]) for n in found[carries:]]
        return found

    def _graph(self, positions: Sequence[int], counters: Sequence[tuple[str, Any]]) -> Any:
        body, inner, names = self._loop.body, self._inner, {}
        inputs = [described(name, dtype, ()) for name, dtype in counters]
        own = {p: inner.fresh("given") for p in positions}
        for position, node in enumerate(body.inputs):
            names[node.index] = own.get(position, self._names[position])
        for position in positions:
            node = body.inputs[position]
            inputs.append(described(own[position], node.dtype, self._w.known.shape(node)))
        results = [node for _, node in self._loop.carries]
        results += [body.nodes[at] for at in self._stacked]
        self._emit(inner, _needed(body.nodes, results), names)
        ends = [inner.node("Identity", names[n.index]) for n in results]
        outputs = [described(e, n.dtype, self._w.known.shape(n)) for e, n in zip(ends, results)]
        if counters:
            again = self._loop.until
            source = counters[1][0] if again < 0 else ends[again]
            going = inner.node("Identity", source)
            outputs.insert(0, described(going, np.bool_, ()))
            ends.insert(0, going)
        nodes = inner.used(ends)
        return helper.make_graph(nodes, inner.fresh("body"), inputs, outputs)


def _needed(nodes: Sequence[Node], results: Sequence[Node]) -> list[Node]:
    """Those that results are made of, in order."""
    needed = {n.index for n in results}
    for node in reversed(nodes):
        if node.index in needed:
            needed.update([i.index for i in node.inputs])
    return [n for n in nodes if n.index in needed]
