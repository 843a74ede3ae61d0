"""Dates and times in columns of text: how they are written, and numbers that say when.

Comes in: the cells of a column. Goes out: the one format that all of them have, and for each cell
how many days have passed since 1970, and where in the year, the week and the day it stands: sine
and cosine of the angle, so that December lies beside January.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from gpubp.data.cells import as_cells

ISO = "iso"
_DATES = (
    "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y",
    "%m-%d-%Y", "%d-%m-%Y", "%d %b %Y", "%d %B %Y", "%d. %B %Y", "%d-%b-%Y", "%d-%b-%y",
    "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%a %b %d %Y", "%Y-%m", "%b %Y", "%B %Y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S")
_FORMATS = (ISO, *map("".join, product(_DATES, _TIMES)), *("%H:%M", "%H:%M:%S", "%I:%M %p"))
PARTS = ("days", "year sin", "year cos", "week sin", "week cos", "day sin", "day cos")
_WORD = re.compile(r"[^\W\d_]+")
_DAY, _YEAR = 86400.0, 365.25
_VARIES = 1e-9


def format_of(cells: Sequence[str]) -> tuple[str, str]:
    """The format of all these cells, "" if they are no dates; and another one that they have too.

    Where days and months can be exchanged everywhere, the month comes first beside slashes.
    """
    first = next(iter(cells), "")
    if not any(letter.isdigit() for letter in first) or not _words() >= set(
        _WORD.findall(first.lower())
    ):
        return "", ""  # before some hundred formats are tried
    different = list(as_cells(cells).counts)
    left = [f for f in _FORMATS if _read(different[0], f) is not None]
    for cell in different[1:]:
        left = [f for f in left if _read(cell, f) is not None]
        if not left:
            return "", ""
    return (left[0], left[1] if len(left) > 1 else "") if left else ("", "")


@cache
def _words() -> frozenset[str]:
    """The words that dates may have, in small letters."""
    names = (*calendar.month_name, *calendar.month_abbr, *calendar.day_name, *calendar.day_abbr)
    return frozenset(["t", "z", "w", "am", "pm", *_WORD.findall(" ".join(names).lower())])


def _read(cell: str, form: str) -> float | None:
    """Seconds since 1970, or None."""
    try:
        found = datetime.fromisoformat(cell) if form == ISO else datetime.strptime(cell, form)
    except ValueError:
        return None
    aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return aware.timestamp()


def measured(cells: Sequence[str], form: str) -> tuple[NDArray[np.float64], int]:
    """All `PARTS` of dates, (rows, parts), and the first row that is of another format, or -1."""
    different, codes = as_cells(cells).coded
    seconds = [_read(cell, form) for cell in different]
    bad = next((i for i, stamp in enumerate(seconds) if stamp is None), -1)
    wrong = -1 if bad < 0 else int(np.argmax(codes == bad))
    stamps = np.array([stamp or 0.0 for stamp in seconds], np.float64)[codes]
    days = stamps / _DAY
    whole = np.floor(days)
    first = whole.astype("datetime64[D]").astype("datetime64[Y]").astype("datetime64[D]")
    in_year = days - first.astype(np.int64)
    angles = [in_year / _YEAR, (whole + 3) % 7 / 7, days - whole]  # 1970 began on a Thursday
    turned = [f(2 * np.pi * angle) for angle in angles for f in (np.sin, np.cos)]
    return np.stack([days, *turned], axis=1), wrong


def varying(parts: NDArray[np.float64]) -> list[str]:
    """The names of the parts that are not the same everywhere."""
    spread = parts.max(axis=0) - parts.min(axis=0)
    return [name for name, width in zip(PARTS, spread, strict=True) if width > _VARIES]
