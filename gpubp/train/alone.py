"""One fit of a trainer at a time."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from gpubp.errors import NestingError
from gpubp.train.run import Run

# Trainers in a fit, and the process of each: a forked child is in none.
_running: weakref.WeakKeyDictionary[Run, int] = weakref.WeakKeyDictionary()


@contextmanager
def alone(trainer: Run) -> Iterator[None]:
    """While open, the trainer is in a fit; NestingError if it is in one already."""
    if _running.get(trainer) == os.getpid():
        raise NestingError(
            "this trainer is in a fit already (this call is of a callback, or of another thread), "
            "whose place in the data and history it would move. Call fit after that, or make "
            "another Trainer."
        )
    _running[trainer] = os.getpid()
    try:
        yield
    finally:
        _running.pop(trainer, None)
