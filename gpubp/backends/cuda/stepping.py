"""The steps of a run on the device: by a kernel that stays, or launched kernel by kernel once, then
replayed from recordings.

Comes in: encoded programs, and which of them each step is. Goes out: launches, so many at a time
that the host can look around between them.

A program's first step ever is launched kernel by kernel, as kernels are loaded outside of
recordings. From then on steps are recorded when they are first wanted: a short epoch as one, all
its programs in turn, else up to `STEPS_A_GRAPH` equal steps, by powers of two.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import LOOK_SECONDS
from gpubp.backends.cuda.branches import recorded
from gpubp.backends.cuda.drivers.base import Driver, Event
from gpubp.backends.cuda.executor import Executor
from gpubp.backends.cuda.loaded import Loaded
from gpubp.backends.cuda.persistent import Executions
from gpubp.backends.cuda.products import Work
from gpubp.backends.cuda.repeats import repeatable, repeated

STEPS_A_GRAPH = 16  # equal steps, or short epochs of so many steps together
STEPS_AN_EPOCH = 64  # of an epoch that is recorded as one, at most
MOST_LAUNCHES = 1 << 14  # in a recording of several steps: loops have many
WARM = 1  # steps of a program that are launched kernel by kernel
MOST_EPOCHS = 8  # recordings of several programs that one of them keeps


class Stepping:
    """Makes steps.

    Args:
        driver: of the device.
        executor: what runs launches; one that waits after each records nothing.
        executions: says which programs run in a kernel that stays.
    """

    def __init__(self, driver: Driver, executor: Executor, executions: Executions) -> None:
        self._driver, self._executor, self._executions = driver, executor, executions

    def run(
        self,
        loaded: Sequence[Loaded],
        which: NDArray[np.int64],
        first: int,
        end: int,
        look: Callable[[int], None] | None,
    ) -> None:
        """Run these steps, one after the other; long runs in pieces, with a look after each.

        The device is one piece behind, so that it never waits for the host.
        """
        steps = "".join(map(chr, which.tolist()))
        used = sorted(map(ord, set(steps[first:end])))
        stays = self._executions.kernel(loaded, used, end - first)
        period = (steps + steps).find(steps, 1)  # they repeat themselves after so many
        behind: Event | None = None
        before, start = 0, first
        while start < end:
            seconds = loaded[which[start]].seconds or (stays.guess if stays else 0.0)
            size = end if look is None else _piece(seconds, start - first)
            stop = _end_of_piece(start, size, end, period)
            begin, at = time.perf_counter(), start
            if stays is not None:
                stays.run(stop - at)
                at = stop
            while at < stop:
                at += self._together(loaded, steps, at, stop, period)
            if look is not None and (behind is not None or at < end):
                reached = self._driver.mark()
                if behind is not None:
                    behind.wait()
                    seconds = (time.perf_counter() - begin) / before
                    for target in loaded:  # programs that take turns share what is known
                        target.seconds = seconds
                behind, before = reached, at - start
                look(at)
            start = at

    def _together(
        self, loaded: Sequence[Loaded], steps: str, at: int, stop: int, period: int
    ) -> int:
        """Make the steps from `at` on that one launch can make; returns how many."""
        target = loaded[ord(steps[at])]
        if not self._records(target):
            target.step()
            target.made += 1
            return 1
        if period > 1 and at % period == 0:
            count = self._epochs(loaded, steps, at, stop, period)
            if count:
                return count
        left = stop if period == 1 else min(stop, at + period - at % period)
        if self._executions.loops:
            equal = _alike(steps, at, left)
            count = _largest_power(equal, STEPS_A_GRAPH)
            if self._loop([target] * count, equal // count):
                return equal
        count = STEPS_A_GRAPH
        while count > 1 and (
            count * target.launches > MOST_LAUNCHES
            or not steps.startswith(steps[at] * count, at, left)
        ):
            count //= 2
        self._replay(target.replay, count, [target] * count)
        return count

    def _epochs(self, loaded: Sequence[Loaded], steps: str, at: int, stop: int, period: int) -> int:
        """Make an epoch, or several short ones, if they can be recorded; returns how many steps."""
        kinds = sorted(set(steps[at : at + period]))
        known = all(self._records(loaded[ord(kind)]) for kind in kinds)
        launches = sum(loaded[ord(kind)].launches for kind in steps[at : at + period])
        if not known or at + period > stop or period > STEPS_AN_EPOCH or launches > MOST_LAUNCHES:
            return 0
        if self._executions.loops:
            times = (stop - at) // period
            if self._loop([loaded[ord(kind)] for kind in steps[at : at + period]], times):
                return times * period
        count = period
        while 2 * count <= STEPS_A_GRAPH and at + 2 * count <= stop:
            if 2 * count // period * launches > MOST_LAUNCHES:
                break
            count *= 2
        pattern = steps[at : at + count]
        made = [loaded[ord(kind)] for kind in pattern]
        # By weak references: programs keep no others alive, and one that is gone is like none.
        key = (pattern, *(weakref.ref(loaded[ord(kind)]) for kind in kinds))
        held = made[0].epochs
        if key not in held and len(held) >= MOST_EPOCHS:
            held.clear()
        self._replay(held, key, made)
        return count

    def _loop(self, programs: Sequence[Loaded], times: int) -> bool:
        """Make the steps of these so many times by one launch, if that can be done."""
        tasks = [task for program in programs for task in program.tasks]
        if times < 2 or not repeatable(tasks):
            return False
        held = programs[0].epochs
        key = (times, *map(weakref.ref, programs))
        if key not in held:
            if len(held) >= MOST_EPOCHS:
                held.clear()
            asked = self._executions.branches
            held[key] = repeated(tasks, times, self._executor, asked)
        held[key]()
        return True

    def _records(self, loaded: Loaded) -> bool:
        return loaded.recordable and loaded.made >= WARM and not self._executor.waits

    def _replay(self, held: dict[Any, Work], key: Hashable, programs: Sequence[Loaded]) -> None:
        """Launch the recording of a step of each of these; made, if it is not `held`."""
        replay = held.get(key)
        if replay is None:
            tasks = [task for program in programs for task in program.tasks]
            how = self._executions.branches, self._executor.early
            replay = held[key] = recorded(tasks, self._driver, *how)
        replay()


def _alike(steps: str, at: int, stop: int) -> int:
    """How many steps from `at` on are of one program."""
    end = at
    while end < stop and steps[end] == steps[at]:
        end += 1
    return end - at


def _largest_power(count: int, most: int) -> int:
    """The largest power of two that divides a count, up to `most`."""
    return min(count & -count, most)


def _end_of_piece(start: int, size: int, end: int, period: int) -> int:
    """Where a piece of so many steps ends: with an epoch, if one ends in it."""
    stop = min(end, start + size)
    whole = stop - stop % period
    return whole if stop < end and start < whole and period <= STEPS_AN_EPOCH else stop


def _piece(seconds: float, done: int) -> int:
    """Steps to launch together: as many as take half of `LOOK_SECONDS`; few, while not known.

    Args:
        seconds: that a step takes; 0: not known yet.
        done: steps before them in this run.
    """
    if seconds:
        return max(1, int(LOOK_SECONDS / 2 / seconds))
    return STEPS_A_GRAPH if done else 1
