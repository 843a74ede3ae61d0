"""Instructions at which threads wait for each other: PTX ISA, "bar", "shfl.sync", "vote.sync" and
their kin.

Each is a `Meeting`: who must come, and what happens when all have come. `executor.py` lets threads
wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.env import Env, Step
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.matrices import load_matrix, multiply
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.values import BITS, DTYPES, Read, Value, as_dtype
from gpubp.backends.cuda.emulator.wave import WARP, Frame, Wave
from gpubp.backends.cuda.emulator.wmma import matrices


@dataclass
class Meeting:
    """An instruction at which threads meet.

    Attributes:
        ins: it.
        block: all threads of a block meet; else those of `mask` in a warp.
        mask: the lanes of the warp that must come.
        barrier: the number of a block's barrier.
        count: threads that it waits for; None: all of the block.
        step: what those that met do together.
        orders: what was written before is seen after it.
        waits: threads do not only count, but wait.
    """

    ins: Instruction
    block: bool
    mask: Read
    barrier: Read
    count: Read | None
    step: Step | None
    orders: bool = False


def _all(R: list[Value]) -> Value:
    return np.uint32(0xFFFFFFFF)


def _zero(R: list[Value]) -> Value:
    return np.uint32(0)


def meeting(ins: Instruction, env: Env) -> Meeting:
    """What an instruction at which threads meet does.

    Raises:
        UnknownInstructionError: it is another kind of meeting.
    """
    words = ins.words
    if ins.guard is not None:
        raise UnknownInstructionError(str(ins), "threads that meet under a condition")
    if ins.opcode == "bar.warp.sync":
        return Meeting(ins, False, env.read(ins.operands[0], "b32", ins), _zero, None, None, True)
    if words[0] in ("bar", "barrier"):
        return _barrier(ins, env)
    if words[0] in ("mma", "ldmatrix", "wmma"):
        make = {"mma": multiply, "ldmatrix": load_matrix, "wmma": matrices}[words[0]]
        return Meeting(ins, False, _all, _zero, None, _by_whole_warps(ins, make(ins, env)))
    make_of = {"shfl": _shuffle, "vote": _vote, "match": _match, "redux": _reduce, "elect": _elect}
    if words[0] not in make_of or "sync" not in words:
        raise UnknownInstructionError(str(ins))
    mask = env.read(ins.operands[-1], "b32", ins)
    return Meeting(ins, False, mask, _zero, None, make_of[words[0]](ins, env))


def _by_whole_warps(ins: Instruction, step: Step) -> Step:
    """An instruction that all 32 lanes of a warp must carry out."""

    def run(f: Frame) -> None:
        members = np.bincount(f.ids() // WARP, minlength=f.wave.lanes // WARP)[f.ids() // WARP]
        if (members < WARP).any():
            lane = int(f.ids()[np.flatnonzero(members < WARP)[0]])
            text = f"{ins.words[0]} by {members.min()} lanes of a warp; it needs all {WARP}"
            raise f.wave.fault("barrier", lane, text, ins)
        step(f)

    return run


def _barrier(ins: Instruction, env: Env) -> Meeting:
    words = [w for w in ins.words if w not in ("cta", "aligned")]
    operands = list(ins.operands)
    if words[1] not in ("sync", "red"):
        raise UnknownInstructionError(str(ins))
    step = None
    if words[1] == "red":
        target, given = operands.pop(0), operands.pop()
        step = _reduced_by_block(words, env, target, given, ins)
    barrier = env.read(operands[0], "u32", ins)
    count = env.read(operands[1], "u32", ins) if len(operands) > 1 else None
    return Meeting(ins, True, _all, barrier, count, step, True)


def _reduced_by_block(
    words: list[str], env: Env, target: str, given: str, ins: Instruction
) -> Step:
    how, n = words[2], env.target(target)
    negated = given.startswith("!")
    read = env.read(given.lstrip("!"), "pred", ins)

    def run(f: Frame) -> None:
        held = f.spread(read(f.R)) ^ negated
        block = f.wave.block_of[f.ids()]
        totals = np.bincount(block, held, f.wave.count).astype(np.uint32)[block]
        members = np.bincount(block, minlength=f.wave.count)[block]
        f.R[n] = totals if how == "popc" else (totals > 0 if how == "or" else totals == members)

    return run


class Warps:
    """The lanes of a frame, 32 in a row."""

    def __init__(self, f: Frame) -> None:
        self._ids, self._lanes = f.ids(), f.wave.lanes
        self._full = f.lanes is None
        self._f = f

    def rows(self, x: Value, fill: Any = 0) -> NDArray[Any]:
        """Values of warps; `fill` for lanes that are not of the frame."""
        if self._full:
            return self._f.spread(x).reshape(-1, WARP)
        whole = np.full(self._lanes, fill, x.dtype)
        whole[self._ids] = x
        return whole.reshape(-1, WARP)

    def back(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Of the frame's lanes alone."""
        flat = rows.reshape(-1)
        return flat if self._full else flat[self._ids]

    def present(self) -> NDArray[np.bool_]:
        """Which lanes are of the frame."""
        return self.rows(np.True_)


