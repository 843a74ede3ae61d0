"""The order of work on the tests' device: one stream of kernels, one of copies from pinned memory.

Two ways to run them, each as far from the written order as the rules allow. "late": kernels run at
once, and a copy when somebody waits for it; until then its target holds NaN. "early": copies run at
once, and kernels when the host waits for them. A wait that is missing gives wrong numbers in one
of the two.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cupy.driver import Event
from gpubp.errors import BackendError

WAYS = ("late", "early")


class Mark:
    """A point in the kernels' stream."""

    def __init__(self, streams: Streams, position: int) -> None:
        self._streams = streams
        self.position = position

    def wait(self) -> None:
        self._streams.finish(self.position)


class Copy:
    """A copy from pinned memory; done when it has been waited for, or at once."""

    def __init__(self, target: int, array: NDArray[Any]) -> None:
        self._target, self._array = target, array
        self.done = False

    def wait(self) -> None:
        if not self.done:
            self.done = True
            ctypes.memmove(self._target, self._array.ctypes.data, self._array.nbytes)


class Streams:
    """The two streams.

    Args:
        way: "late" or "early".
    """

    def __init__(self, way: str) -> None:
        if way not in WAYS:
            raise ValueError(f"{way!r} is none of {WAYS}")
        self.way = way
        self._queued: list[Callable[[], None]] = []
        self._finished = 0
        self._pinned: list[NDArray[np.uint8]] = []

    def do(self, work: Callable[[], None]) -> None:
        """Work in the order of the kernels' stream."""
        if self.way == "late":
            work()
        else:
            self._queued.append(work)

    def finish(self, position: int | None = None) -> None:
        """Do what was queued, up to a mark or all of it."""
        last = self._finished + len(self._queued) if position is None else position
        while self._finished < last:
            work = self._queued.pop(0)
            self._finished += 1
            work()

    def mark(self) -> Mark:
        return Mark(self, self._finished + len(self._queued))

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        memory = np.full(nbytes, 0xFF, np.uint8)
        self._pinned.append(memory)
        return memory

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Copy:
        """See `Driver.start_upload`."""
        if array.nbytes and not any(np.shares_memory(array, known) for known in self._pinned):
            raise BackendError("a copy beside the kernels, from memory that is not pinned")
        copy = Copy(target, array)
        if self.way == "late":
            ctypes.memset(target, 0xFF, array.nbytes)
        else:
            after.wait()
            copy.wait()
        return copy
