"""Copies that go on beside: PTX ISA, "cp.async", "cp.async.commit_group", "cp.async.wait_group".

A copy's bytes arrive as late as they may: when its thread waits for the group that it is of. Until
then they are in flight, and whoever reads or writes them is reported, that thread too; for other
threads they are written when the wait has ended, so that these need a barrier behind it. What is
copied must not change until then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.access import (
    Access,
    Places,
    check_state,
    locate,
    raced,
    watched,
)
from gpubp.backends.cuda.emulator.env import Env, Step, family
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.memory import ALLOCATED
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.values import Value
from gpubp.backends.cuda.emulator.wave import Frame, InFlight, Wave

WORD = 4
_ALL = 0xFFFFFFFFFFFFFFFF


@family("cp")
def copy(ins: Instruction, env: Env) -> Step:
    """cp.async of 4, 8 or 16 bytes, of which the first ones may be all that is read; the rest is
    0 then.
    """
    words = ins.words
    if words[1] != "async" or "bulk" in words or "mbarrier" in words:
        raise UnknownInstructionError(str(ins))
    if "commit_group" in words:
        return _commit
    if "wait_all" in words:
        return lambda f: _wait(f, -1, ins)
    if "wait_group" in words:
        count = int(ins.operands[0])
        return lambda f: _wait(f, count, ins)
    if not 3 <= len(ins.operands) <= 4 or "shared::cluster" in ins.opcode:
        raise UnknownInstructionError(str(ins))
    width = int(ins.operands[2])
    to, more = env.address(ins.operands[0], ins)
    source, offset = env.address(ins.operands[1], ins)
    given = env.read(ins.operands[3], "u32", ins) if len(ins.operands) == 4 else None

    def run(f: Frame) -> None:
        here = f.spread(to(f.R) + np.uint64(more & _ALL))
        there = f.spread(source(f.R) + np.uint64(offset & _ALL))
        nbytes = f.spread(np.uint32(width) if given is None else given(f.R)).astype(np.int64)
        _require_no_more(f, nbytes, width, ins)
        _start(f, ins, here, there, width, nbytes)

    return run


def _require_no_more(f: Frame, nbytes: Any, width: int, ins: Instruction) -> None:
    more = nbytes > width if f.mask is None else (nbytes > width) & f.mask
    if more.any():
        lane = int(np.flatnonzero(more)[0])
        text = f"copies {nbytes[lane]} bytes as {width}, which is undefined"
        raise f.wave.fault("bounds", int(f.ids()[lane]), text, ins)


def _start(f: Frame, ins: Instruction, here: Any, there: Any, width: int, nbytes: Any) -> None:
    (target,) = locate(f, "shared", here, width, ins)
    (origin,) = locate(f, "global", there, width, ins)
    check_state(f, target, width, ALLOCATED, ins)
    _require_apart(f, target, ins)
    _written(f, target, width, ins)
    values = _loaded(f, ins, there, width, nbytes)
    target.space.depart(target.at, width)
    chosen = slice(None) if target.chosen is None else target.chosen
    lanes = f.ids()[chosen]
    copy = InFlight(ins, lanes, f.wave.groups[lanes], target.space, target.at, origin.at)
    copy.values, copy.nbytes = [v[chosen] for v in values], nbytes[chosen]
    f.wave.in_flight.append(copy)


def _loaded(f: Frame, ins: Instruction, there: Any, width: int, nbytes: Any) -> list[Value]:
    """The words that each lane reads; 0 behind the bytes that it wants."""
    if (nbytes == width).all():
        return Access(ins, "global", WORD, width // WORD).load(f, there)
    kept, found = f.mask, []
    for at in range(0, width, WORD):
        word = np.zeros(f.n, np.uint32)
        for first, size in ((0, WORD), (0, 1), (1, 1), (2, 1)):
            whole = nbytes >= at + WORD
            wanted = whole if size == WORD else ~whole & (nbytes > at + first)
            f.mask = wanted if kept is None else wanted & kept
            if f.mask.any():
                (part,) = Access(ins, "global", size).load(f, there + np.uint64(at + first))
                word[f.mask] |= part[f.mask].astype(np.uint32) << np.uint32(8 * first)
        found.append(word)
    f.mask = kept
    return found


def _require_apart(f: Frame, p: Places, ins: Instruction) -> None:
    """Of several copies to one place anybody's may stay."""
    order = np.argsort(p.at, kind="stable")
    same = np.flatnonzero(np.diff(p.at[order]) == 0)
    if len(same):
        lanes = f.ids() if p.chosen is None else f.ids()[p.chosen]
        text = "copies to where another thread copies, too, and no barrier stands between"
        raise f.wave.fault("race", int(lanes[order[same[0] + 1]]), text, ins)


def _written(f: Frame, p: Places, width: int, ins: Instruction) -> None:
    """A write, for who looks for races."""
    seen, races = watched(f, p), f.wave.launch.races
    if seen is not None and races is not None:
        everywhere = np.ones(p.n, np.bool_)
        raced(f, p, races.write(p.space, seen[0], width, seen[1], True, everywhere), "fills", ins)


def _commit(f: Frame) -> None:
    """What was started since the last one is a group."""
    ids = f.ids()
    f.wave.groups[ids if f.mask is None else ids[f.mask]] += 1


def _wait(f: Frame, but: int, ins: Instruction) -> None:
    """Until all groups have arrived but the latest ones; -1: and what is in no group yet."""
    wave, ids = f.wave, f.ids()
    ids = ids if f.mask is None else ids[f.mask]
    first = np.full(wave.lanes, -1, np.int64)  # the first group that need not have arrived
    first[ids] = wave.groups[ids] - but
    left = []
    for copy in wave.in_flight:
        due = copy.group < first[copy.lanes]
        if due.any():
            _arrive(wave, copy.taken(due), ins)
            copy = copy.taken(~due)
        if len(copy.lanes):
            left.append(copy)
    wave.in_flight[:] = left


def _arrive(wave: Wave, copy: InFlight, ins: Instruction) -> None:
    f = Frame([], copy.lanes, len(copy.lanes), wave)
    for i, value in enumerate(copy.values):
        at = copy.source + WORD * i
        changed = (copy.nbytes >= WORD * (i + 1)) & (wave.memory.load(at, WORD) != value)
        if changed.any():
            lane = int(np.flatnonzero(changed)[0])
            text = f"copies {wave.memory.describe(int(at[lane]))}, which changes before it is there"
            raise wave.fault("race", int(copy.lanes[lane]), text, copy.ins)
        copy.space.store(copy.at + WORD * i, value, WORD)
    p = Places(copy.space, "shared", copy.at, None, f.n, wave.origin_of_shared(copy.lanes))
    _written(f, p, WORD * len(copy.values), ins)
