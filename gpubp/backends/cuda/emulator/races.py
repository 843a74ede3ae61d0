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
from gpubp.backends.cuda.emulator.race_loops import MANY_BLOCKS, THREAD, loops

# An entry: atomic (1 bit) | time (31) | number of the thread (31).


@dataclass
class Who:
    """The lanes that an access is of, one element a lane.

    Attributes:
        number: of each thread; see `Numbers`.
        block_since, warp_since: the clock at the last barrier of its block, and of its warp.
    """

    number: NDArray[np.int64]
    block_since: NDArray[np.int64]
    warp_since: NDArray[np.int64]

    def take(self, chosen: Any) -> Who:
        """Some of them."""
        return Who(*[x[chosen] for x in (self.number, self.block_since, self.warp_since)])

    def addresses(self) -> list[int]:
        """Of the arrays, which are contiguous."""
        return [x.ctypes.data for x in (self.number, self.block_since, self.warp_since)]


@dataclass(frozen=True)
class Numbers:
    """Numbers of threads: `each` a block; of these the first for threads, then one for "several of
    a warp", for each warp, and the last one for "several of the block".
    """

    threads: int

    @property
    def each(self) -> int:
        return self.threads + self.threads // 32 + 1


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
        self._launch_since = self.now = launch_since

    def read(
        self, space: Space, at: Any, width: int, who: Who, shared: bool, atomic: bool = False
    ) -> Conflict | None:
        """Lanes read `width` bytes at each of `at`; `shared`: places belong to one block."""
        tables = space.shadow(self.granule)
        place = np.ascontiguousarray(at, np.int64) >> self._shift
        given = self._given(place, width, tables, who)
        how = (self.now, *self._about(shared), int(atomic))
        found = loops()[0](*given, *how)
        return None if found < 0 else self._conflict(found, place, tables[0], True)

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
        tables = space.shadow(self.granule)
        place = np.ascontiguousarray(at, np.int64) >> self._shift
        given = self._given(place, width, tables, who)
        flags = np.ascontiguousarray(np.broadcast_to(changes, place.shape), np.bool_)
        how = (flags.ctypes.data, self.now, *self._about(shared), int(atomic))
        found = loops()[1](*given, *how)
        if found < 0:
            return None
        read = found % 2 == 1
        return self._conflict(found // 2, place, tables[read], not read)

    def _given(self, place: Any, width: int, tables: Any, who: Who) -> list[int]:
        """Lanes and tables for the loops; callers hold the arrays."""
        parts = max(width // self.granule, 1)
        places = [len(place), place.ctypes.data, parts]
        return [*places, *(t.ctypes.data for t in tables), *who.addresses()]

    def _about(self, shared: bool) -> list[int]:
        numbers = self.numbers
        flags = [int(shared), int(self._fences)]
        return [self._launch_since, numbers.each, numbers.threads, *flags]

    def collided(self, space: Space, at: Any, differs: Any) -> Conflict | None:
        """After lanes wrote in one instruction; `differs`: which do not find what they wrote."""
        if not np.any(differs):
            return None
        place = at >> self._shift
        lane = int(np.flatnonzero(differs)[0])
        return self._conflict(lane, place, space.shadow(self.granule)[0], True)

    def _conflict(self, found: int, place: Any, table: Any, wrote: bool) -> Conflict:
        """Of the lane `found % n`, in its entry `found // n`."""
        part, lane = divmod(found, len(place))
        at = int(place[lane]) + part
        other = int(table[at]) & THREAD
        if other == MANY_BLOCKS or other % self.numbers.each >= self.numbers.threads:
            other = -1
        return Conflict(lane, other, wrote, at * self.granule)
