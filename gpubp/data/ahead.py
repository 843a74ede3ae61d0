"""The next items of an iterable, made ready in a thread while the present one is used."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

from gpubp.arguments import checked
from gpubp.errors import DataError

T = TypeVar("T")
_POLL_SECONDS = 0.1


class _End:
    """Marks the end of the items, and carries what ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@checked
def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Iterate over `items`, which a thread keeps taking up to `depth` ahead.

    The order stays. An error of `items` is raised here, at its place. If the consumer stops early,
    so does the thread.

    Args:
        items: taken in another thread; NumPy and file reading release Python's lock there.
        depth: how many items wait, at least 1.

    Raises:
        DataError: it goes on in a forked child, where that thread is not.
    """
    waiting: queue.Queue[Any] = queue.Queue(max(1, depth))
    stopped = threading.Event()

    def offer(item: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=_POLL_SECONDS)
                return

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                offer(item)
                if stopped.is_set():
                    break
        except BaseException as caught:
            error = caught
        offer(_End(error))

    thread = threading.Thread(target=work, name="gpubp-prefetch", daemon=True)
    thread.start()
    process = os.getpid()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
            if os.getpid() != process:
                raise DataError(
                    "these items are made ready by a thread of the process that this one was "
                    "forked from, and it has none here: iterate anew in the child."
                )
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()
