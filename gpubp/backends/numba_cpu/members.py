"""Many members of a population at once: each thread takes whole members, one after the other.

Members share nothing that is written, so there is no barrier between them: a thread runs all steps
of a member as the only worker, and the member's weights stay in the cache of its core. What a
program writes beside its banks (temporaries, rounds of loops) each thread has for itself, in a
loaded program of its own; which thread takes a member is chance, and has no influence on any
number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import LOOK_SECONDS, Feed, MemberRun, heard
from gpubp.backends.numba_cpu.job import Loaded

Run = Callable[[Sequence[Loaded], NDArray[np.int64], Feed, int], None]


class _EndedError(Exception):
    """Another thread has met an error, or Ctrl-C: this one ends between two steps."""


def run_flops(loaded: Sequence[Loaded], member: MemberRun) -> float:
    """Arithmetic of a member's run, at most."""
    return max(target.pace.flops for target in loaded[member.programs]) * len(member.schedule)


def run_on_threads(
    run: Run,
    loaded: Sequence[Loaded],
    members: Sequence[MemberRun],
    look: Callable[[], None],
    threads: int,
) -> None:
    """Run all members; the calling thread takes its part.

    Args:
        run: programs, a schedule, a feed, and how many workers: one.
        loaded: the programs; their own memory is not touched.
        members: their runs.
        look: called in the calling thread alone, see `Backend.run_members`.
        threads: how many, the calling one among them.
    """
    _Threads(run, loaded, members, look, threads).run()


class _Threads:
    def __init__(
        self,
        run: Run,
        loaded: Sequence[Loaded],
        members: Sequence[MemberRun],
        look: Callable[[], None],
        threads: int,
    ) -> None:
        self._run, self._look = run, look
        for target in loaded:
            while len(target.lanes) < threads:
                target.lanes.append(Loaded(target.program))
            target.sync_host()
        self._lanes = [[target.lanes[i] for target in loaded] for i in range(threads)]
        self._waiting: Iterator[MemberRun] = iter(members)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._errors: list[BaseException] = []

    def run(self) -> None:
        helpers = [
            threading.Thread(target=self._help, args=(lane,), daemon=True, name=f"gpubp_member_{i}")
            for i, lane in enumerate(self._lanes[1:], 1)
        ]
        begun = []
        try:
            for helper in helpers:
                try:
                    helper.start()
                except RuntimeError:  # the system gives us no more threads
                    break
                begun.append(helper)
            self._work(self._lanes[0], self._look)
            for helper in begun:
                while helper.is_alive():
                    self._look()
                    helper.join(LOOK_SECONDS / 2)
        except BaseException:
            self._ended.set()
            raise
        finally:
            for helper in begun:
                helper.join()
        for error in self._errors:
            raise error

    def _help(self, lane: Sequence[Loaded]) -> None:
        def look() -> None:
            if self._ended.is_set():
                raise _EndedError

        try:
            self._work(lane, look)
        except _EndedError:
            pass
        except BaseException as error:
            self._errors.append(error)
            self._ended.set()

    def _work(self, lane: Sequence[Loaded], look: Callable[[], None]) -> None:
        """Take members until there are none."""
        while (member := self._next()) is not None:
            mine = lane[member.programs]
            for target in mine:
                target.place(member.banks)
            self._run(mine, member.schedule, heard(member.feed, look), 1)

    def _next(self) -> Any:
        with self._lock:
            return None if self._ended.is_set() else next(self._waiting, None)
