"""The order of work on the tests' device: one stream of kernels, one of copies from pinned memory.

Three ways to run them. "now": kernels at once, and a copy when it is waited for; until then its
target holds NaN. The other two are as far from the written order as the rules allow, with kernels
that run when the host waits for them: "late" does a copy only when kernels or the host need it, and
"early" at once. A wait that is missing gives wrong numbers in one of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import Event
from gpubp.errors import BackendError

WAYS = ("now", "late", "early")


class Mark:
    """A point in the kernels' stream."""

    def __init__(self, streams: Streams, position: int) -> None:
        self._streams, self._position = streams, position

    def wait(self) -> None:
        self._streams.finish(self._position)


class Copy:
    """A copy from pinned memory; done, and those before it, when it has been waited for."""

    def __init__(self, streams: Streams, target: int, array: NDArray[Any], after: Event) -> None:
        self._streams = streams
        self._target, self._array, self._after = target, array, after

    def wait(self) -> None:
        self._streams.finish_copies(self)

    def run(self) -> None:
        self._after.wait()
        ctypes.memmove(self._target, self._array.ctypes.data, self._array.nbytes)


class Streams:
    """The two streams.

    Args:
        way: "now", "late" or "early".
    """

    def __init__(self, way: str) -> None:
        if way not in WAYS:
            raise ValueError(f"{way!r} is none of {WAYS}")
        self.way = way
        self._queued: list[Callable[[], None]] = []
        self._finished = 0
        self._copies: list[Copy] = []
        self._pinned: list[NDArray[np.uint8]] = []

    def do(self, work: Callable[[], None]) -> None:
        """Work in the order of the kernels' stream."""
        self._queued.append(work)
        if self.way == "now":
            self.finish()

    def finish(self, position: int | None = None) -> None:
        """Do what was queued, up to a mark or all of it."""
        last = self._finished + len(self._queued) if position is None else position
        while self._finished < last:
            work = self._queued.pop(0)  # first: memory that is freed meanwhile comes back here
            self._finished += 1
            work()

    def finish_copies(self, last: Copy) -> None:
        """Do the copies up to one, in order."""
        while last in self._copies:
            self._copies.pop(0).run()

    def mark(self) -> Mark:
        return Mark(self, self._finished + len(self._queued))

    def wait_event(self, event: Event) -> None:
        """Let the kernels that follow wait for a copy."""
        if isinstance(event, Copy):
            self.do(event.wait)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        memory = np.full(nbytes, 0xFF, np.uint8)
        self._pinned.append(memory)
        return memory

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Copy:
        """See `Driver.start_upload`."""
        if array.nbytes and not any(np.shares_memory(array, known) for known in self._pinned):
            raise BackendError("a copy beside the kernels, from memory that is not pinned")
        copy = Copy(self, target, array, after)
        self._copies.append(copy)
        if self.way == "now":
            ctypes.memset(target, 0xFF, array.nbytes)
        elif self.way == "early":
            copy.wait()
        return copy
