"""Fits of a search that wait for each other, so that those of one kind are trained together.

scikit-learn's own code decides what is fitted and scored. Each fit runs on a thread of joblib's,
from cloning and preprocessing to its scores; where a network's training would begin, its thread
waits. Once all fits that are under way wait there, the search's own thread trains them: as one
population for each architecture, rule and batch size (see `gpubp.sklearn.crew`). Those alone of
their kind, and those that somebody looks at between epochs, are trained by their own threads.

Holds in between: no more than `threads` of the fits' threads compute at any time. A fit that waits
is served, told to go on alone, or ended; no thread waits for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from joblib.parallel import ThreadingBackend

from gpubp.backends.apart import at_most
from gpubp.sklearn.crew import Ran, train_together
from gpubp.sklearn.epochs import Epochs

LOOK_SECONDS = 0.5  # between two looks at Ctrl-C where waiting for a lock does not hear it
Key = tuple[Any, ...]


class _EndedError(BaseException):
    """The search is over before its end; scikit-learn books no failed fit for it."""


class _Here(threading.local):
    search: Search | None = None


_here = _Here()


def search_of_this_thread() -> Search | None:
    """The search that this thread fits a candidate of, if it does."""
    return _here.search


class _Fit:
    """A fit that waits.

    Attributes:
        epochs, key: what is to be trained, and of which kind it is.
        settled: set when it need not wait any more.
        ran: how it was trained; None: its thread has to do it.
        error: what its training raised.
    """

    def __init__(self, epochs: Epochs, key: Key) -> None:
        self.epochs, self.key = epochs, key
        self.settled = threading.Event()
        self.ran: Ran | None = None
        self.error: BaseException | None = None


class Search:
    """One call of joblib: fits under way, and those of them that wait.

    Args:
        at_once: how many fits are under way at a time, at most.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._change = threading.Condition()
        self.begin(1)

    def begin(self, threads: int) -> None:
        """A call of joblib begins; so many threads may compute."""
        self._threads = threads
        self._turns = threading.Semaphore(threads)
        self._under_way = 0
        self._waiting: list[_Fit] = []
        self._serves, self._failed, self._ended = True, False, False

    def count(self, task: Callable[[], Any]) -> Callable[[], Any]:
        """What joblib's thread calls in the place of a task that is handed in now."""
        with self._change:
            self._under_way += 1
        return lambda: self._work(task)

    def _work(self, task: Callable[[], Any]) -> Any:
        self._turns.acquire()
        _here.search = self
        failed = True
        try:
            found = task()
            failed = False
            return found
        finally:
            _here.search = None
            self._turns.release()
            with self._change:
                self._under_way -= 1
                self._failed = self._failed or failed
                self._change.notify_all()

    def train(self, epochs: Epochs, key: Key) -> Ran | None:
        """Wait until a fit was trained with others of its kind.

        Args:
            epochs: of the fit.
            key: what its program depends on.

        Returns:
            How; None: it is to be trained by the calling thread.

        Raises:
            Exception: what its training raised.
        """
        if not (epochs.undisturbed and epochs.rows.usable and key[0].is_ours):
            return None
        fit = _Fit(epochs, (*key, epochs.batch_size))
        with self._change:
            if not self._serves:
                return None
            self._waiting.append(fit)
            self._change.notify_all()
        self._turns.release()
        fit.settled.wait()
        self._turns.acquire()
        if self._ended:
            raise _EndedError
        if fit.error is not None:
            raise fit.error
        return fit.ran

    def serve(self) -> None:
        """In the search's own thread: train who waits, until nothing is under way."""
        try:
            while chosen := self._all_that_wait():
                self._train(chosen)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Let nobody wait any more: the search is over, or has failed."""
        with self._change:
            self._ended, self._serves = True, False
            waiting, self._waiting = self._waiting, []
        for fit in waiting:
            fit.settled.set()

    def _all_that_wait(self) -> list[_Fit]:
        """The fits under way, once all of them wait; none when it is over."""
        with self._change:
            while not (self._all_wait() or self._under_way == 0 or self._failed or self._ended):
                self._change.wait(LOOK_SECONDS)
            if not self._all_wait() or self._failed or self._ended:
                self._serves = False
                return []
            chosen, self._waiting = self._waiting, []
            return chosen

    def _all_wait(self) -> bool:
        return 0 < min(self._under_way, self._at_once) == len(self._waiting)

    def _train(self, chosen: list[_Fit]) -> None:
        kinds: dict[Key, list[_Fit]] = {}
        for fit in chosen:
            kinds.setdefault(fit.key, []).append(fit)
        try:
            for key, fits in kinds.items():
                if len(fits) > 1:
                    self._train_kind(key[:-1], fits)
        except BaseException:
            self._ended = True  # before anybody goes on
            raise
        finally:
            for fit in chosen:
                fit.settled.set()

    def _train_kind(self, key: Key, fits: list[_Fit]) -> None:
        try:
            with at_most(self._threads):
                ran, errors = train_together([fit.epochs for fit in fits], key, self._look)
        except Exception as error:
            for fit in fits:
                fit.error = error
            return
        for fit, own in zip(fits, errors, strict=True):
            fit.ran, fit.error = ran, own

    def _look(self) -> None:
        if self._ended:
            raise _EndedError


class FitsOnThreads(ThreadingBackend):  # type: ignore[misc]
    """joblib's threads, more of them than compute: see `Search`.

    Args:
        at_once: how many fits are under way at a time, at most.
    """

    def __init__(self, at_once: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self._most = at_once
        self._threads = 1
        self._search: Search | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As many as fits are under way at a time; `n_jobs` of them compute."""
        self._threads = int(super().effective_n_jobs(n_jobs))
        return max(self._most, self._threads)

    def start_call(self) -> None:
        """joblib is about to hand in tasks."""
        self._search = Search(self._n_jobs)
        self._search.begin(self._threads)

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Take a task (joblib since 1.5)."""
        assert self._search is not None
        return super().submit(self._search.count(func), callback)

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        """Take a task (joblib before 1.5)."""
        assert self._search is not None
        return super().apply_async(self._search.count(func), callback)

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """The first tasks were handed in; the thread that did so serves them."""
        if self._search is not None:
            self._search.serve()
        yield

    def terminate(self) -> None:
        """No task is needed any more."""
        if self._search is not None:
            self._search.end()
        super().terminate()
