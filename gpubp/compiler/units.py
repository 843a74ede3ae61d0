"""What the planner orders: instructions, and which bytes each worker touches in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gpubp.compiler.parts import Operand, Part

RowKey = tuple[int, int, int, int, tuple[tuple[int, int], ...]]


class Access(NamedTuple):
    """One operand's bytes: buffer, first byte, the byte after the last, and how they are used.

    `length`: bytes from the first one of a row to its last.
    """

    buffer: int
    low: int
    high: int
    write: bool
    rows: RowKey | None
    value: int
    length: int

    def keeps_to(self, other: Access) -> bool:
        """No worker touches what another one touches for `other`."""
        mine, theirs = self.rows, other.rows
        if mine is None or theirs is None:
            return False
        if mine == theirs:
            return True
        (rows, grain, start, stride, pieces), first = mine, theirs[2]
        if rows == 0 or (rows, grain, stride, pieces) != (*theirs[:2], *theirs[3:]):
            return False
        # Pieces of the same rows, such as some columns of a matrix: they begin and end within what
        # is as long as the distance from one row to the next.
        ends = start + self.length, first + other.length
        return max(ends) - min(start, first) <= stride


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
            low, high = operand.extent
            key, length = rows_of(operand, part)
            found.append(Access(operand.buffer, low, high, write, key, operand.value, length))
    return found


def row_key(operand: Operand, part: Part) -> RowKey | None:
    """Accesses with equal keys touch the same bytes from the same worker only; None: from any."""
    return rows_of(operand, part)[0]


def rows_of(operand: Operand, part: Part) -> tuple[RowKey | None, int]:
    """The `row_key`, and the bytes from the first one of a row to its last."""
    if part.rows == 0:
        return (0, 0, 0, 0, ()), 0
    if operand.axis is None:
        return None, 0
    size, stride = operand.dtype.itemsize, operand.strides[operand.axis]
    length = 1  # of a piece of a row, from its first element to its last
    wider = []  # a row lies in several pieces
    for i, (n, s) in enumerate(zip(operand.shape, operand.strides)):
        if s < 0:
            return None, 0
        if i != operand.axis and n > 1 and s > 0:
            if s < stride:
                length += (n - 1) * s
            else:
                wider.append((n, s))
    if length > stride:
        return None, 0
    wider.sort(key=lambda axis: axis[1])
    reach = stride * part.rows
    for n, s in wider:
        if s < reach:
            return None, 0  # pieces of different rows would meet
        reach = n * s
    pieces = tuple((n, s * size) for n, s in wider)
    key = part.rows, part.grain, operand.offset * size, stride * size, pieces
    return key, length * size
