"""Ctrl-C in long runs: heard between two steps, never within one.

A signal's handler runs wherever Python happens to be. An exception that it raises in the middle of
a run's books would leave them half done: weights of one step, counters of another. So while a run
is on, SIGINT is noted, and whoever handled it before hears of it where a step has ended.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

# What `signal` itself calls: the same functions without the enums, which take most of their time.
_main_thread = threading.main_thread
_signals: Any = sys.modules.get("_signal", signal)


class Pauses:
    """A context in which Ctrl-C waits for `look`.

    It does so in the main thread, where Python's handlers run, and if there is a handler: Python's
    own, which raises KeyboardInterrupt, or another one.

    Args:
        together: other ranks run the steps too. Who presses Ctrl-C twice leaves them at once, in
            the middle of a step: they may not come, and then no step ends.
    """

    # Of the class until they are set: most runs are short, and nothing is heard in them.
    _before: Any = None
    _heard: tuple[int, FrameType | None] | None = None
    _at_once = False

    def __init__(self, together: bool = False) -> None:
        self._together = together

    def __enter__(self) -> Pauses:
        if threading.get_ident() == _main_thread().ident:
            before = _signals.getsignal(signal.SIGINT)
            if callable(before):
                self._before = before
                _signals.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._together and self._heard is not None:
            self.look()
            self._before(number, frame)
        elif self._at_once and not self._together:
            self._before(number, frame)
        else:
            self._heard = number, frame

    def look(self) -> None:
        """If Ctrl-C was pressed, do what it does: raise KeyboardInterrupt, as a rule."""
        if self._heard is not None:
            heard, self._heard = self._heard, None
            self._before(*heard)

    @property
    def heard(self) -> bool:
        """Ctrl-C was pressed, and waits for `look`."""
        return self._heard is not None

    def end_together(self) -> None:
        """All ranks end the run here, because Ctrl-C was pressed for one: do what it does.

        A handler that raises nothing ends the run too, as on the other ranks. Where it was not
        pressed for this rank, the handler is given no frame.
        """
        if self._before is not None:
            heard, self._heard = self._heard or (signal.SIGINT, None), None
            self._before(*heard)
        raise KeyboardInterrupt

    @contextmanager
    def open(self) -> Iterator[None]:
        """A context in which nothing waits: for functions of the user's.

        Where ranks work together, one that left here would leave the others waiting, so they hear
        of it after the next step.
        """
        self._at_once = True
        try:
            if not self._together:
                self.look()
            yield
        finally:
            self._at_once = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is None:
            return
        if _signals.getsignal(signal.SIGINT) == self._note:
            _signals.signal(signal.SIGINT, self._before)
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self.look()
