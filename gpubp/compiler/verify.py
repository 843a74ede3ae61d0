"""Proofs that a graph and a program keep their invariants.

Nothing here shares code with the passes it checks: types are inferred again, lifetimes are proved
by running the program over a shadow memory that records who wrote each byte, and barriers by
comparing the bytes that each of several workers touches in a phase.
"""

from __future__ import annotations

import numpy as np

from gpubp.compiler.program import WHOLE, Operand, Part, Program, share_of
from gpubp.core import Graph
from gpubp.errors import VerificationError

WORKERS = 3
BOUNDS = [0, WHOLE // 7, WHOLE // 2, WHOLE]  # shares may be as uneven as they like


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise VerificationError(message)


def check_graph(graph: Graph) -> None:
    """SSA order, and every node's type equals what its op infers."""
    for position, node in enumerate(graph.nodes):
        _require(node.index == position, f"node {node!r} is not at its index")
        for source in node.inputs:
            known = source.index < position and graph.nodes[source.index] is source
            _require(known, f"{node!r} reads a node that does not stand before it")
        if not node.is_leaf:
            found = node.spec.infer(*node.inputs, **node.attrs)
            same = (found.shape, found.dtype) == (node.shape, node.dtype)
            _require(same, f"{node!r} has another type than its op infers: {found}")


def check_program(program: Program) -> None:
    """Operands stay in their buffers, values survive until they are read, no worker races."""
    _check_bounds(program)
    _check_parts(program)
    _check_values(program)
    _check_races(program)


def _bytes_of(operand: Operand, rows: tuple[int, int] | None = None) -> np.ndarray:
    """Every byte position the operand touches, or those of a share of it."""
    index = np.asarray(operand.offset, dtype=np.int64)
    for axis, (n, stride) in enumerate(zip(operand.shape, operand.strides)):
        span = range(n) if rows is None or axis != operand.axis else range(*rows)
        index = index[..., None] + np.arange(span.start, span.stop, dtype=np.int64) * stride
    starts = np.unique(index) * operand.dtype.itemsize
    found: np.ndarray = (starts[:, None] + np.arange(operand.dtype.itemsize)).ravel()
    return found


def _check_bounds(program: Program) -> None:
    for part in program.parts:
        for operand, _ in part.operands():
            touched = _bytes_of(operand)
            buffer = program.buffers[operand.buffer]
            inside = touched.size == 0 or (touched.min() >= 0 and touched.max() < buffer.nbytes)
            _require(inside, f"{part.name}: an operand leaves buffer {buffer.name}")


def _check_parts(program: Program) -> None:
    for part in program.parts:
        for i, compute in enumerate(part.body):
            ordered = all(0 <= a < len(part.inputs) + i for a in compute.args)
            _require(ordered, f"{part.name}: op {i} uses a value that comes later")
        for value, operand in part.outputs:
            compute = part.body[value - len(part.inputs)]
            same = (compute.shape, compute.dtype) == (operand.shape, operand.dtype)
            _require(same, f"{part.name}: an output differs in type from its value")


def _check_values(program: Program) -> None:
    """Each byte that is read was last written as the value that the reader expects."""
    name = {o.value: o.value for p in program.parts for _, o in p.outputs}
    for part in program.parts:
        for _, operand in part.outputs:
            name.update(dict.fromkeys(operand.also, operand.value))
    shadow = {i: np.full(b.nbytes, -1, np.int64) for i, b in enumerate(program.buffers)}
    for part in program.parts:
        for operand in part.inputs:
            expected = {name.get(v, -1) for v in (operand.value, *operand.also)}
            if program.buffers[operand.buffer].kind == "arena":
                _require(-1 not in expected, f"{part.name} reads a temporary nobody writes")
            elif operand.also:
                expected.add(-1)  # the padding between merged slots
            found = np.unique(shadow[operand.buffer][_bytes_of(operand)])
            survived = set(found.tolist()) <= expected
            _require(survived, f"{part.name} reads %{operand.value} after it was overwritten")
        for _, operand in part.outputs:
            shadow[operand.buffer][_bytes_of(operand)] = operand.value


def _check_races(program: Program) -> None:
    """Within a phase, no worker writes bytes that another one touches."""
    phase: list[Part] = []
    for instruction in program.instructions:
        if instruction.sync:
            _check_phase(program, phase)
            phase = []
        phase.extend(instruction.parts)
    _check_phase(program, phase)


def _check_phase(program: Program, parts: list[Part]) -> None:
    writer = {i: np.full(b.nbytes, -1, np.int8) for i, b in enumerate(program.buffers)}
    for part in parts:
        for worker in range(WORKERS):
            for _, operand in part.outputs:
                memory = writer[operand.buffer]
                touched = _touched(part, operand, worker, True)
                clash = (memory[touched] != -1) & (memory[touched] != worker)
                _require(not clash.any(), f"{part.name}: two workers write the same bytes")
                memory[touched] = worker
    for part in parts:
        for worker in range(WORKERS):
            for operand in part.inputs:
                owner = writer[operand.buffer][_touched(part, operand, worker, False)]
                clash = (owner != -1) & (owner != worker)
                _require(
                    not clash.any(),
                    f"{part.name} reads %{operand.value} without a barrier after another "
                    "worker's write",
                )


def _touched(part: Part, operand: Operand, worker: int, write: bool) -> np.ndarray:
    start, stop = share_of(part.rows, worker, BOUNDS, part.grain)
    if start >= stop:
        return np.zeros(0, np.int64)
    if part.rows == 0:
        return _bytes_of(operand)
    if operand.axis is not None:
        return _bytes_of(operand, (start, stop))
    _require(not write, f"{part.name}: a shared part writes an operand that is not shared")
    return _bytes_of(operand)
