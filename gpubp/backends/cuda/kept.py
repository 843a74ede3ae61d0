"""Temporaries that a block keeps in its shared memory while a kernel runs whole steps.

Comes in: a program, the number of blocks, and how much room a block has. Goes out: which accesses
go to a block's own memory, and what it copies from there at the end of a phase because other blocks
read it later.

A block takes the same share of the rows of every part. So what is written by rows, and read by the
same rows (equal `row_key`s: the same bytes from the same worker), it may read from its own copy. A
temporary that is read in no other way is nowhere else. In a grid of one block all temporaries are
that block's alone: if they fit, all of them are in shared memory, laid out as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.compiler.units import rows_of

ALIGN = 16
# Bytes of shared memory that a kernel of steps has beside: scratch (37 KB at most) and its tables.
BESIDE = 40 << 10
# Bytes that a block can have (CUDA's programming guide, "Technical Specifications per Compute
# Capability"); an architecture that is not here has what it has without asking.
MOST_SHARED = {
    "sm_75": 64 << 10,
    "sm_80": 163 << 10,
    "sm_86": 99 << 10,
    "sm_87": 163 << 10,
    "sm_89": 99 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
    "sm_103": 227 << 10,
    "sm_110": 227 << 10,
    "sm_120": 99 << 10,
    "sm_121": 99 << 10,
}
LEAST_SHARED = 48 << 10


class Place(NamedTuple):
    """Where a temporary is in a block's own memory: its first byte, and bytes of a row; 0: it is
    all there, else the block's rows.
    """

    start: int
    row: int


class Published(NamedTuple):
    """What a block copies: `rows` of `row` bytes in all, to byte `start` of a buffer."""

    place: Place
    buffer: int
    start: int
    rows: int

    def meets(self, operand: Operand) -> bool:
        """An operand shares memory with where it goes."""
        first, last = operand.extent
        stop = self.start + self.rows * self.place.row
        return operand.buffer == self.buffer and first < stop and self.start < last


Key = tuple[int, int, int, bool]  # number of a part, buffer, byte in it, whether it writes


@dataclass(frozen=True)
class Kept:
    """What blocks keep.

    Attributes:
        places: of accesses.
        published: for each phase, what is copied at its end.
        nbytes: of a block's own memory.
    """

    places: dict[Key, Place] = field(default_factory=dict)
    published: dict[int, list[Published]] = field(default_factory=dict)
    nbytes: int = 0

    def of_part(self, number: int) -> dict[tuple[int, int, bool], Place]:
        """The places of one part's accesses: buffer, byte in it, whether it writes."""
        return {key[1:]: place for key, place in self.places.items() if key[0] == number}

    def has(self, number: int, operand: Operand, write: bool) -> bool:
        """An operand of a part is in a block's own memory."""
        return (number, *operand.place, write) in self.places


@dataclass(eq=False)
class _Written:
    """A temporary from where it is written on. `row`: bytes of a row, if rows could be kept."""

    number: int
    phase: int
    operand: Operand
    rows: int
    key: object
    row: int
    own: list[Key] = field(default_factory=list)  # reads by the rows that wrote it
    shared: bool = False  # others read it
    early: bool = False  # in its own phase; they would read what was not copied yet
    covered: bool = False  # something else is written there in its own phase, before it is copied

    @property
    def keepable(self) -> bool:
        return bool(self.row and self.own) and not (self.shared and (self.early or self.covered))

    @property
    def saves(self) -> int:
        """How often its bytes are moved less."""
        return len(self.own) + (0 if self.shared else 1)


def shared_of(architecture: str) -> int:
    """Bytes of shared memory that a block can have."""
    return MOST_SHARED.get(architecture, LEAST_SHARED)


def room_of(architecture: str) -> int:
    """Of these, bytes for temporaries."""
    return shared_of(architecture) - BESIDE


