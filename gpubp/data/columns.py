"""Columns of a table as numbers: measured ones, dates in parts, names as one column a name.

What a column is, is found out once, and kept with the model: its names, the format of its dates,
what stands for a missing value. Names that are rare, or that new data bring, are the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data import dates
from gpubp.data.cells import as_cells
from gpubp.data.gaps import missing_of
from gpubp.data.numerals import as_number, label_key
from gpubp.data.scaling import PART_ROWS, parts_of
from gpubp.data.table import Table
from gpubp.data.units import check_unit
from gpubp.errors import DataError

# Of more names than this the frequent ones are kept: so many, each in so many rows at least. Of
# large tables fewer, so that their inputs stay about this many numbers.
MOST_NAMES, KEPT_NAMES, KEPT_ROWS = 200, 1000, 5
KEPT_NUMBERS, FEWEST_KEPT = 20_000_000, 100
# What model files leave out, as those of before do.
_USUAL: dict[str, Any] = {"rest": False, "date": "", "parts": [], "fill": None, "mark": False}


@dataclass(frozen=True)
class Column:
    """A column of a CSV file.

    Attributes:
        name: from the header.
        names: the categories, sorted; empty for a column of numbers.
        unit: of the numbers, such as "$" or "kg".
        rest: one more input, for all other names.
        date: the format of dates; see `gpubp.data.dates`.
        parts: what is taken of dates.
        fill: what stands for a missing value: for numbers and dates one for each input; None:
            values must not be missing.
        mark: one more input, which is 1 where the value is missing.
    """

    name: str
    names: list[str] = field(default_factory=list)
    unit: str = ""
    rest: bool = False
    date: str = ""
    parts: list[str] = field(default_factory=list)
    fill: list[float] | None = None
    mark: bool = False

    @property
    def measured(self) -> int:
        """How many of the inputs are measured numbers; they come first."""
        return len(self.parts) if self.date else 0 if self.names else 1

    @property
    def width(self) -> int:
        return self.measured + len(self.names) + self.rest + self.mark

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without what is as usual."""
        kept = {k: getattr(self, k) for k, usual in _USUAL.items() if getattr(self, k) != usual}
        return {"name": self.name, "names": self.names, "unit": self.unit, **kept}


def column_of(table: Table, name: str, categorical: bool, fill: bool = False) -> Column:
    """What a column is.

    Args:
        table: the table.
        name: of the column.
        categorical: it holds names, whatever they look like.
        fill: missing values are filled in: what with, `with_fills` tells.

    Raises:
        DataError: too many names, of which hardly any is in several rows; or dates and the like
            that are the same everywhere.
    """
    cells, given = table.column(name), table.given(name)
    gaps: dict[str, Any] = {"mark": len(given) < len(cells), "fill": []} if fill else {}
    if table.is_numeric(name) and not categorical:
        made = Column(name, unit=table.written[name].unit, **gaps)
        return _with_room(made)
    form = "" if categorical else dates.format_of(given)[0]
    if form:
        parts = dates.varying(dates.measured(given, form)[0])
        if parts:
            return _with_room(Column(name, date=form, parts=parts, **gaps))
    names, rest = _kept_names(table, name, given)
    return Column(name, names, rest=rest, **gaps)


def _with_room(column: Column) -> Column:
    """A column of measured numbers, whose fills are not known yet."""
    return column if column.fill is None else replace(column, fill=[np.nan] * column.measured)


def _kept_names(table: Table, name: str, given: Sequence[str]) -> tuple[list[str], bool]:
    """The names that get an input each, and whether there are others."""
    names = different_cells(given)
    if len(names) <= MOST_NAMES:
        return names, False
    kept = frequent(given)
    if not kept:
        raise DataError(
            f"{table.path}: column {name!r} holds {len(names)} different names, more than "
            f"{MOST_NAMES}, and none in {KEPT_ROWS} rows. Leave it out (--drop {name}), or group "
            "them."
        )
    return [n for n in names if label_key(n) in kept], True


