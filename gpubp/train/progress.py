"""Progress on stderr: one line an epoch, and on a terminal a bar while the epoch runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class EpochProgress:
    """Shows one epoch; use it as a context manager.

    Args:
        epoch, epochs: which one (from 1), of how many.
        samples: samples in the epoch; None if that is not known.
        enabled: False shows nothing.
    """

    def __init__(self, epoch: int, epochs: int, samples: int | None, enabled: bool) -> None:
        self.title = f"epoch {epoch}/{epochs}"
        self._enabled = enabled
        self._total = samples
        self._done = 0
        self._seconds = 0.0
        self._bar: Any = None
        self._metrics: Mapping[str, float] = {}
        self._note: str | None = None

    @property
    def live(self) -> bool:
        """True if there is a bar to move while the epoch runs."""
        return self._enabled and sys.stderr.isatty()

    def __enter__(self) -> EpochProgress:
        if self.live:
            from tqdm import tqdm

            # tqdm shows nothing on a terminal that gives its size as 0.
            size = shutil.get_terminal_size()
            self._bar = tqdm(
                total=self._total,
                desc=self.title,
                unit=" samples",
                unit_scale=True,
                leave=False,
                ncols=size.columns,
                nrows=size.lines,
            )
        return self

    def skip(self, samples: int) -> None:
        """Move the bar by samples that an earlier run was trained on."""
        if self._bar is not None and samples:
            self._bar.update(samples)

    def advance(self, samples: int, seconds: float, loss: float) -> None:
        """Move the bar by `samples` that were trained on in `seconds`, and show the last loss."""
        self._seconds += seconds
        self._done += samples
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update(samples)

    def finish(self, metrics: Mapping[str, float], note: str | None = None) -> None:
        """Add the epoch's numbers, and why training ends; they appear when the context ends."""
        self._metrics, self._note = metrics, note

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._enabled and kind is None:
            shown = "  ".join(f"{key} {_short(value)}" for key, value in self._metrics.items())
            rate = self._done / max(self._seconds, 1e-9)
            print(f"{self.title}  {shown}  {rate:,.0f} samples/s", file=sys.stderr)
            if self._note:
                print(f"stopped: {self._note}", file=sys.stderr)


def _short(value: float) -> str:
    """Four decimals, or as many digits where that would show nothing."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"
