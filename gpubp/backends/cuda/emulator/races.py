"""Races: two threads use a place, one of them writes, and no barrier stands between.

Comes in: which lanes read or write which places. Goes out: the lane that met another thread's
access, and whose. Each piece of memory keeps who wrote it last and who read it last, and when: the
clock goes on at every barrier, so an access is ordered before a thread's if it is older than the
last barrier that the thread's block passed (or the last `__syncwarp` of its warp, between two
threads of a warp). Several unordered readers are kept as "many".

What is not reported: stores that leave what is there (several threads that write one value);
atomic, volatile, relaxed, acquiring and releasing accesses among each other; and accesses of
different blocks in kernels that use fences, whose order this does not follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.memory import Space

# An entry: atomic (1 bit) | time (31) | number of the thread (31).
THREAD_BITS = 31
ATOMIC = np.int64(1 << 62)
PLAIN = np.int64((1 << 62) - 1)
THREAD = np.int64((1 << THREAD_BITS) - 1)
TICK = np.int64(1 << THREAD_BITS)
MANY_BLOCKS = THREAD  # readers of several blocks


@dataclass
class Who:
    """The lanes that an access is of: one element a lane, or one number for all.

    Attributes:
        number: of each thread; see `Numbers`.
        block_since, warp_since: the clock at the last barrier of its block, and of its warp.
        several: the number that stands for several threads of its block.
    """

    number: Any
    block_since: Any
    warp_since: Any
    several: Any

    def take(self, chosen: Any) -> Who:
        """Some of them."""
        each = (self.number, self.block_since, self.warp_since, self.several)
        return Who(*[x[chosen] for x in each])


@dataclass(frozen=True)
class Numbers:
    """Numbers of threads: `each` a block; of these the first for threads, then one for "several of
    a warp", for each warp, and the last one for "several of the block".
    """

    threads: int

    @property
    def each(self) -> int:
        return self.threads + self.threads // 32 + 1

    def block(self, number: Any) -> Any:
        return number // self.each

    def warp(self, number: Any) -> Any:
        """Within the block; -1 for several."""
        own = number % self.each
        several = np.where(own == self.each - 1, -1, own - self.threads)
        return np.where(own < self.threads, own // 32, several)


@dataclass
class Conflict:
    """Two accesses of one place.

    Attributes:
        lane: position among those that were asked about.
        other: number of the other thread; -1: one of several.
        wrote: the other one wrote.
        place: offset of the place.
    """

    lane: int
    other: int
    wrote: bool
    place: int


class Races:
    """Looks for races of one launch.

    Args:
        numbers: of threads.
        launch_since: the clock at the launch's start, as an entry.
        fences: accesses of different blocks may be in an order that is not seen here.
        granule: bytes that share an entry.

    Attributes:
        now: the clock, as an entry.
    """

    def __init__(self, numbers: Numbers, launch_since: int, fences: bool, granule: int) -> None:
        self.numbers, self._fences, self.granule = numbers, fences, granule
        self._shift = granule.bit_length() - 1
        self._launch_since = np.int64(launch_since)
        self.now = np.int64(launch_since)

    def read(
        self, space: Space, at: Any, width: int, who: Who, shared: bool, atomic: bool = False
    ) -> Conflict | None:
        """Lanes read `width` bytes at each of `at`; `shared`: places belong to one block."""
        writers, readers = space.shadow(self.granule)
        for part in range(0, width, self.granule):
            place = (at + part) >> self._shift
            found = writers.take(place)
            wrong = self._unordered(found, who, shared, atomic)
            if wrong is not None:
                return self._conflict(wrong, found, True, place)
            if not atomic:
                self._note_readers(readers, place, who, shared)
        return None

    def write(
        self,
        space: Space,
        at: Any,
        width: int,
        who: Who,
        shared: bool,
        changes: Any,
        atomic: bool = False,
    ) -> Conflict | None:
        """Lanes are about to write; `changes`: which of them write another value than is there."""
        writers, readers = space.shadow(self.granule)
        for part in range(0, width, self.granule):
            place = (at + part) >> self._shift
            for table, wrote in ((writers, True), (readers, False)):
                found = table.take(place)
                wrong = self._unordered(found, who, shared, atomic)
                if wrong is not None and np.any(wrong & changes):
                    return self._conflict(wrong & changes, found, wrote, place)
            entry = self.now | who.number
            writers[place] = entry | ATOMIC if atomic else entry
        return None

    def collided(self, space: Space, at: Any, differs: Any) -> Conflict | None:
        """After lanes wrote in one instruction; `differs`: which do not find what they wrote."""
        if not np.any(differs):
            return None
        place = at >> self._shift
        return self._conflict(differs, space.shadow(self.granule)[0].take(place), True, place)

    def _conflict(self, wrong: Any, found: Any, wrote: bool, place: Any) -> Conflict:
        i = int(np.flatnonzero(wrong)[0])
        other = int(found[i] & THREAD)
        if other == MANY_BLOCKS or other % self.numbers.each >= self.numbers.threads:
            other = -1
        return Conflict(i, other, wrote, int(place[i]) * self.granule)

    def _unordered(self, found: Any, who: Who, shared: bool, atomic: bool) -> Any:
        """Which entries are another thread's, with nothing between it and this one; None: none."""
        plain = found & PLAIN
        recent = plain >= (who.block_since if shared else self._launch_since)
        if not recent.any():
            return None
        if atomic:
            recent &= found == plain
        thread = plain & THREAD
        recent &= thread != who.number
        if not recent.any():
            return None
        return self._refined(recent, plain, thread, who)

    def _refined(self, recent: Any, plain: Any, thread: Any, who: Who) -> Any:
        numbers = self.numbers
        block = numbers.block(who.number)
        apart = (thread == MANY_BLOCKS) | (numbers.block(thread) != block)
        inside = plain >= who.block_since
        warp = numbers.warp(who.number)
        inside &= (numbers.warp(thread) != warp) | (plain >= who.warp_since)
        recent = recent & np.where(apart, not self._fences, inside)
        return recent if recent.any() else None

    def _note_readers(self, readers: Any, place: Any, who: Who, shared: bool) -> None:
        found = readers.take(place)
        known = found == (self.now | who.several)
        if not shared:
            known |= found == (self.now | MANY_BLOCKS)
        if known.all():
            return
        mine: Any = self.now | who.number
        new = mine
        others = self._unordered(found, who, shared, False)
        if others is not None:
            new = np.where(others, self._joined(found, mine), mine)
        readers[place] = new
        back = readers.take(place)
        twice = np.flatnonzero(back != new)
        if len(twice):  # several lanes of this instruction read one place
            readers[place[twice]] = self._joined(back[twice], new[twice])

    def _joined(self, a: NDArray[np.int64], b: Any) -> Any:
        """The entry of two readers."""
        numbers = self.numbers
        one, two = a & THREAD, b & THREAD
        block, warp = numbers.block(two), numbers.warp(two)
        first = block * numbers.each
        same_warp = (numbers.warp(one) == warp) & (warp >= 0)
        several = first + np.where(same_warp, numbers.threads + warp, numbers.each - 1)
        apart = (one == MANY_BLOCKS) | (two == MANY_BLOCKS) | (numbers.block(one) != block)
        return (b & ~THREAD) | np.where(apart, MANY_BLOCKS, several)
