"""Lets the lanes of a wave go through a kernel's blocks.

Lanes stand before blocks of instructions; those at the lowest one go on together, so that lanes
that went different ways meet again where the ways do. Who reaches an instruction at which threads
meet waits there. Where some wait for what others do (a grid barrier), those that have not run for
long get their turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.faults import KernelError
from gpubp.backends.cuda.emulator.meetings import BIT, Meeting, existing
from gpubp.backends.cuda.emulator.program import Code, Kernel
from gpubp.backends.cuda.emulator.values import Value, as_dtype
from gpubp.backends.cuda.emulator.wave import WARP, Frame, Wave

Lanes = NDArray[np.int64]
PATIENCE = 256  # blocks that the lowest lanes run before others get a turn
MOST_BLOCKS = 20_000_000


class Run:
    """One wave on its way.

    Args:
        kernel: what it runs.
        wave: the lanes.
    """

    def __init__(self, kernel: Kernel, wave: Wave) -> None:
        self._code, self._wave = kernel.code, wave
        self._whole = kernel.fresh()
        self._part: list[Value] = list(self._whole)
        self._alive = wave.exists.copy()
        self._living = int(self._alive.sum())
        self._ready: dict[int, list[Lanes]] = {}
        self._turns: dict[int, int] = {}
        self._waits_at = np.full(wave.lanes, -1, np.int64)
        self._barrier = np.zeros(wave.lanes, np.int64)
        self._go(0, np.flatnonzero(self._alive))
        self._members = existing(wave)
        self._turn = self._passed_over = 0

    def run(self) -> None:
        """Until all lanes have ended.

        Raises:
            KernelError: a thread did something wrong, or threads wait forever.
        """
        while self._ready or self._go_without_ended():
            number = self._next()
            lanes = self._taken(number)
            code = self._code[number]
            if code.meeting is not None:
                self._arrive(number, code.meeting, lanes)
            else:
                self._execute(code, lanes)
            self._turn += 1
            if self._turn > MOST_BLOCKS:
                ins = code.block.last
                raise self._wave.fault("endless", int(lanes[0]), "runs without end", ins)
        if self._living:
            raise self._stuck()

    def _next(self) -> int:
        """The lowest block that lanes stand at; in a while, one that has waited for long."""
        number = min(self._ready)
        if len(self._ready) > 1:
            self._passed_over += 1
            if self._passed_over > PATIENCE:
                self._passed_over = 0
                number = min(self._ready, key=lambda n: self._turns.get(n, -1))
        else:
            self._passed_over = 0
        self._turns[number] = self._turn
        return number

    def _go(self, number: int, lanes: Lanes) -> None:
        if len(lanes):
            self._ready.setdefault(number, []).append(lanes)

    def _taken(self, number: int) -> Lanes:
        groups = self._ready.pop(number)
        if len(groups) == 1:
            return groups[0]
        return np.sort(np.concatenate(groups))

    def _frame(self, code: Code, lanes: Lanes) -> Frame:
        """Registers of these lanes alone, where they are not all."""
        wave = self._wave
        if len(lanes) == wave.lanes:
            return Frame(self._whole, None, wave.lanes, wave)
        whole, part = self._whole, self._part
        for n in code.uses:
            x = whole[n]
            part[n] = x[lanes] if x.ndim else x
        return Frame(part, lanes, len(lanes), wave)

    def _keep(self, f: Frame, code: Code) -> None:
        """What the block wrote, to the registers of all lanes."""
        if f.lanes is None:
            return
        whole, part = self._whole, self._part
        everyone = len(f.lanes) == self._living
        for n in code.keeps:
            new, old = part[n], whole[n]
            if not new.ndim and (everyone or (not old.ndim and _equal(new, old))):
                whole[n] = new
                continue
            if new.dtype.itemsize != old.dtype.itemsize:
                old = new.dtype.type(0)  # never written as a whole
            kept = np.empty(self._wave.lanes, new.dtype)
            kept[:] = as_dtype(old, new.dtype)
            kept[f.lanes] = new
            whole[n] = kept

    def _execute(self, code: Code, lanes: Lanes) -> None:
        f = self._frame(code, lanes)
        for step in code.steps:
            step(f)
        self._keep(f, code)
        taken = lanes
        if code.condition is not None:
            held = code.condition(f.R)
            held = held if code.wanted else ~held
            if held.ndim:
                taken, rest = lanes[held], lanes[~held]
            else:
                taken, rest = (lanes, lanes[:0]) if held else (lanes[:0], lanes)
            self._go(code.block.targets[-1], rest)
            if not len(taken):
                return
        self._end(code, taken, f)

    def _end(self, code: Code, lanes: Lanes, f: Frame) -> None:
        """What the jump at the end of a block does with those that take it."""
        if code.end in ("", "bra"):
            self._go(code.block.targets[0], lanes)
        elif code.end in ("ret", "exit"):
            self._alive[lanes] = False
            self._living -= len(lanes)
        elif code.end == "trap":
            raise self._wave.fault("assertion", int(lanes[0]), "stopped by a trap", code.block.end)
        else:
            assert code.index is not None
            chosen = f.spread(code.index(f.R))
            beyond = chosen >= len(code.block.targets)
            if beyond.any():
                lane = int(lanes[np.flatnonzero(beyond)[0]])
                text = "jumps beyond the end of a table"
                raise self._wave.fault("bounds", lane, text, code.block.end)
            for i, target in enumerate(code.block.targets):
                self._go(target, lanes[chosen == i])

    def _arrive(self, number: int, meeting: Meeting, lanes: Lanes) -> None:
        self._waits_at[lanes] = number
        if meeting.block:
            self._arrive_at_barrier(meeting, lanes, number)
            return
        waiting = lanes if len(lanes) == self._living else np.flatnonzero(self._waits_at == number)
        code = self._code[number]
        f = self._frame(code, waiting)
        mask = f.spread(meeting.mask(f.R))
        warp = waiting // WARP
        if not np.all(mask & BIT[waiting % WARP]):
            lane = int(waiting[np.flatnonzero((mask & BIT[waiting % WARP]) == 0)[0]])
            raise self._wave.fault("barrier", lane, "is not in the mask that it gives", meeting.ins)
        present = np.bincount(warp, BIT[waiting % WARP], len(self._members)).astype(np.uint32)
        wanted = mask & self._members[warp]
        complete = (present[warp] & wanted) == wanted
        self._release(number, meeting, waiting if complete.all() else waiting[complete])

    def _release(self, number: int, meeting: Meeting, lanes: Lanes) -> None:
        """Those that met go on."""
        if not len(lanes):
            return
        self._waits_at[lanes] = -1
        code = self._code[number]
        if meeting.step is not None:
            f = self._frame(code, lanes)
            meeting.step(f)
            self._keep(f, code)
        if meeting.orders:
            self._wave.passed(lanes, warp=not meeting.block)
        self._go(code.block.targets[0], lanes)

    def _arrive_at_barrier(self, meeting: Meeting, lanes: Lanes, number: int) -> None:
        wave = self._wave
        f = self._frame(self._code[number], lanes)
        which: Any = meeting.barrier(f.R)
        self._barrier[lanes] = which
        expected = wave.size
        if meeting.count is not None:
            expected = min(int(f.spread(meeting.count(f.R))[0]), wave.size)
        blocks = np.unique(wave.block_of[lanes])
        for barrier in np.unique(which):
            waiting = np.flatnonzero((self._waits_at >= 0) & (self._barrier == barrier))
            waiting = waiting[self._at_barriers(waiting)]
            arrived = np.bincount(wave.block_of[waiting], minlength=wave.count)
            full = blocks[arrived[blocks] >= expected]
            if len(full):
                chosen = waiting[np.isin(wave.block_of[waiting], full)]
                self._require_one_place(chosen, number, meeting)
                self._release(number, meeting, chosen)

    def _go_without_ended(self) -> bool:
        """Blocks whose threads all wait at one barrier or have ended, where that is allowed."""
        wave, found = self._wave, False
        if not wave.launch.early_exit:
            return False
        for block in np.unique(wave.block_of[self._waits_at >= 0]):
            lanes = np.flatnonzero(self._alive & (wave.block_of == block))
            number = int(self._waits_at[lanes[0]])
            meeting = self._code[number].meeting if number >= 0 else None
            if meeting is not None and meeting.block and (self._waits_at[lanes] == number).all():
                self._release(number, meeting, lanes)
                found = True
        return found

    def _at_barriers(self, lanes: Lanes) -> NDArray[np.bool_]:
        numbers = self._waits_at[lanes]
        known = {int(n): self._is_barrier(int(n)) for n in np.unique(numbers)}
        return (
            np.array([known[int(n)] for n in numbers], np.bool_)
            if len(known) > 1
            else (np.full(len(lanes), all(known.values())))
        )

    def _is_barrier(self, number: int) -> bool:
        meeting = self._code[number].meeting
        return meeting is not None and meeting.block

    def _require_one_place(self, lanes: Lanes, number: int, meeting: Meeting) -> None:
        """A block's threads must come to one barrier of the source, not to several."""
        elsewhere = np.flatnonzero(self._waits_at[lanes] != number)
        if len(elsewhere):
            lane = int(lanes[elsewhere[0]])
            other = self._code[int(self._waits_at[lane])].meeting
            assert other is not None
            line = f" at line {meeting.ins.line}" if meeting.ins.line else ""
            text = f"waits at a barrier, but others of its block wait at another one{line}"
            raise self._wave.fault("barrier", lane, text, other.ins)

    def _stuck(self) -> KernelError:
        """Nobody can go on."""
        wave = self._wave
        lane = int(np.flatnonzero(self._waits_at >= 0)[0])
        meeting = self._code[int(self._waits_at[lane])].meeting
        assert meeting is not None
        what = "a barrier" if meeting.block else f"{meeting.ins.words[0]} of its warp"
        first = lane // wave.threads * wave.threads
        members = np.arange(first, first + wave.threads)
        if not meeting.block:
            members = np.arange(lane // WARP * WARP, lane // WARP * WARP + WARP)
        absent = [
            m for m in members if wave.exists[m] and self._waits_at[m] != self._waits_at[lane]
        ]
        text = f"waits in {what} that not all reach"
        if absent:
            other = int(absent[0])
            thread = wave.launch.thread(int(wave.thread_of[other]))
            if not self._alive[other]:
                text += f": thread {thread} has ended"
            else:
                there = self._code[int(self._waits_at[other])].meeting
                at = there.ins.line if there is not None else 0
                text += f": thread {thread} waits elsewhere" + f", at line {at}" * bool(at)
        return wave.fault("barrier", lane, text, meeting.ins)


def _equal(a: Value, b: Value) -> bool:
    return a.dtype.itemsize == b.dtype.itemsize and bool(a.tobytes() == b.tobytes())
