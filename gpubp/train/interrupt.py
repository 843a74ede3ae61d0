"""Ctrl-C while training: the first asks to stop after whole steps, the second stops at once.

The first one ends what can be left at its steps' ends, or done again: a run of steps, a
measurement. Elsewhere (in callbacks, while a checkpoint is written) it is noted and nothing else.
Where ranks train together, it is noted everywhere: a run of steps tells the other ranks, and all
end after the same step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """A context in which Ctrl-C (SIGINT) sets a flag; outside the main thread it does nothing.

    A program that trains in several threads must not be left by an exception in one of them: what
    it wrote would be half a step.

    Args:
        together: other ranks wait for this one, so that it must not leave alone.

    Attributes:
        asked: Ctrl-C was pressed.
    """

    def __init__(self, together: bool = False) -> None:
        self._together = together
        self.asked = False
        self._leave = self._here = self._twice = False
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Interrupt:
        # Only where Python's own handler stands: others (notebooks, servers) know better.
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
            self._installed = True
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # Without a frame it was pressed for another rank: perhaps the very one that is heard here,
        # before or after. Pressed twice is what was heard here twice.
        here = frame is not None
        self._twice = here and self._here
        self._here, self.asked = self._here or here, True
        if self._twice or self._leave:
            raise KeyboardInterrupt

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """A context that the first Ctrl-C ends: what it does may be left half done.

        With ranks, Ctrl-C ends what all of them agree to end.
        """
        self._leave = not self._together
        try:
            yield
        except KeyboardInterrupt:
            if self._twice or not (self.asked or self._together):
                raise
            self.asked = True
        finally:
            self._leave = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)
            self._installed = False
