"""Where processes of one machine meet: a barrier in memory that all of them have mapped.

Holds: who waits hears within milliseconds that another has left, closed or died, and waits for
nobody longer than the timeout. A meeting that ends so cannot be used again.
"""

from __future__ import annotations

import ctypes
import os
import select
import time
import weakref
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpubp.core.store import address_of
from gpubp.errors import LostPeerError

OPEN, LEFT, CLOSED = range(3)  # states of a rank
LOOKS = 2100  # of which the last ones offer the processor to others
AWAKE_SECONDS = 2e-3  # that a rank looks without sleeping
SLEEPS = 40, 1e-3  # then it sleeps for this part of the time it has waited, seconds at most
DEATHS_SECONDS = 0.01  # between two looks whether all live
LINE = 8  # words


def words(ranks: int) -> int:
    """How much memory a meeting takes, in int64."""
    return (2 + ranks) * LINE


class Meeting:
    """One rank's view of the barrier.

    Args:
        memory: (words(ranks),): int64, mapped by all; zeros at first.
        rank: of this process.
        processes: their ids, by rank.
        timeout: seconds.

    Raises:
        OSError: one of the processes cannot be watched.
    """

    def __init__(
        self, memory: NDArray[np.int64], rank: int, processes: Sequence[int], timeout: float
    ) -> None:
        from gpubp.backends.numba_cpu.pool import prepared

        self._memory, self._rank, self._timeout = memory, rank, timeout
        self._states = memory[2 * LINE :: LINE]
        at, ranks, looks = (ctypes.c_int64(n) for n in (address_of(memory), len(processes), LOOKS))
        self._looks = ctypes.c_int64(LOOKS)
        self._generation, self._state = ctypes.c_int64(), ctypes.c_int64()
        mine = ctypes.c_int64(address_of(memory) + 8 * (2 + rank) * LINE)
        self._arrive = prepared("ranks_arrive", at, ranks, looks)
        self._wait = prepared("ranks_wait", at, self._generation, self._looks)
        self._tell = prepared("ranks_tell", mine, self._state)
        self._living = select.poll()
        self._rank_of: dict[int, int] = {}  # by descriptors
        self._end = weakref.finalize(self, _close_all, self._rank_of, os.getpid())
        for other, process in enumerate(processes):
            if other != rank:
                self._watch(other, process)

    def _watch(self, rank: int, process: int) -> None:
        descriptor = os.pidfd_open(process)
        self._rank_of[descriptor] = rank
        self._living.register(descriptor, select.POLLIN)

    def tell(self, state: int) -> None:
        """Let the others see this rank's state."""
        self._state.value = state
        self._tell()

    def all_here(self, ask: Callable[[], None]) -> None:
        """Wait until all ranks have come.

        Args:
            ask: raises LostPeerError where a rank has told that it left; called if one has.

        Raises:
            LostPeerError: a rank has left, closed, died, or not come within the timeout.
        """
        generation = self._arrive()
        if generation >= 0:
            self._generation.value = generation
            self._wait_on(ask)

    def _wait_on(self, ask: Callable[[], None]) -> None:
        began, (part, most) = time.monotonic(), SLEEPS
        self._looks.value = LOOKS
        look_at = began + DEATHS_SECONDS
        while not self._wait():
            now = time.monotonic()
            if self._states.any():
                self._require_states(ask)
            if now > look_at:
                look_at = now + DEATHS_SECONDS
                self._require_living()
            if now > began + self._timeout:
                raise LostPeerError(
                    f"rank {self._rank}: another rank did not come within {self._timeout:g} s."
                )
            if now > began + AWAKE_SECONDS:
                self._looks.value = 1
                time.sleep(min((now - began) / part, most))

    # A rank may have come, and closed or ended then: it is looked once more whether all are here.

    def _require_states(self, ask: Callable[[], None]) -> None:
        closed = np.flatnonzero(self._states == CLOSED)
        if self._wait():
            return
        if len(closed):
            raise LostPeerError(f"rank {self._rank}: rank {closed[0]} has closed its communicator.")
        ask()

    def _require_living(self) -> None:
        ended = self._living.poll(0)
        if ended and not self._wait():
            rank = self._rank_of[ended[0][0]]
            raise LostPeerError(f"rank {self._rank}: the process of rank {rank} has ended.")

    def close(self) -> None:
        """Tell the others, and watch them no longer."""
        self.tell(CLOSED)
        self._end()


def _close_all(descriptors: dict[int, int], process: int) -> None:
    if os.getpid() == process:
        for descriptor in descriptors:
            os.close(descriptor)
    descriptors.clear()
