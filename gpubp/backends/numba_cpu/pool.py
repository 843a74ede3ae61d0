"""Worker threads for the run loop, and how many of them to use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.object_code import addresses
from gpubp.core.store import address_of, aligned_zeros
from gpubp.errors import DataError

# Less work than this in one run is done by one worker: waking a thread costs more.
MIN_FLOPS_PER_RUN = 4e6
MIN_FLOPS_PER_STEP = 2e5
# From here on all workers are worth it; in between it is measured, see `pace`.
MAX_MEASURED_FLOPS = 2e8

_NATIVE = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 6)


@cache
def _function(name: str) -> Any:
    """Found once, for good: others may be compiling meanwhile, which takes its time."""
    return _NATIVE(addresses({name})[name])


def native(name: str) -> Callable[..., int]:
    """A kernel of integers as a function of integers."""
    return lambda *arguments: prepared(name, *map(ctypes.c_int64, arguments))()


def prepared(name: str, *arguments: ctypes.c_int64) -> Callable[[], int]:
    """A call of such a kernel, to be made again and again by one thread at a time; the values of
    its arguments may change in between.
    """
    function = _function(name)
    numbers = (ctypes.c_int64 * 2)()
    result = ctypes.cast(numbers, ctypes.c_void_p)  # keeps them alive
    error = ctypes.c_void_p(ctypes.addressof(numbers) + 8)
    given = [*arguments, *[ctypes.c_int64(0)] * (6 - len(arguments))]

    def call() -> int:
        function(result, error, *given)  # kernels never raise
        return int(numbers[0])

    return call


class Pool:
    """Threads that enter the run loop together; made on first use, and anew after a fork."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._user: dict[str, int] = {}  # the thread that is using the team
        self._team: _Team | None = None

    def run(self, context: int, workers: int) -> bool:
        """Let so many workers enter `kernels.loop` with this context; returns when all are done.

        Returns:
            False, having done nothing, if another run is using the threads (workers meet at
            barriers, so all of them must be running), or if there can be none.
        """
        if os.getpid() != self._owner:
            self._team, self._user, self._owner = None, {}, os.getpid()
        if sys.is_finalizing() or not self._taken():
            return False
        try:
            team = self._team
            if team is None or team.workers < workers:
                team = self._team = _Team(workers)
            team.run(context, workers)
        except _NoThreadsError:
            return False
        finally:
            self._user.pop("thread", None)
        return True

    def _taken(self) -> bool:
        """This thread may use the team now: because nobody else does, or because it did, in a
        call that was interrupted. A run inside of its own run, from a custom op, may not.
        """
        me = threading.get_ident()
        return self._user.setdefault("thread", me) == me and not (self._team and self._team.busy)


class _NoThreadsError(Exception):
    """The system does not give us as many threads."""


class _Team:
    """The calling thread and its helpers, which end when nobody holds the team any more."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = aligned_zeros(words.TEAM_LINES + 8 * workers, np.int64)
        self._memory[words.TEAM_LOOP] = addresses({"loop"})["loop"]
        self._lines = self._memory[words.TEAM_LINES :].reshape(workers, 8)
        self._lines[:, 0] = 1  # asleep
        self._context, self._workers = ctypes.c_int64(), ctypes.c_int64()
        at = ctypes.c_int64(address_of(self._memory))
        self._lead = prepared("lead", at, self._context, self._workers)
        self._wakers = [threading.Lock() for _ in range(workers)]
        for waker in self._wakers:
            waker.acquire()
        ended = threading.Event()
        end = weakref.finalize(self, _end, self._wakers, ended)
        end.atexit = False  # steps may still be run then; the threads are daemons
        for worker in range(1, workers):
            arguments = (self._memory, worker, self._wakers[worker], ended)
            thread = threading.Thread(target=_help, args=arguments, daemon=True)
            thread.name = f"gpubp_{worker}"
            try:
                thread.start()
            except RuntimeError as err:
                raise _NoThreadsError from err

    @property
    def busy(self) -> bool:
        """The leader is in a run."""
        return bool(self._memory[words.TEAM_BUSY])

    def run(self, context: int, workers: int) -> None:
        self._context.value, self._workers.value = context, workers
        try:
            while self._lead():
                for line, waker in zip(self._lines, self._wakers):
                    if line[1]:
                        _wake(waker)
                        line[1] = 0
        finally:
            self._memory[words.TEAM_WANTED] = 0


def _help(
    memory: NDArray[np.int64], worker: int, waker: threading.Lock, ended: threading.Event
) -> None:
    """What a helper's thread does."""
    run = ctypes.c_int64()
    at, me = ctypes.c_int64(address_of(memory)), ctypes.c_int64(worker)
    serve = prepared("serve", at, me, run)
    while True:
        waker.acquire()
        if ended.is_set():
            return
        run.value = serve()


def _end(wakers: Sequence[threading.Lock], ended: threading.Event) -> None:
    ended.set()
    for waker in wakers:
        _wake(waker)


def _wake(waker: threading.Lock) -> None:
    """Let the thread that waits for this lock go on, or the next time not wait."""
    with contextlib.suppress(RuntimeError):  # it was told so before, by a call that was interrupted
        waker.release()


def max_workers() -> int:
    """GPUBP_NUM_THREADS, else the processors this process may use."""
    asked = os.environ.get("GPUBP_NUM_THREADS")
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise DataError(f"GPUBP_NUM_THREADS is {asked!r}; expected a positive integer.")
        return int(asked)
    return min(_affinity(), _quota())


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _quota() -> int:
    """Processors granted by the control group, rounded up."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, -(-int(limit) // int(period)))
    except (OSError, ValueError):
        return 1 << 16
