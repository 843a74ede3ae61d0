"""Packing temporaries into one arena.

Memory is reused when the last use of the old value and the first of the new one are in different
phases, or when both are walked by the same rows: then each worker reuses only bytes that were its
own, and needs no barrier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gpubp.plan import RowKey, row_key
from gpubp.program import Buffer, Instruction, Operand
from gpubp.store import ALIGN_BYTES, round_up


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

    def fits(self, offset: int, other: Life, start: int) -> bool:
        """This one may stand at `offset` while `other` stands at `start`."""
        if offset >= start + other.nbytes or start >= offset + self.nbytes:
            return True
        early, late = (self, other) if self.first < other.first else (other, self)
        if early.last_phase < late.first_phase:
            return True
        same_rows = early.rows is not None and early.rows == late.rows
        same_place = offset == start and early.nbytes == late.nbytes
        return same_rows and same_place and early.last < late.first


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
    placed: list[Life] = []
    end = 0
    for life in sorted(_lives(buffers, instructions, phases), key=lambda x: (-x.nbytes, x.first)):
        offsets[life.buffer] = _first_fit(life, placed, offsets) if reuse else end
        end = max(end, offsets[life.buffer] + life.nbytes)
        placed.append(life)
    return _rewrite(buffers, instructions, offsets, end)


def _lives(buffers: list[Buffer], instructions: list[Instruction], phases: list[int]) -> list[Life]:
    lives: dict[int, Life] = {}
    for i, instruction in enumerate(instructions):
        for part in instruction.parts:
            for operand, _ in part.operands():
                if buffers[operand.buffer].kind == "temp":
                    key = row_key(operand, part)
                    life = lives.get(operand.buffer)
                    if life is None:
                        size = round_up(max(buffers[operand.buffer].nbytes, 1), ALIGN_BYTES)
                        life = Life(operand.buffer, size, i, i, phases[i], phases[i], key)
                        lives[operand.buffer] = life
                    life.last, life.last_phase = i, phases[i]
                    life.rows = life.rows if life.rows == key else None
    return list(lives.values())


def _first_fit(life: Life, placed: list[Life], offsets: dict[int, int]) -> int:
    """The lowest offset at which `life` disturbs nobody."""
    starts = {offsets[p.buffer] for p in placed}
    ends = {offsets[p.buffer] + p.nbytes for p in placed}
    for offset in sorted({0} | starts | ends):
        if all(life.fits(offset, p, offsets[p.buffer]) for p in placed):
            return offset
    raise AssertionError("the end of the arena is always free")


def _rewrite(
    buffers: list[Buffer], instructions: list[Instruction], offsets: dict[int, int], total: int
) -> list[Buffer]:
    kept = [i for i, b in enumerate(buffers) if b.kind != "temp"]
    number = {old: new for new, old in enumerate(kept)}

    def move(operand: Operand) -> Operand:
        if operand.buffer in number:
            return replace(operand, buffer=number[operand.buffer])
        shift = offsets[operand.buffer] // operand.dtype.itemsize
        return replace(operand, buffer=len(kept), offset=operand.offset + shift)

    for instruction in instructions:
        for part in instruction.parts:
            part.inputs = [move(o) for o in part.inputs]
            part.outputs = [(v, move(o)) for v, o in part.outputs]
    out = [buffers[i] for i in kept]
    if total:
        out.append(Buffer("arena", "arena", np.dtype(np.uint8), total))
    return out
