"""Packing temporaries into one arena.

Memory is reused when the last use of the old value and the first of the new one are in different
phases, or when both are walked by the same rows: then each worker reuses only bytes that were its
own, and needs no barrier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpubp.compiler.parts import Buffer, Instruction, Operand
from gpubp.compiler.units import RowKey, row_key
from gpubp.core.store import ALIGN_BYTES, round_up


@dataclass(eq=False)
class Life:
    """When a temporary is live. Positions count instructions; phases count barriers.

    `rows` is set if every access to it is by the same rows.
    """

    buffer: int
    nbytes: int
    first: int
    last: int
    first_phase: int
    last_phase: int
    rows: RowKey | None


class _Arena:
    """The temporaries that have a place, by their first byte.

    Two may overlap if no phase has both. Two that are walked by the same rows and are equally long
    may share their place also within a phase, one after the other.
    """

    COLUMNS = 7  # start, end, first phase, last phase, first, last, rows

    def __init__(self, capacity: int) -> None:
        self._table = np.zeros((self.COLUMNS, capacity), np.int64)
        self._count = 0
        self._numbers: dict[tuple[RowKey, int], int] = {}

    def place(self, life: Life) -> int:
        """Put `life` at the lowest offset at which it disturbs nobody."""
        kind = 0  # of no rows
        if life.rows is not None:
            kind = self._numbers.setdefault((life.rows, life.nbytes), len(self._numbers) + 1)
        table = self._table[:, : self._count]
        met = (table[2] <= life.last_phase) & (table[3] >= life.first_phase)
        beside = table.compress(met, axis=1)
        start = _lowest_gap(beside[0], beside[1], life.nbytes)
        if kind and beside.size:
            start = _shared_place(beside, life, kind, start)
        self._insert(life, start, kind)
        return start

    def _insert(self, life: Life, start: int, kind: int) -> None:
        n = self._count
        at = int(self._table[0, :n].searchsorted(start, side="right"))
        self._table[:, at + 1 : n + 1] = self._table[:, at:n]
        phases = (life.first_phase, life.last_phase)
        self._table[:, at] = (start, start + life.nbytes, *phases, life.first, life.last, kind)
        self._count = n + 1


def _lowest_gap(starts: np.ndarray, ends: np.ndarray, nbytes: int) -> int:
    """The first byte of the lowest gap of this size between ranges ordered by their starts."""
    if starts.size == 0 or starts[0] >= nbytes:
        return 0
    reached = np.maximum.accumulate(ends)
    (gaps,) = (starts[1:] - reached[:-1] >= nbytes).nonzero()
    return int(reached[gaps[0] if gaps.size else -1])


def _shared_place(beside: np.ndarray, life: Life, kind: int, below: int) -> int:
    """The lowest place of its kind that is free while `life` is live, else `below`."""
    alike = beside[:, (beside[6] == kind) & (beside[0] < below)]
    taken = alike[0, (alike[4] <= life.last) & (alike[5] >= life.first)]
    free: list[int] = sorted({*alike[0].tolist()} - {*taken.tolist()})
    for start in free:
        overlap = (beside[0] < start + life.nbytes) & (beside[1] > start)
        if np.count_nonzero(overlap) == np.count_nonzero(alike[0] == start):
            return start
    return below


def pack(
    buffers: list[Buffer], instructions: list[Instruction], phases: list[int], reuse: bool = True
) -> list[Buffer]:
    """Give every temporary a place in the arena and rewrite the operands in place.

    Args:
        buffers: all buffers, temporaries of kind "temp".
        instructions: in order.
        phases: the phase of each instruction.
        reuse: if False, every temporary keeps memory of its own.

    Returns:
        The program's buffers: those that were not temporaries, then the arena.
    """
    offsets: dict[int, int] = {}
    end = 0
    lives = sorted(_lives(buffers, instructions, phases), key=lambda x: (-x.nbytes, x.first))
    arena = _Arena(len(lives))
    for life in lives:
        offsets[life.buffer] = arena.place(life) if reuse else end
        end = max(end, offsets[life.buffer] + life.nbytes)
    return _rewrite(buffers, instructions, offsets, end)


def _lives(buffers: list[Buffer], instructions: list[Instruction], phases: list[int]) -> list[Life]:
    lives: dict[int, Life] = {}
    temporary = [b.kind == "temp" for b in buffers]
    for i, (instruction, phase) in enumerate(zip(instructions, phases)):
        for part in instruction.parts:
            for operand, _ in part.operands():
                number = operand.buffer
                if temporary[number]:
                    key = row_key(operand, part)
                    life = lives.get(number)
                    if life is None:
                        size = round_up(max(buffers[number].nbytes, 1), ALIGN_BYTES)
                        life = lives[number] = Life(number, size, i, i, phase, phase, key)
                    life.last, life.last_phase = i, phase
                    life.rows = life.rows if life.rows == key else None
    return list(lives.values())


def _rewrite(
    buffers: list[Buffer], instructions: list[Instruction], offsets: dict[int, int], total: int
) -> list[Buffer]:
    kept = [i for i, b in enumerate(buffers) if b.kind != "temp"]
    number = {old: new for new, old in enumerate(kept)}

    def move(operand: Operand) -> Operand:
        buffer, dtype, offset, shape, strides, value, axis, also = operand
        if buffer in number:
            buffer = number[buffer]
        else:
            buffer, offset = len(kept), offset + offsets[buffer] // dtype.itemsize
        return Operand(buffer, dtype, offset, shape, strides, value, axis, also)

    for instruction in instructions:
        for part in instruction.parts:
            part.inputs = [move(o) for o in part.inputs]
            part.outputs = [(v, move(o)) for v, o in part.outputs]
    out = [buffers[i] for i in kept]
    if total:
        out.append(Buffer("arena", "arena", np.dtype(np.uint8), total))
    return out
