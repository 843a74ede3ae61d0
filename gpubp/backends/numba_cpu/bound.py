"""One step that is called again and again: its tables are made once."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from gpubp.backends.base import Feed
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.job import STATUS, Job, Loaded
from gpubp.backends.numba_cpu.pace import Pace
from gpubp.backends.numba_cpu.pool import Pool, prepared
from gpubp.core.store import Bank, address_of

Step = Callable[[Sequence[int]], None]


class Bound:
    """A program's step on the arrays of a feed, by so many workers.

    Args:
        job: of one step.
        loaded: the program.
        feed: the arrays.
        pool: the other workers; None: there are none.
        finish: raises what went wrong in the job.
    """

    def __init__(
        self, job: Job, loaded: Loaded, feed: Feed, pool: Pool | None, finish: Callable[[], None]
    ) -> None:
        self._loop, self._shared = prepared("loop", ctypes.c_int64(job.address)), job.shared
        self._job, self._workers = job, int(job.context[words.CONTEXT_WORKERS])
        self._loaded, self._feed, self._pool, self._finish = loaded, feed, pool, finish
        self._copies: dict[int, NDArray[Any]] = {}
        self._addresses = [job.addresses_of(loaded, i, a) for i, a in enumerate(feed.inputs)]

    def move(self, position: int) -> None:
        """The input of this position is another array of its type from now on."""
        array = self._loaded.apart(self._feed.inputs[position])
        if array is not self._feed.inputs[position]:
            self._copies[position] = array
        address = address_of(array)
        for word in self._addresses[position]:
            word[...] = address

    def tune(self, pace: Pace) -> None:
        """Let the shares change as often as the step's duration asks for."""
        work = pace.work_between_shares(self._workers, self._loaded.cost)
        self._job.context[words.CONTEXT_WORK] = work

    def run(self) -> bool:
        """Run the step; False, having done nothing, if another run is using the workers."""
        if Bank.has_device_copies:
            self._loaded.sync_host()
        if self._shared[STATUS]:
            self._job.clear()  # of a call that was interrupted before it could say so
        if self._pool is None:
            self._loop()
        elif not self._pool.run(self._job.address, self._workers):
            return False
        if self._shared[STATUS]:
            self._finish()
        return True


def one_step(alone: Bound) -> Step:
    """A step by one worker."""

    def step(moved: Sequence[int]) -> None:
        for position in moved:
            alone.move(position)
        alone.run()

    return step


def either_step(alone: Bound, together: Bound, workers: int, pace: Pace | None) -> Step:
    """A step by one worker or all, whichever is faster; by all, if no pace is to be kept."""

    def step(moved: Sequence[int]) -> None:
        for position in moved:
            alone.move(position)
            together.move(position)
        if pace is None:
            if not together.run():
                alone.run()
            return
        now, _ = pace.plan(workers)
        start = time.perf_counter()
        if now == 1:
            alone.run()
        elif together.run():
            together.tune(pace)
        else:
            alone.run()
            return  # that says nothing about the workers
        pace.note(now, 1, time.perf_counter() - start)

    return step
