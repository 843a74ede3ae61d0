"""What a benchmark shows: progress on stderr, a table on stdout."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any


class Progress:
    """A bar over all turns on a terminal, else one line for each contest; a context manager.

    Args:
        turns: how many there will be at most.
    """

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm

            # tqdm shows nothing on a terminal that gives its size as 0.
            size = shutil.get_terminal_size()
            self._bar = tqdm(total=self._turns, unit="turn", ncols=size.columns, nrows=size.lines)
        return self

    def begin(self, title: str) -> None:
        """Say what is measured now."""
        if self._bar is None:
            print(f"measuring {title}", file=sys.stderr, flush=True)
        else:
            self._bar.set_description(title)

    def advance(self, turns: int = 1) -> None:
        """Some turns are over."""
        if self._bar is not None:
            self._bar.update(turns)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> str:
    """Columns in line: the first `text_columns` to the left, numbers to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    shown = []
    for line in lines:
        cells = [
            cell.ljust(width) if i < text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ]
        shown.append("  ".join(cells).rstrip())
    shown.insert(1, "-" * max(map(len, shown)))
    return "\n".join(shown)


def digits(value: float) -> str:
    """Three significant digits without an exponent: 0.123, 12.3, 1230."""
    if value == 0 or value != value:
        return f"{value:g}"
    text = f"{value:.3g}"
    return f"{float(text):.0f}" if "e+" in text else text
