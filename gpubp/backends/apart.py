"""Many trainings at once: each thread runs its own alone, and none waits for another.

Where several threads train, workers of one run would wait for processors that the others use. So
for the length of a search the threads that it starts run programs as the only worker, as members of
a population are run; results do not depend on it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gpubp.core.forks import anew_in_child


class _Searches:
    """The threads that have opened `each_thread_apart`."""

    def __init__(self) -> None:
        self.start_anew()
        anew_in_child(self)

    def start_anew(self) -> None:
        """In a forked child no search goes on."""
        self.owners: list[int] = []
        self.lock = threading.Lock()


class _Here(threading.local):
    """Of this thread."""

    most: int | None = None


_searches = _Searches()
_here = _Here()


@contextmanager
def each_thread_apart() -> Iterator[None]:
    """While open, programs that other threads run are run by one worker each."""
    me = threading.get_ident()
    with _searches.lock:
        _searches.owners.append(me)
    try:
        yield
    finally:
        with _searches.lock:
            if me in _searches.owners:
                _searches.owners.remove(me)


def runs_apart() -> bool:
    """What this thread runs is run by it alone."""
    owners = _searches.owners
    return bool(owners) and threading.get_ident() not in owners


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """While open, populations that this thread trains take so many threads at most."""
    before, _here.most = _here.most, threads
    try:
        yield
    finally:
        _here.most = before


def most_threads(count: int) -> int:
    """So many, or as many as `at_most` allows."""
    return count if _here.most is None else min(count, _here.most)
