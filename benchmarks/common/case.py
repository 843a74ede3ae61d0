"""What a contender implements, and how one is timed."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_SECONDS = 0.1
LONG_SECONDS = 0.15


class NotSupportedError(Exception):
    """This contender cannot do this task; the message says why."""


class Case(ABC):
    """One contender, ready for one task.

    Attributes:
        units: how many steps (or calls, or operations) one `run` does.
    """

    units: float = 1.0

    def reset(self) -> None:
        """Go back to the initial state; not timed."""
        return None

    @abstractmethod
    def run(self) -> Any:
        """The timed work. Returns the losses (any array-like), or None."""

    def check(self) -> NDArray[Any]:
        """What must be equal for all contenders; empty if there is nothing to compare."""
        return np.zeros(0)

    def device_seconds(self) -> float | None:
        """Run once; seconds between two events on the GPU's stream, None where nobody can tell."""
        return None


def turn(case: Case) -> float:
    """Time a case once: an untimed call unless calls are long, then at least MIN_SECONDS of calls.

    Returns:
        Seconds for each unit.

    Raises:
        FloatingPointError: the losses of the last call are not finite.
    """
    gc.collect()
    gc.disable()
    try:
        total, result = _timed(case)
        calls = 1
        if total < LONG_SECONDS:
            total, calls = 0.0, 0
            while total < MIN_SECONDS:
                seconds, result = _timed(case)
                total += seconds
                calls += 1
    finally:
        gc.enable()
    if result is not None and not np.isfinite(np.asarray(result)).all():
        raise FloatingPointError("a loss is not finite")
    return total / (calls * case.units)


def device_turn(case: Case) -> float | None:
    """Seconds for each unit by the GPU's clock; None if the case cannot tell."""
    case.reset()
    seconds = case.device_seconds()
    return None if seconds is None else seconds / case.units


def _timed(case: Case) -> tuple[float, Any]:
    case.reset()
    start = time.perf_counter()
    result = case.run()
    return time.perf_counter() - start, result
