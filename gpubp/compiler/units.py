"""What the planner orders: instructions, and which bytes each worker touches in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gpubp.compiler.program import Operand, Part

RowKey = tuple[int, int, int, int, tuple[tuple[int, int], ...]]


class Access(NamedTuple):
    """One operand's bytes: buffer, first byte, the byte after the last, and how they are used."""

    buffer: int
    low: int
    high: int
    write: bool
    rows: RowKey | None
    value: int


@dataclass(eq=False)
class Unit:
    """An instruction being scheduled.

    Attributes:
        parts: what it runs.
        accesses: every operand of the parts.
        reads, writes: graph values; a merged update keeps those of all it was made of.
        before: positions of the units that must come first.
    """

    parts: list[Part]
    accesses: list[Access]
    reads: set[int]
    writes: set[int]
    before: set[int] = field(default_factory=set)

    @staticmethod
    def of(parts: list[Part]) -> Unit:
        """A unit with the values its operands name."""
        accesses = accesses_of(parts)
        reads = {a.value for a in accesses if not a.write}
        return Unit(parts, accesses, reads, {a.value for a in accesses if a.write})


def accesses_of(parts: list[Part]) -> list[Access]:
    found = []
    for part in parts:
        for operand, write in part.operands():
            low, high = extent(operand)
            key = row_key(operand, part)
            found.append(Access(operand.buffer, low, high, write, key, operand.value))
    return found


def extent(operand: Operand) -> tuple[int, int]:
    """First byte of the operand in its buffer, and the one after its last."""
    low = high = operand.offset
    for n, stride in zip(operand.shape, operand.strides):
        if n == 0:
            return (0, 0)
        if stride < 0:
            low += (n - 1) * stride
        else:
            high += (n - 1) * stride
    size = operand.dtype.itemsize
    return low * size, (high + 1) * size


def row_key(operand: Operand, part: Part) -> RowKey | None:
    """Accesses with equal keys touch the same bytes from the same worker only; None: from any."""
    if part.rows == 0:
        return (0, 0, 0, 0, ())
    if operand.axis is None or any(s < 0 for s in operand.strides):
        return None
    size, stride = operand.dtype.itemsize, operand.strides[operand.axis]
    others = [
        (n, s)
        for i, (n, s) in enumerate(zip(operand.shape, operand.strides))
        if i != operand.axis and n > 1 and s > 0
    ]
    wider = [(n, s) for n, s in others if s >= stride]  # a row lies in several pieces
    if sum((n - 1) * s for n, s in others if s < stride) >= stride:
        return None
    wider.sort(key=lambda axis: axis[1])
    reach = stride * part.rows
    for n, s in wider:
        if s < reach:
            return None  # pieces of different rows would meet
        reach = n * s
    pieces = tuple((n, s * size) for n, s in wider)
    return part.rows, part.grain, operand.offset * size, stride * size, pieces
