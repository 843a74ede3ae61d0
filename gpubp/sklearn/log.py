"""What ran where: a count of fits by estimator, place and reason, kept for this process.

Worker processes (joblib) keep a count of their own.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

STOCK = "scikit-learn"


@dataclass(frozen=True)
class Kind:
    """What is counted together.

    Attributes:
        estimator: the class's name.
        method: "fit" or "partial_fit".
        where: "gpubp (numba)", or "scikit-learn" where the stock code ran.
        reason: why the stock code ran; else "".
    """

    estimator: str
    method: str
    where: str
    reason: str = ""


@dataclass
class Count:
    """How often, and for how long in all."""

    times: int = 0
    seconds: float = 0.0


_counts: dict[Kind, Count] = {}
_lock = threading.Lock()


def _unlock() -> None:
    """In a forked child another thread of the parent may have the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def note(kind: Kind, seconds: float) -> None:
    """One more fit of this kind."""
    with _lock:
        count = _counts.setdefault(kind, Count())
        count.times += 1
        count.seconds += seconds


def counts() -> dict[Kind, Count]:
    """A copy of all counts of this process."""
    with _lock:
        return {kind: Count(c.times, c.seconds) for kind, c in _counts.items()}


def reset_report() -> None:
    """Forget all counts."""
    with _lock:
        _counts.clear()


def report() -> str:
    """A line for each kind of fit in this process: what, how often, how long, where, and why."""
    lines = [
        f"{k.estimator}.{k.method}: {c.times} x on {k.where}, {c.seconds:.3f} s"
        + (f"; {k.reason}" if k.reason else "")
        for k, c in counts().items()
    ]
    return "\n".join(lines) if lines else "gpubp.sklearn: nothing has been fitted in this process."