def frequent(cells: Sequence[str]) -> set[object]:
    """The names (see `label_key`) in most rows."""
    counts: Counter[object] = Counter()
    for cell, rows in as_cells(cells).counts.items():
        counts[label_key(cell)] += rows
    most = min(KEPT_NAMES, max(FEWEST_KEPT, KEPT_NUMBERS // max(1, len(cells))))
    return {key for key, rows in counts.most_common(most) if rows >= KEPT_ROWS}


def says_who(table: Table, name: str, categorical: bool) -> str:
    """Why a column says who or nothing instead of what, in words; "" for all others."""
    given = table.given(name)
    if not given:
        return "has no values"
    if categorical or table.is_numeric(name) or len(given) <= MOST_NAMES:
        return ""
    names = different_cells(given)
    if len(names) <= MOST_NAMES or frequent(given) or dates.format_of(given)[0]:
        return ""
    return f"holds {len(names):,} names in {len(given):,} rows: it says who, not what"


def different_cells(cells: Sequence[str]) -> list[str]:
    """The different cells: numbers by size, then texts by their letters; one spelling of each."""
    different = as_cells(cells).counts
    found = set(different) - missing_of(different)
    order = sorted(found, key=lambda c: (as_number(c) is None, as_number(c) or 0.0, c))
    return list({label_key(cell): cell for cell in reversed(order)}.values())[::-1]


class NewNames:
    """Names that training did not have, counted: of a table, or of its parts in turn."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int, str, int]] = {}

    def count(self, table: Table, name: str, new: NDArray[np.int64]) -> None:
        """Take note of the rows of a table in which a column has a new name."""
        rows, many, first, line = self._found.get(name, (0, 0, "", 0))
        if len(new) and not many:
            first, line = table.column(name)[int(new[0])], table.lines[int(new[0])]
        self._found[name] = rows + len(table), many + len(new), first, line

    def said(self) -> list[str]:
        """A line for each column that has some."""
        return [
            f"column {name!r}: {many:,} of {rows:,} rows have a name that the training data did "
            f"not ({first!r}, row {line}): it counts as none of the known ones."
            for name, (rows, many, first, line) in self._found.items()
            if many
        ]


def encoded(table: Table, column: Column, notes: NewNames | None = None) -> NDArray[np.float64]:
    """A column as numbers, (rows, width of the column).

    Args:
        table: without missing values where the column has no fill.
        column: what it is.
        notes: counts names that training did not have, which then are the rest, or none.

    Raises:
        DataError: such names, if there are no notes to take; another unit, another format; says
            where.
    """
    cells = table.column(column.name)
    out = np.zeros((len(cells), column.width))
    gaps = table.absent(column.name)
    if column.fill is None:
        gaps = np.zeros(len(cells), np.bool_)
    if column.mark:
        out[gaps, -1] = 1.0
    rows = np.flatnonzero(~gaps)
    part = table
    if gaps.any():
        part = replace(table, columns={column.name: cells}, whole=table.whole or table)
        part = part.rows(rows)
    if column.names:
        places = _places(part, column, notes)
        out[rows[places >= 0], places[places >= 0]] = 1.0
        return out
    if gaps.any():
        out[gaps, : column.measured] = column.fill
    if len(rows):
        found = _dated(part, column) if column.date else _numbers(part, column)
        out[rows, : column.measured] = found
    return out


def _numbers(table: Table, column: Column) -> NDArray[np.float64]:
    check_unit(table, column.name, column.unit)
    return table.numbers(column.name)[:, None]


def _dated(table: Table, column: Column) -> NDArray[np.float64]:
    cells = table.column(column.name)
    parts, wrong = dates.measured(cells, column.date)
    if wrong >= 0:
        form = "2024-12-31" if column.date == dates.ISO else column.date
        raise DataError(
            f"{table.where(wrong, column.name)}: {cells[wrong]!r} is no date such as {form}, as "
            "the training data have them."
        )
    return parts[:, [dates.PARTS.index(name) for name in column.parts]]


def _places(table: Table, column: Column, notes: NewNames | None) -> NDArray[np.int64]:
    """The input of each row's name; -1 for none."""
    index = {label_key(name): i for i, name in enumerate(column.names)}
    cells = table.column(column.name)
    other = len(index) if column.rest else -1
    different, codes = cells.coded
    places = np.array([index.get(label_key(c), other) for c in different], np.int64)[codes]
    unseen = np.flatnonzero(places < 0)
    if notes is None and len(unseen):
        first = cells[int(unseen[0])]
        known = ", ".join(column.names[:8]) + (", ..." if len(column.names) > 8 else "")
        raise DataError(
            f"{table.where(int(unseen[0]), column.name)}: {first!r} was not among the names of the "
            f"training data ({known})."
        )
    if notes is not None:
        notes.count(table, column.name, unseen)
    return places


def with_fills(
    columns: Sequence[Column], X: NDArray[np.float64], rows: NDArray[np.int64] | None
) -> list[Column]:
    """The columns, which fill in the means of what is not missing in these rows of X, or in all.

    0 where all is missing.
    """
    if not any(column.fill for column in columns):
        return list(columns)
    sums, counts = np.zeros(X.shape[1]), np.zeros(X.shape[1], np.int64)
    for part in parts_of(X, rows):
        known = np.isfinite(part)
        sums += np.where(known, part, 0.0).sum(axis=0)
        counts += known.sum(axis=0)
    means = sums / np.maximum(counts, 1)
    starts = np.cumsum([0, *[column.width for column in columns]]).tolist()
    return [
        replace(c, fill=means[start : start + c.measured].tolist()) if c.fill else c
        for c, start in zip(columns, starts)
    ]


def fill_in(columns: Sequence[Column], X: NDArray[np.float64]) -> None:
    """Put the fills of the columns in place of NaN in X."""
    fills = [[*(c.fill or []), *[0.0] * (c.width - len(c.fill or []))] for c in columns]
    values = np.concatenate([np.array(f) for f in fills])
    for i in range(0, len(X), PART_ROWS):
        part = X[i : i + PART_ROWS]
        gaps = np.isnan(part)
        if gaps.any():
            X[i : i + PART_ROWS] = np.where(gaps, values, part)