LANES = np.arange(WARP, dtype=np.int64)
BIT = (np.uint32(1) << LANES.astype(np.uint32)).astype(np.uint32)


def _shuffle(ins: Instruction, env: Env) -> Step:
    mode = ins.words[2]
    first, _, second = ins.operands[0].partition("|")
    target = env.target(first)
    held = env.target(second) if second else None
    value, by, clamp = (env.read(o, "b32", ins) for o in ins.operands[1:4])

    def run(f: Frame) -> None:
        warps = Warps(f)
        a, b, c = (warps.rows(read(f.R)) for read in (value, by, clamp))
        source, inside = _sources(mode, b.astype(np.int64) & 31, c.astype(np.int64))
        present = warps.present()
        given = np.take_along_axis(present, source, 1)
        if not (given | ~present).all():
            lane = int(np.flatnonzero((~given & present).reshape(-1))[0])
            text = "takes a value of a lane that does not take part"
            raise f.wave.fault("barrier", lane, text, ins)
        f.R[target] = warps.back(np.take_along_axis(a, source, 1))
        if held is not None:
            f.R[held] = warps.back(inside)

    return run


def _sources(mode: str, b: NDArray[np.int64], c: NDArray[np.int64]) -> tuple[Any, Any]:
    """The lane that each takes its value from, and whether it lies within its part of the warp."""
    segment, limit = c >> 8 & 31, c & 31
    least, most = LANES & segment, (LANES & segment) | (limit & ~segment & 31)
    if mode == "up":
        source = LANES - b
        inside = source >= most
    else:
        source = {"down": LANES + b, "bfly": LANES ^ b, "idx": least | (b & ~segment)}[mode]
        inside = source <= most
    return np.where(inside, source, LANES), inside


def _vote(ins: Instruction, env: Env) -> Step:
    how = ins.words[2]
    given = ins.operands[1]
    negated = given.startswith("!")
    read, target = env.read(given.lstrip("!"), "pred", ins), env.target(ins.operands[0])

    def run(f: Frame) -> None:
        warps = Warps(f)
        held = warps.rows(f.spread(read(f.R)) ^ negated)
        present = warps.present()
        votes = held & present
        if how == "ballot":
            found: Any = (votes * BIT).sum(1, dtype=np.uint32)
        elif how == "any":
            found = votes.any(1)
        else:
            found = (held | ~present).all(1)
            if how == "uni":
                found |= ~votes.any(1)
        f.R[target] = warps.back(np.repeat(found, WARP).reshape(-1, WARP))

    return run


def _match(ins: Instruction, env: Env) -> Step:
    how, kind = ins.words[1], ins.words[-1]
    first, _, second = ins.operands[0].partition("|")
    target, held = env.target(first), env.target(second) if second else None
    read = env.read(ins.operands[1], kind, ins)

    def run(f: Frame) -> None:
        warps = Warps(f)
        x, present = warps.rows(read(f.R)), warps.present()
        same = (x[:, :, None] == x[:, None, :]) & present[:, None, :]
        found = (same * BIT).sum(2, dtype=np.uint32)
        if how == "all":
            whole = (present * BIT).sum(1, dtype=np.uint32)[:, None]
            equal = found == whole
            found = np.where(equal, found, np.uint32(0))
            if held is not None:
                f.R[held] = warps.back(equal)
        f.R[target] = warps.back(found)

    return run


_REDUCE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def _reduce(ins: Instruction, env: Env) -> Step:
    how, kind = ins.words[2], ins.words[-1]
    if how not in _REDUCE or DTYPES[kind].kind == "f":
        raise UnknownInstructionError(str(ins))
    read, target = env.read(ins.operands[1], kind, ins), env.target(ins.operands[0])
    dtype = DTYPES[kind]
    info = np.iinfo(dtype)
    fill = {
        "min": info.max,
        "max": info.min,
        "and": dtype.type(-1) if dtype.kind == "i" else info.max,
    }

    def run(f: Frame) -> None:
        warps = Warps(f)
        x = warps.rows(read(f.R), fill.get(how, 0))
        found = _REDUCE[how].reduce(x, axis=1, dtype=dtype)  # type: ignore[attr-defined]
        f.R[target] = as_dtype(warps.back(np.repeat(found, WARP).reshape(-1, WARP)), BITS[4])

    return run


def _elect(ins: Instruction, env: Env) -> Step:
    first, _, second = ins.operands[0].partition("|")
    number, held = env.target(first), env.target(second)

    def run(f: Frame) -> None:
        warps = Warps(f)
        least = warps.present().argmax(1)[:, None]
        f.R[number] = warps.back(np.broadcast_to(least, (len(least), WARP))).astype(np.uint32)
        f.R[held] = warps.back(least == LANES)

    return run


def existing(wave: Wave) -> NDArray[np.uint32]:
    """For each warp, the lanes that threads stand for, as bits."""
    return np.asarray((wave.exists.reshape(-1, WARP) * BIT).sum(1, dtype=np.uint32))
