"""Proofs that a graph and a program keep their invariants.

Nothing here shares code with the passes it checks: types are inferred again, lifetimes are proved
by running the program over a shadow memory that records who wrote each byte, and barriers by
comparing the bytes that each of several workers touches in a phase.
"""

from __future__ import annotations

import numpy as np

from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.compiler.shares import WHOLE, share_of
from gpubp.core import Graph
from gpubp.errors import VerificationError

WORKERS = 3
Bytes = slice | np.ndarray
BOUNDS = [0, WHOLE // 7, WHOLE // 2, WHOLE]  # shares may be as uneven as they like


def check_graph(graph: Graph) -> None:
    """SSA order, and every node's type equals what its op infers."""
    for position, node in enumerate(graph.nodes):
        if node.index != position:
            raise VerificationError(f"node {node!r} is not at its index")
        for source in node.inputs:
            if source.index >= position or graph.nodes[source.index] is not source:
                raise VerificationError(f"{node!r} reads a node that does not stand before it")
        if not node.is_leaf:
            found = node.spec.infer(*node.inputs, **node.attrs)
            if (found.shape, found.dtype) != (node.shape, node.dtype):
                raise VerificationError(f"{node!r} has another type than its op infers: {found}")


def check_program(program: Program) -> None:
    """Operands stay in their buffers, values survive until they are read, no worker races."""
    _check_bounds(program)
    _check_parts(program)
    _check_values(program)
    _check_races(program)


def _bytes_of(operand: Operand, rows: tuple[int, int] | None = None) -> Bytes:
    """Every byte position the operand touches, or those of a share of it: as a slice where they
    stand side by side, else one by one, in any order.
    """
    item, start, dense = operand.dtype.itemsize, operand.offset, 1
    walked = []  # (size, stride), but for axes along which nothing moves
    for axis, (n, stride) in reversed([*enumerate(zip(operand.shape, operand.strides))]):
        first, stop = (0, n) if rows is None or axis != operand.axis else rows
        if stop <= first:
            return slice(0, 0)
        start += first * stride
        if stop - first > 1 and stride:
            walked.append((stop - first, stride))
            dense = dense * (stop - first) if stride == dense else 0
    if dense:
        return slice(start * item, (start + dense) * item)
    index = np.arange(start * item, (start + 1) * item)
    for n, stride in walked:
        index = (np.arange(n)[:, None] * (stride * item) + index).ravel()
    return index


def _ends(touched: Bytes) -> tuple[int, int]:
    """The first byte, and the one behind the last."""
    if isinstance(touched, slice):
        return touched.start, touched.stop
    return int(touched.min()), int(touched.max()) + 1


def _check_bounds(program: Program) -> None:
    for part in program.parts:
        for operand, _ in part.operands():
            first, stop = _ends(_bytes_of(operand))
            buffer = program.buffers[operand.buffer]
            if first < 0 or stop > buffer.nbytes:
                raise VerificationError(f"{part.name}: an operand leaves buffer {buffer.name}")


def _check_parts(program: Program) -> None:
    for part in program.parts:
        for i, compute in enumerate(part.body):
            if not all(0 <= a < len(part.inputs) + i for a in compute.args):
                raise VerificationError(f"{part.name}: op {i} uses a value that comes later")
        for value, operand in part.outputs:
            compute = part.body[value - len(part.inputs)]
            if (compute.shape, compute.dtype) != (operand.shape, operand.dtype):
                raise VerificationError(f"{part.name}: an output differs in type from its value")


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
                if -1 in expected:
                    raise VerificationError(f"{part.name} reads a temporary nobody writes")
            elif operand.also:
                expected.add(-1)  # the padding between merged slots
            found = shadow[operand.buffer][_bytes_of(operand)]
            as_named = found == name.get(operand.value, -1)
            if not as_named.all() and not np.isin(found, list(expected)).all():
                raise VerificationError(
                    f"{part.name} reads %{operand.value} after it was overwritten"
                )
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
    """Each byte has one writer at most; who reads it has written it, or nobody has."""
    written = {operand.buffer for part in parts for _, operand in part.outputs}
    # A bit for each worker.
    writers = {i: np.zeros(program.buffers[i].nbytes, np.uint8) for i in written}
    for part in parts:
        for worker in range(WORKERS):
            for _, operand in part.outputs:
                touched = _touched(part, operand, worker, True)
                memory = writers[operand.buffer]
                if (memory[touched] & ~np.uint8(1 << worker)).any():
                    raise VerificationError(f"{part.name}: two workers write the same bytes")
                memory[touched] = 1 << worker
    for part in parts:
        read = [operand for operand in part.inputs if operand.buffer in written]
        for worker in range(WORKERS):
            for operand in read:
                memory = writers[operand.buffer]
                touched = _touched(part, operand, worker, False)
                if (memory[touched] & ~np.uint8(1 << worker)).any():
                    raise VerificationError(
                        f"{part.name} reads %{operand.value} without a barrier after another "
                        "worker's write"
                    )


def _touched(part: Part, operand: Operand, worker: int, write: bool) -> Bytes:
    start, stop = share_of(part.rows, worker, BOUNDS, part.grain)
    if start >= stop:
        return slice(0, 0)
    if part.rows == 0:
        return _bytes_of(operand)
    if operand.axis is not None:
        return _bytes_of(operand, (start, stop))
    if write:
        raise VerificationError(f"{part.name}: a shared part writes an operand that is not shared")
    return _bytes_of(operand)
