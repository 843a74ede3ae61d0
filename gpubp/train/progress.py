"""Progress on stderr: one line an epoch, and on a terminal a bar while the epoch runs."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class EpochProgress:
    """Shows one epoch; use it as a context manager.

    Args:
        epoch, epochs: which one (from 1), of how many.
        samples: samples in the epoch.
        enabled: False shows nothing.
    """

    def __init__(self, epoch: int, epochs: int, samples: int, enabled: bool) -> None:
        self.title = f"epoch {epoch}/{epochs}"
        self._enabled = enabled
        self._samples = samples
        self._seconds = 0.0
        self._since = time.perf_counter()
        self._bar: Any = None
        self._metrics: Mapping[str, float] = {}

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
                total=self._samples,
                desc=self.title,
                unit=" samples",
                unit_scale=True,
                leave=False,
                ncols=size.columns,
                nrows=size.lines,
            )
        self._since = time.perf_counter()
        return self

    def advance(self, samples: int) -> None:
        """Move the bar by `samples` that were trained on."""
        self._seconds = time.perf_counter() - self._since
        if self._bar is not None:
            self._bar.update(samples)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Add the epoch's numbers; they appear when the context ends."""
        self._metrics = metrics

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._enabled and kind is None:
            shown = "  ".join(f"{key} {value:.4f}" for key, value in self._metrics.items())
            rate = self._samples / max(self._seconds, 1e-9)
            print(f"{self.title}  {shown}  {rate:,.0f} samples/s", file=sys.stderr)
