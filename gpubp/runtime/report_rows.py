"""The numbers of a report."""

from __future__ import annotations

from typing import NamedTuple


class Timing(NamedTuple):
    """One part, alone on one worker.

    Attributes:
        seconds: measured; 0 if it had nothing to do.
        bound: seconds at the peak; 0 if that is not known.
    """

    seconds: float
    bound: float

    @property
    def share(self) -> str:
        """How near to its peak it is; nothing where there was no work."""
        if self.seconds <= 0 or self.bound <= 0:
            return "-"
        return f"{self.bound / self.seconds:.0%}"


class ReportRow(NamedTuple):
    """One part of a program, which is an instruction or stands beside others in one.

    Attributes:
        instruction: its number.
        name: the ops that were fused, and what they make.
        kernel: what runs them.
        flops, bytes: arithmetic, and bytes moved, in one step.
        shared: how workers share it.
        timing: measured; None without a profile.
    """

    instruction: int
    name: str
    kernel: str
    flops: float
    bytes: int
    shared: str
    timing: Timing | None
