"""Rows of temporary matrices that begin on cache lines.

Comes in: parts over buffers, from `lower`. Goes out: the same, with some rows farther apart than
they are long. Vectors that cross lines are loaded and stored in two pieces, and lines that hold
the ends of two rows are asked for twice. See docs/design/cpu.md for what that costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from gpubp.compiler.lower import Lowered
from gpubp.compiler.parts import Buffer, Operand, Part
from gpubp.core.store import ALIGN_BYTES, round_up

LEAST_BYTES = 2 * ALIGN_BYTES  # of a row: shorter ones would leave much memory unused
FAR_BYTES = 1024  # no new distance is a multiple of it: such rows share few sets of a cache

Groups = Callable[[Part], Sequence[Sequence[Operand]]]
Rows = dict[int, tuple[int, int]]  # buffer -> length of a row, distance to the next one


def widen(lowered: Lowered, groups: Groups) -> None:
    """Move the rows of temporary matrices apart where that can be done.

    Args:
        lowered: operands and sizes of buffers are changed in place.
        groups: see `Backend.wide_rows`.
    """
    parts = [part for instruction in lowered.instructions for part in instruction]
    rows = _wanted(lowered.buffers, parts)
    allowed = [(part, groups(part)) for part in parts] if rows else []
    while refused := {i for part, sets in allowed for i in _refused(part, sets, rows)}:
        rows = {i: wide for i, wide in rows.items() if i not in refused}
    for part in parts if rows else []:
        part.inputs = [_moved(o, rows) for o in part.inputs]
        part.outputs = [(v, _moved(o, rows)) for v, o in part.outputs]
    for i, (length, wide) in rows.items():
        buffer = lowered.buffers[i]
        buffer.size = buffer.size // length * wide


def _wanted(buffers: list[Buffer], parts: list[Part]) -> Rows:
    """The temporaries that every part sees as one matrix, with rows that do not fill lines."""
    lengths: dict[int, set[int]] = {}
    for part in parts:
        for operand, _ in part.operands():
            found = lengths.setdefault(operand.buffer, set())
            found.add(_row_length(operand, buffers[operand.buffer]))
    rows: Rows = {}
    for i, found in lengths.items():
        size, length = buffers[i].dtype.itemsize, max(found)
        wide = round_up(length * size, ALIGN_BYTES)
        better = wide > length * size >= LEAST_BYTES and wide % FAR_BYTES != 0
        if buffers[i].kind == "temp" and len(found) == 1 and better:
            rows[i] = length, wide // size
    return rows


def _row_length(operand: Operand, buffer: Buffer) -> int:
    """Of the matrix that the operand makes of the whole buffer, transposed or not, else 0."""
    whole = operand.offset == 0 and math.prod(operand.shape) == buffer.size
    if len(operand.shape) != 2 or 1 in operand.shape or not whole:
        return 0
    for length, strides in zip(operand.shape, (operand.strides, operand.strides[::-1])):
        if strides == (1, length):
            return length
    return 0


def _refused(part: Part, groups: Sequence[Sequence[Operand]], rows: Rows) -> Iterator[int]:
    """Those of the buffers whose rows must stay where they are for this part's sake."""
    known = {operand for group in groups for operand in group}
    for operand, _ in part.operands():
        if operand not in known and operand.buffer in rows:
            yield operand.buffer
    for group in groups:
        if any(operand.buffer not in rows for operand in group):
            yield from (operand.buffer for operand in group if operand.buffer in rows)


def _moved(operand: Operand, rows: Rows) -> Operand:
    if operand.buffer not in rows:
        return operand
    length, wide = rows[operand.buffer]
    strides = tuple(wide if s == length else s for s in operand.strides)
    return operand._replace(strides=strides)
