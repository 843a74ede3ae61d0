"""The steps of a run on the device: launched one by one, or replayed from recordings of several.

Comes in: encoded programs, and which of them each step is. Goes out: launches, so many at a time
that the host can look around between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import LOOK_SECONDS
from gpubp.backends.cuda.drivers.base import Driver, Event
from gpubp.backends.cuda.executor import Executor
from gpubp.backends.cuda.loaded import Loaded

STEPS_A_GRAPH = 16  # recorded together, for long runs
MOST_LAUNCHES = 1 << 14  # in a recording of several steps: loops have many
RECORD_FROM = 8  # steps in a run that are worth a recording


class Stepping:
    """Makes steps.

    Args:
        driver: of the device.
        executor: what runs launches; one that waits after each records nothing.
    """

    def __init__(self, driver: Driver, executor: Executor) -> None:
        self._driver, self._executor = driver, executor

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
        behind: Event | None = None
        before, start = 0, first
        while start < end:
            size = end if look is None else _piece(loaded[which[start]].seconds, start - first)
            piece = min(end, start + size)
            begin, at = time.perf_counter(), start
            while at < piece:
                stop = at + 1
                while stop < piece and which[stop] == which[at]:
                    stop += 1
                self._steps(loaded[which[at]], stop - at)
                at = stop
            if look is not None and (behind is not None or piece < end):
                reached = self._driver.mark()
                if behind is not None:
                    behind.wait()
                    loaded[which[start]].seconds = (time.perf_counter() - begin) / before
                behind, before = reached, piece - start
                look(piece)
            start = piece

    def _steps(self, loaded: Loaded, count: int) -> None:
        """Run `count` steps of one program."""
        if count < RECORD_FROM or not loaded.recordable or self._executor.waits:
            for _ in range(count):
                loaded.step()
            return
        loaded.step()  # first as it is: kernels are loaded outside of a recording
        count -= 1
        together = max(1, min(STEPS_A_GRAPH, MOST_LAUNCHES // max(loaded.launches, 1)))
        while count >= together > 1:
            self._replay(loaded, together)
            count -= together
        for _ in range(count):
            self._replay(loaded, 1)

    def _replay(self, loaded: Loaded, steps: int) -> None:
        replay = loaded.replay.get(steps)
        if replay is None:

            def work() -> None:
                for _ in range(steps):
                    loaded.step()

            replay = loaded.replay[steps] = self._driver.record(work)
        replay()


def _piece(seconds: float, done: int) -> int:
    """Steps to launch together: as many as take half of `LOOK_SECONDS`; few, while not known.

    Args:
        seconds: that a step takes; 0: not known yet.
        done: steps before them in this run.
    """
    if seconds:
        return max(1, int(LOOK_SECONDS / 2 / seconds))
    return STEPS_A_GRAPH if done else 1
