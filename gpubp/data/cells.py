"""The cells of a column: texts, and what is asked of them again and again, found out once.

Comes in: texts without whitespace around them. Goes out: which have no value, the numbers that
Python reads in them, the different ones. `arrow.py` has the same of columns that pyarrow holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gpubp.data.gaps import is_missing, missing_of

Rows = Sequence[int] | NDArray[np.int64]


class Cells(Sequence[str]):
    """A column of texts.

    Args:
        texts: the cells; not copied.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def texts(self) -> Sequence[str]:
        """All cells."""
        return self._texts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        return self._texts[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The first row with this cell. Raises ValueError if there is none."""
        return self.texts().index(value, start, len(self) if stop is None else stop)

    def take(self, rows: Rows) -> Cells:
        """The cells of some rows."""
        texts = self.texts()
        return Cells([texts[i] for i in _listed(rows)])

    def part(self, start: int, stop: int) -> Cells:
        """The cells of neighbouring rows."""
        return Cells(self.texts()[start:stop])

    def containing(self, part: str) -> Iterator[str]:
        """The cells that have `part` in them, in their order."""
        return (cell for cell in self if part in cell)

    def leading_zeros(self) -> Iterator[str]:
        """The cells that are digits behind a zero, in their order."""
        return (c for c in self if c[:1] == "0" and len(c) > 1 and c.isdecimal())

    @cached_property
    def longest(self) -> int:
        """The length of the longest cell."""
        return max(map(len, self), default=0)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """The different cells, in the order in which they come, and how often each does."""
        return Counter(self.texts())

    @property
    def coded(self) -> tuple[list[str], NDArray[np.int64]]:
        """The different cells, in the order in which they come, and of each row which it is."""
        places = {cell: i for i, cell in enumerate(self.counts)}
        codes = np.fromiter(map(places.__getitem__, self), np.int64, len(self))
        return list(places), codes

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Which cells have no value, (rows,)."""
        return self._looked_at[0]

    @cached_property
    def given(self) -> Cells:
        """The cells that have a value."""
        absent = self.absent
        return self.take(np.flatnonzero(~absent)) if absent.any() else self

    @property
    def plain(self) -> NDArray[np.float64] | None:
        """The numbers, (rows,), NaN where there is no value.

        None if Python does not read all cells that have a value, or there are no such cells.
        """
        return self._looked_at[1]

    @cached_property
    def _looked_at(self) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
        """`absent` and `plain`: what is read as numbers at once needs no search for gaps."""
        texts = self.texts()
        values = floats(texts)
        absent = np.zeros(len(texts), np.bool_)
        if values is not None:
            doubtful = np.flatnonzero(np.isnan(values)).tolist()
            absent[[i for i in doubtful if is_missing(texts[i])]] = True
        elif marks := missing_of(texts):
            absent[:] = [cell in marks for cell in texts]
            rows = np.flatnonzero(~absent)
            found = floats([texts[i] for i in rows.tolist()])
            if found is not None:
                values = np.full(len(texts), np.nan)
                values[rows] = found
        return absent, None if absent.all() else values


def _listed(rows: Rows) -> Sequence[int]:
    return rows.tolist() if isinstance(rows, np.ndarray) else rows


def floats(texts: Sequence[str]) -> NDArray[np.float64] | None:
    """The numbers, (cells,), if Python reads them all; "1_000" is none in a table."""
    try:
        found = np.array(texts, np.float64)
    except ValueError:
        return None
    return None if "_" in "".join(texts) else found


def as_cells(texts: Sequence[str]) -> Cells:
    """A column as `Cells`."""
    return texts if isinstance(texts, Cells) else Cells(texts)
