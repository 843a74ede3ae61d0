"""Ranks that are threads of one process: for tests, and to try a program out.

They share memory, so carrying is copying; sums are made in the order of ranks, by rank 0. It is no
way to be faster: models must be separate objects, one for each thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.distributed.communicator import TIMEOUT, check_carried, check_root, check_summable
from gpubp.distributed.leaving import ALONE, all_left, note, who_left
from gpubp.distributed.requests import StartsAtWait
from gpubp.errors import DataError, LostPeerError


class _Group:
    """What the threads share."""

    def __init__(self, size: int, timeout: float) -> None:
        self.size, self.timeout = size, timeout
        self.barrier = threading.Barrier(size)
        self.given: list[Any] = [None] * size
        self.total: NDArray[Any] = np.zeros(0)
        self.notes: dict[tuple[int, int], str] = {}


class ThreadCommunicator(StartsAtWait):
    """A rank that is a thread; made by `thread_group`."""

    name = "threads"

    def __init__(self, group: _Group, rank: int) -> None:
        self._group, self.rank, self.size = group, rank, group.size
        self._begun = self._partings = 0  # meetings, and how often all ranks met errors together

    def _meet(self) -> None:
        self._begun += 1
        try:
            self._group.barrier.wait(self._group.timeout)
        except threading.BrokenBarrierError as error:
            left = who_left(self.size, self._told)
            if left:
                raise LostPeerError(f"rank {self.rank}: {left}.") from error
            raise LostPeerError(
                f"rank {self.rank}: another rank is gone, or did not come within "
                f"{self._group.timeout:g} s."
            ) from error

    def all_reduce(self, array: NDArray[Any]) -> None:
        """See `Communicator`."""
        check_summable(array)
        group = self._group
        group.given[self.rank] = array
        self._meet()
        if self.rank == 0:
            group.total = group.given[0].copy()
            for other in group.given[1:]:
                group.total += _alike(other, array)
        self._meet()
        array[...] = _alike(group.total, array)
        self._meet()

    def reduce_scatter(self, rows: NDArray[Any]) -> None:
        """See `StartsAtWait`."""
        group = self._group
        group.given[self.rank] = rows
        self._meet()
        total = group.given[0][self.rank].copy()
        for other in group.given[1:]:
            total += _alike(other, rows)[self.rank]
        self._meet()
        rows[self.rank] = total

    def broadcast(self, array: NDArray[Any], root: int = 0) -> None:
        """See `Communicator`."""
        check_carried(array)
        check_root(root, self.size)
        self._group.given[self.rank] = array
        self._meet()
        if self.rank != root:
            array[...] = _alike(self._group.given[root], array)
        self._meet()

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Communicator`."""
        check_carried(array)
        self._group.given[self.rank] = array
        self._meet()
        found = np.stack([_alike(a, array) for a in self._group.given])
        self._meet()
        return found

    def barrier(self) -> None:
        """See `Communicator`."""
        self._meet()

    def leave(self, why: str, alone: bool = False) -> None:
        """See `Telling`."""
        group, place = self._group, ALONE if alone else self._begun
        if group.barrier.broken:
            return
        group.notes[self._partings, self.rank] = note(place, why)
        if not alone and all_left(
            self.size, place, self._told, lambda: group.barrier.n_waiting > 0
        ):
            self._partings += 1
        else:
            group.barrier.abort()

    def _told(self, rank: int) -> str | None:
        return self._group.notes.get((self._partings, rank))

    def close(self) -> None:
        """The others are told: they wait for this rank no longer."""
        self._group.barrier.abort()


def _alike(other: NDArray[Any], mine: NDArray[Any]) -> NDArray[Any]:
    if other.shape != mine.shape or other.dtype != mine.dtype:
        raise DataError(
            f"ranks gave arrays of {other.shape} {other.dtype} and {mine.shape} {mine.dtype} to "
            "one operation."
        )
    return other


@checked
def thread_group(size: int, timeout: float = TIMEOUT) -> list[ThreadCommunicator]:
    """Communicators for so many threads.

    Args:
        size: how many, at least 1.
        timeout: seconds that one waits for another.
    """
    if size < 1 or not timeout > 0:
        raise DataError(f"size={size}, timeout={timeout}: expected at least 1, and above 0.")
    group = _Group(size, timeout)
    return [ThreadCommunicator(group, rank) for rank in range(size)]


def run_threads(
    size: int, work: Callable[[ThreadCommunicator], Any], timeout: float = TIMEOUT
) -> Sequence[Any]:
    """Call `work` in so many threads, each with its communicator; what they return, by rank.

    The first error of a rank is raised, when all have ended.
    """
    results: list[Any] = [None] * size
    errors: list[tuple[bool, int, BaseException]] = []

    def one(communicator: ThreadCommunicator) -> None:
        try:
            results[communicator.rank] = work(communicator)
        except BaseException as error:
            errors.append((isinstance(error, LostPeerError), communicator.rank, error))
            communicator.close()

    threads = [threading.Thread(target=one, args=(c,)) for c in thread_group(size, timeout)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise min(errors, key=lambda found: found[:2])[2]
    return results
