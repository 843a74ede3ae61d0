"""One worker or all of them? Measured while a program runs.

Workers wait for each other and read what others have written; whether that costs more than it gives
depends on the model and on the machine at that moment. Results do not depend on it, so both are
tried, for a moment each, and again from time to time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

TRIAL_SECONDS = 2.5e-3  # long enough for caches to get used to it
SLICE_SECONDS = 0.03
RETRY_SECONDS = 0.02, 0.3  # the slower one is tried again after the first, twice as late each time
WAKE_SECONDS = 5e-5  # of a slice of several workers: a thread wakes
OLD_SECONDS = 0.1  # since the last run: whatever slowed one of them may have ended
SHARES_SECONDS = 1e-3  # as often as that the workers' shares follow their speeds
GUESSED_RATE = 3e10  # arithmetic per second, before anything is known


@dataclass
class Pace:
    """Seconds that a step of one program takes.

    Attributes:
        flops: arithmetic of a step.
        python: it calls Python as well, which takes nobody knows how long.
        seconds: by number of workers.
        due: when that is to be measured again.
        pause: how long that was put off.
        noted: when the last slice ended.
    """

    flops: float
    python: bool = False
    seconds: dict[int, float] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)
    pause: dict[int, float] = field(default_factory=dict)
    noted: float = 0.0

    def plan(self, workers: int) -> tuple[int, int]:
        """(workers, steps) of the next slice of a run, of at most `workers` workers."""
        now = time.perf_counter()
        if now > self.noted + OLD_SECONDS:
            self.due.clear()
            self.pause.clear()
        for count in (1, workers):
            if now > self.due.get(count, 0.0):
                return count, self.steps_in(TRIAL_SECONDS, count)
        best = min((1, workers), key=lambda count: self.seconds[count])
        return best, max(1, int(SLICE_SECONDS / self.seconds[best]))

    def steps_in(self, seconds: float, workers: int) -> int:
        """How many steps so many workers make in this time; at first few, to find out."""
        known = self.seconds.get(workers)
        if known is None:
            seconds = min(seconds, TRIAL_SECONDS)
            known = seconds if self.python else max(self.flops / GUESSED_RATE, 1e-9)
        return max(1, int(seconds / known))

    def work_between_shares(self, workers: int, cost: int) -> int:
        """Of each worker, from one change of the shares to the next; 0: they stay.

        Args:
            workers: that share.
            cost: of a step, in the unit of the result.
        """
        if workers == 1:
            return 0
        step = self.seconds.get(workers, max(self.flops / GUESSED_RATE, 1e-9))
        return max(1, int(SHARES_SECONDS * cost / step / workers))

    def note(self, workers: int, steps: int, seconds: float) -> None:
        """A slice took so long. One bad moment, such as a core that was taken away, is not the end:
        what was slow is soon tried again.
        """
        seconds -= min(WAKE_SECONDS, seconds / 4) if workers > 1 else 0.0
        self.seconds[workers] = max(seconds / steps, 1e-9)
        first, last = RETRY_SECONDS
        slower = self.seconds[workers] > min(self.seconds.values())
        pause = min(2 * self.pause.get(workers, first / 2), last) if slower else first
        self.pause[workers] = pause
        self.noted = time.perf_counter()
        self.due[workers] = self.noted + (pause if slower else last)
