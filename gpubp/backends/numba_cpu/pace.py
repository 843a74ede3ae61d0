"""One worker or all of them? Measured while a program runs.

Workers wait for each other and read what others have written; whether that costs more than it gives
depends on the model and on the machine at that moment. Results do not depend on it, so both are
tried, for a moment each, and again from time to time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

TRIAL_SECONDS = 1e-3
SLICE_SECONDS = 0.03
STALE_SECONDS = 0.3
GUESSED_RATE = 3e10  # arithmetic per second, before anything is known


@dataclass
class Pace:
    """Seconds that a step of one program takes.

    Attributes:
        flops: arithmetic of a step.
        seconds: by number of workers.
        measured: when that was.
    """

    flops: float
    seconds: dict[int, float] = field(default_factory=dict)
    measured: dict[int, float] = field(default_factory=dict)

    def plan(self, workers: int) -> tuple[int, int]:
        """(workers, steps) of the next slice of a run, of at most `workers` workers."""
        now = time.perf_counter()
        for count in (1, workers):
            if now - self.measured.get(count, -1e9) > STALE_SECONDS:
                known = self.seconds.get(count, self.flops / GUESSED_RATE)
                return count, max(1, int(TRIAL_SECONDS / known))
        best = min((1, workers), key=lambda count: self.seconds[count])
        return best, max(1, int(SLICE_SECONDS / self.seconds[best]))

    def note(self, workers: int, steps: int, seconds: float) -> None:
        """A slice took so long."""
        self.seconds[workers] = max(seconds / steps, 1e-9)
        self.measured[workers] = time.perf_counter()