def keep(program: Program, blocks: int, room: int, copies: bool = True) -> Kept:
    """What so many blocks keep in so much room: what is read most often first.

    Args:
        program: what runs.
        blocks: how many.
        room: bytes of each.
        copies: what others read, too, is kept, and copied for them.
    """
    if blocks == 1:
        return _all(program, room)
    places: dict[Key, Place] = {}
    at = 0
    found = [w for w in _temporaries(program) if w.keepable and (copies or not w.shared)]
    published: dict[int, list[Published]] = {}
    for one in sorted(found, key=lambda w: -w.saves):
        nbytes = -(-(-(-one.rows // blocks) * one.row) // ALIGN) * ALIGN
        if at + nbytes > room:
            continue
        place = Place(at, one.row)
        for key in ((one.number, *one.operand.place, True), *one.own):
            places[key] = place
        if one.shared:
            copied = Published(place, *one.operand.place, one.rows)
            published.setdefault(one.phase, []).append(copied)
        at += nbytes
    return Kept(places, published, at)


def _all(program: Program, room: int) -> Kept:
    """All temporaries of a grid of one block, if they fit."""
    if program.arena_bytes > room:
        return Kept()
    starts, at = {}, 0
    for i, buffer in enumerate(program.buffers):
        if buffer.kind == "arena":
            starts[i] = at
            at += -(-buffer.nbytes // ALIGN) * ALIGN
    places = {
        (number, *operand.place, write): Place(starts[operand.buffer] + operand.place[1], 0)
        for number, part in enumerate(program.parts)
        for operand, write in part.operands()
        if operand.buffer in starts
    }
    return Kept(places, {}, at)


def _temporaries(program: Program) -> list[_Written]:
    """Everything that is written to temporaries in a step, in order, with who reads it."""
    arena = {i for i, buffer in enumerate(program.buffers) if buffer.kind == "arena"}
    known: list[_Written] = []
    number = phase = 0
    for instruction in program.instructions:
        phase += instruction.sync
        for part in instruction.parts:
            reads, writes = _accesses(part, arena)
            _note_reads(known, number, phase, part, reads)
            for operand in writes:
                for one in known:
                    one.covered |= one.phase == phase and one.operand.meets(operand)
                known.append(_written(number, phase, part, operand))
            number += 1
    return known


def _accesses(part: Part, arena: set[int]) -> tuple[list[Operand], list[Operand]]:
    found = [(o, write) for o, write in part.operands() if o.buffer in arena]
    return [o for o, write in found if not write], [o for o, write in found if write]


def _written(number: int, phase: int, part: Part, operand: Operand) -> _Written:
    """Its rows could be kept if they are whole and follow each other."""
    key, length = rows_of(operand, part)
    row = 0
    if part.rows and part.shared == "rows" and key is not None and not key[4]:
        row = length if length == key[3] else 0
    return _Written(number, phase, operand, part.rows, key, row)


def _note_reads(
    known: list[_Written], number: int, phase: int, part: Part, reads: list[Operand]
) -> None:
    """The last one written that has all of what is read by its rows is read by its own rows, if
    nothing else of this part reads it in another way. Whatever else is met others read.
    """
    own: dict[int, list[Operand]] = {}
    others: set[int] = set()
    for operand in reads:
        met = [i for i, w in enumerate(known) if w.operand.meets(operand)]
        key = rows_of(operand, part)[0]
        if met and part.rows and known[met[-1]].row and known[met[-1]].key == key:
            own.setdefault(met[-1], []).append(operand)
        else:
            others.update(met)
    for i, operands in own.items():
        if i not in others:
            known[i].own += dict.fromkeys((number, *o.place, False) for o in operands)
    for i in others:
        known[i].shared = True
        known[i].early |= known[i].phase == phase


def traffic(program: Program, blocks: int, kept: Kept) -> tuple[int, int]:
    """Bytes that all blocks move a step: from and to global memory, and in shared memory. What no
    block shares each of them reads whole.
    """
    far = near = 0
    for number, part, operand, write in _operands(program):
        times = min(blocks, part.rows or 1) if operand.axis is None else 1
        if kept.has(number, operand, write):
            near += operand.unique_bytes * times
        else:
            far += operand.unique_bytes * times
    copied = sum(one.rows * one.place.row for copies in kept.published.values() for one in copies)
    return far + copied, near + copied


def told(program: Program, blocks: int, kept: Kept) -> str:
    """What is kept, for a report."""
    far, near = traffic(program, blocks, kept)
    if not near:
        return "temporaries all go through global memory"
    return f"{near:,} of {far + near:,} bytes that a step moves stay in shared memory"


def _operands(program: Program) -> Iterator[tuple[int, Part, Operand, bool]]:
    for number, part in enumerate(program.parts):
        for operand, write in part.operands():
            yield number, part, operand, write
