"""Progress: one line an epoch, and while the epoch runs a bar on a terminal or in a notebook.

On a terminal, and in files and pipes, it goes to stderr; in a notebook to its cell.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any


def in_notebook() -> bool:
    """Whether cells of a notebook show what is printed here."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


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
        self._notebook = enabled and in_notebook()
        self._total = samples
        self._done = 0
        self._seconds = 0.0
        self._bar: Any = None
        self._metrics: Mapping[str, float] = {}
        self._note: str | None = None

    @property
    def live(self) -> bool:
        """True if there is a bar to move while the epoch runs."""
        if self._notebook:  # tqdm's bar for notebooks is one of ipywidgets'
            return importlib.util.find_spec("ipywidgets") is not None
        return self._enabled and sys.stderr.isatty()

    def __enter__(self) -> EpochProgress:
        if self.live:
            self._bar = self._made()
        return self

    def _made(self) -> Any:
        options: dict[str, Any] = {
            "total": self._total,
            "desc": self.title,
            "unit": " samples",
            "unit_scale": True,
            "leave": False,
        }
        if self._notebook:
            from tqdm.notebook import tqdm as bar_of_notebook

            return bar_of_notebook(**options)
        from tqdm import tqdm

        # tqdm shows nothing on a terminal that gives its size as 0.
        size = shutil.get_terminal_size()
        return tqdm(**options, ncols=size.columns, nrows=size.lines)

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
            # Notebooks show stderr as if it were an error.
            where = sys.stdout if self._notebook else sys.stderr
            rate = self._done / max(self._seconds, 1e-9)
            print(f"{self.title}  {shown(self._metrics)}  {rate:,.0f} samples/s", file=where)
            if self._note:
                print(f"stopped: {self._note}", file=where)


def shown(numbers: Mapping[str, float]) -> str:
    """Numbers in a line, without the epoch's own."""
    return "  ".join(f"{key} {_short(value)}" for key, value in numbers.items() if key != "epoch")


def _short(value: float) -> str:
    """Four decimals, or as many digits where that would show nothing."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"
