"""Worker threads for the run loop, and how many of them to use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from gpubp.errors import DataError

# Less work than this in one run is done by one worker: waking a thread costs more.
MIN_FLOPS_PER_RUN = 4e6
MIN_FLOPS_PER_STEP = 2e5
# From here on all workers are worth it; in between it is measured, see `pace`.
MAX_MEASURED_FLOPS = 2e8


class Pool:
    """Threads that enter the run loop together; made on first use, and anew after a fork."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._size = 0
        self._owner = os.getpid()
        self._busy = threading.Lock()

    def run(self, work: Callable[[int], None], workers: int) -> bool:
        """Call `work(w)` for w in range(workers), at the same time.

        Returns:
            False, having done nothing, if another run is using the threads: workers meet at
            barriers, so all of them must be running.
        """
        if os.getpid() != self._owner:
            self._threads, self._busy, self._owner = None, threading.Lock(), os.getpid()
        if not self._busy.acquire(blocking=False):
            return False
        try:
            if self._threads is None or self._size < workers - 1:
                self._threads = ThreadPoolExecutor(workers - 1, thread_name_prefix="gpubp")
                self._size = workers - 1
            others = [self._threads.submit(work, w) for w in range(1, workers)]
            work(0)
            for future in others:
                future.result()
        finally:
            self._busy.release()
        return True


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
