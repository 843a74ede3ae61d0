"""One GPU's context, as the place in which a thread calls a library; the one place that translates
the library's errors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from gpubp.errors import BackendError


class Contexts(Protocol):
    """What a scope asks of the library that talks to the device."""

    def current(self) -> int:
        """The context of the calling thread; 0 for none."""
        ...

    def make_current(self, context: int) -> None:
        """Let the calling thread work in a context; 0 for none."""
        ...

    def of(self, device: int) -> int:
        """The context of a GPU; may leave the calling thread in it."""
        ...

    def translated(self, error: BaseException, name: str) -> BackendError | None:
        """The library's errors as gpubp's; `name`: of the GPU. None for others."""
        ...


class _Thread(threading.local):
    """How deep a thread is inside, and the context that it came with."""

    depth, before = 0, 0


class Scope:
    """While it is entered, the calling thread works on this GPU; it may be entered again inside.

    A thread that works there anyway costs one question. On leaving, the thread has the context that
    it came with, also if that was none.

    Args:
        contexts: of the library.
        device: number of the GPU.
        name: of the GPU, for errors.

    Raises, on leaving:
        DeviceMemoryError: where the library found no memory.
        BackendError: where CUDA returned an error, perhaps of a kernel that was launched before.
    """

    def __init__(self, contexts: Contexts, device: int, name: str) -> None:
        self._contexts, self._name = contexts, name
        self._context = _context_of(contexts, device)
        self._thread = _Thread()

    def __enter__(self) -> Scope:
        mine = self._thread
        if mine.depth == 0:
            mine.before = self._contexts.current()
            if mine.before != self._context:
                self._contexts.make_current(self._context)
        mine.depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        mine = self._thread
        mine.depth -= 1
        if mine.depth == 0 and mine.before != self._context:
            self._contexts.make_current(mine.before)
        found = None if error is None else self._contexts.translated(error, self._name)
        if found is not None:
            raise found from error

    def around(self, work: Callable[[], Any]) -> Callable[[], None]:
        """What does some work inside."""

        def run() -> None:
            with self:
                work()

        return run


def failed(name: str, error: object) -> BackendError:
    """A call of CUDA has failed on the GPU of this name."""
    return BackendError(f"CUDA failed on {name}, in this call or in a kernel before it: {error}.")


def _context_of(contexts: Contexts, device: int) -> int:
    """The context that a library has for a GPU; found in a thread of its own, so that the caller's
    stays on the GPU that it is on.
    """
    found: list[int] = []
    failures: list[Exception] = []

    def find() -> None:
        try:
            found.append(contexts.of(device))
        except Exception as err:
            failures.append(err)

    thread = threading.Thread(target=find, name="gpubp-context")
    thread.start()
    thread.join()
    if failures:
        raise BackendError(f"cuda:{device} cannot be used: {failures[0]}.") from failures[0]
    return found[0]
