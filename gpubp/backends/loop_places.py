"""Where the body of a loop finds its buffers, round by round.

Comes in: the part of a loop. Goes out: for each buffer of the body a place and how it moves, and
the carries to be copied before the first round and after the last one. What a carry is before a
round and what it becomes lie in two copies that take turns, or side by side where all are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gpubp.compiler.loop_body import BEFORE, FINAL, VALUE, Loop
from gpubp.compiler.parts import Buffer, Operand, Part
from gpubp.compiler.program import Program

ABSOLUTE = -1  # instead of a buffer: the offset is an address
Room = Callable[[int, Any], int]


class Moving(NamedTuple):
    """A buffer of the body.

    Attributes:
        buffer, offset: where it is, in bytes; of buffer `ABSOLUTE` the offset is the address.
        step: bytes from element to element.
        other: if not 0, the address in every second round.
    """

    buffer: int
    offset: int
    step: int = 0
    other: int = 0


class Copied(NamedTuple):
    """Rows that are copied.

    Attributes:
        source, target: (buffer, offset), as of `Moving`.
        other: if not 0, the source's address after an odd number of rounds.
        rows: how many they are, and `nbytes` of each.
    """

    source: tuple[int, int]
    other: int
    target: tuple[int, int]
    rows: int
    nbytes: int


class LoopPlaces:
    """The places of one loop.

    Args:
        part: of the loop.
        room: gives so many zeroed bytes, or these constants (a flat array of bytes), at an address.

    Attributes:
        buffers: one for each of the body's program.
        before, after: carries to copy before the first round, and after the last one.
        until: the body's buffer with the bool without which no further round begins; -1.
    """

    def __init__(self, part: Part, room: Room) -> None:
        assert part.body_program is not None
        self._part, self._made, self._room = part, part.body_program, room
        self._loop: Loop = part.body[0].attrs["loop"]
        program: Program = self._made.program
        first = len(part.inputs)
        self._pieces: dict[tuple[str, int], Operand] = {}
        for value, operand in part.outputs:
            attrs = part.body[value - first].attrs
            self._pieces[attrs["kind"], attrs["at"]] = operand
        # Two copies of each carry that is not kept in all rounds.
        self._turns: dict[int, tuple[int, int]] = {}
        self.before: list[Copied] = []
        self.after: list[Copied] = []
        self._carries()
        self.buffers = [self._buffer(b) for b in program.buffers]
        self.until = self._until(program)

    def changing(self) -> set[int]:
        """Positions of the body's inputs that are not the same in all rounds."""
        return {position for position, _ in self._loop.carries} | {*self._loop.sliced}

    def _until(self, program: Program) -> int:
        if self._loop.until < 0:
            return -1
        position = self._loop.carries[self._loop.until][0]
        return next(
            i for i, b in enumerate(program.buffers) if (b.kind, b.position) == ("input", position)
        )

    def _given(self, position: int) -> Operand:
        """The loop's input at a position."""
        return self._part.inputs[self._part.body[0].args[position]]

    def _carries(self) -> None:
        loop = self._loop
        for k, (position, _) in enumerate(loop.carries):
            given = self._given(position)
            nbytes, rows = bytes_of(given), max(self._part.rows, 1)
            history, final = self._pieces.get((BEFORE, k)), self._pieces.get((FINAL, k))
            if history is None:
                first, second = self._turns[k] = self._room(nbytes, None), self._room(nbytes, None)
                start = end = (ABSOLUTE, first)
            else:
                second = 0
                buffer, offset = history.place
                last = (buffer, offset + loop.length * nbytes), (buffer, offset)
                start, end = last if loop.reverse else last[::-1]
            self.before.append(Copied(given.place, 0, start, rows, nbytes // rows))
            if final is not None:
                self.after.append(Copied(end, second, final.place, rows, nbytes // rows))

    def _buffer(self, buffer: Buffer) -> Moving:
        if buffer.kind == "input":
            return self._input(buffer.position)
        if buffer.kind == "output":
            return self._output(buffer.position)
        content = np.asarray(buffer.payload) if buffer.kind == "const" else None
        return Moving(ABSOLUTE, self._room(buffer.size, content))

    def _input(self, position: int) -> Moving:
        for k, (carried, _) in enumerate(self._loop.carries):
            if carried == position:
                return self._carry(k, written=False)
        given = self._given(position)
        step = bytes_of(given) // max(self._loop.length, 1)
        return Moving(*given.place, step if position in self._loop.sliced else 0)

    def _output(self, position: int) -> Moving:
        carries = len(self._loop.carries)
        if position < carries:
            return self._carry(position, written=True)
        stack = self._pieces[VALUE, self._made.values[position - carries]]
        return Moving(*stack.place, bytes_of(stack) // max(self._loop.length, 1))

    def _carry(self, k: int, written: bool) -> Moving:
        """Where a carry is read, or written, in each round."""
        history = self._pieces.get((BEFORE, k))
        if history is None:
            first, second = self._turns[k][::-1] if written else self._turns[k]
            return Moving(ABSOLUTE, first, 0, second)
        step = bytes_of(history) // (self._loop.length + 1)
        buffer, offset = history.place
        return Moving(buffer, offset + step * int(written != self._loop.reverse), step)


def parts_of(program: Program) -> Iterator[Part]:
    """All parts of a program, and those of the bodies of its loops."""
    for part in program.parts:
        yield part
        if part.body_program is not None:
            yield from parts_of(part.body_program.program)


def bytes_of(operand: Operand) -> int:
    """Bytes of a contiguous operand."""
    return operand.dtype.itemsize * int(np.prod(operand.shape))
