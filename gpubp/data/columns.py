"""Columns of a table as numbers: measured ones as they are, names as one column a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpubp.data.numerals import as_number, is_missing, label_key
from gpubp.data.table import Table
from gpubp.data.units import check_unit
from gpubp.errors import DataError

# More names than this in a column are not categories but texts or identifiers.
MOST_NAMES = 200


@dataclass(frozen=True)
class Column:
    """A column of a CSV file.

    Attributes:
        name: from the header.
        names: the categories, sorted; empty for a column of numbers.
        unit: of the numbers, such as "$" or "kg".
        missing: None where each row must have a value. Else one more column marks the rows that
            have none; of numbers, this one stands there.
    """

    name: str
    names: list[str] = field(default_factory=list)
    unit: str = ""
    missing: float | None = None

    @property
    def width(self) -> int:
        return (len(self.names) or 1) + (self.missing is not None)

    @property
    def measured(self) -> list[bool]:
        """Which of its columns are measured numbers: no marks, and not one-hot."""
        return [not self.names, *[False] * (self.width - 1)]


def column_of(table: Table, name: str, categorical: bool, marked: bool = False) -> Column:
    """What a column is.

    Args:
        table: that has it.
        name: of the column.
        categorical: it holds names even if they look like numbers.
        marked: missing values of the column are marked, if it has any here.

    Raises:
        DataError: too many names, or no value at all.
    """
    gaps = marked and bool(table.missing([name]))
    if table.is_numeric(name) and not categorical:
        mean = float(np.nanmean(table.numbers(name, np.nan))) if gaps else None
        return Column(name, unit=table.written[name].unit, missing=mean)
    names = different_cells(table.column(name))
    if not names:
        raise DataError(
            f"{table.path}: column {name!r} has no value in any row. Leave it out (--drop {name})."
        )
    if len(names) > MOST_NAMES:
        raise DataError(
            f"{table.path}: column {name!r} holds {len(names)} different names, more than "
            f"{MOST_NAMES}. Leave it out (--drop {name}), or group them."
        )
    return Column(name, names, missing=0.0 if gaps else None)


def different_cells(cells: Sequence[str]) -> list[str]:
    """The different cells: numbers by size, then texts by their letters; one spelling of each."""
    found = {cell for cell in cells if not is_missing(cell)}
    order = sorted(found, key=lambda c: (as_number(c) is None, as_number(c) or 0.0, c))
    return list({label_key(cell): cell for cell in reversed(order)}.values())[::-1]


def encoded(table: Table, column: Column) -> NDArray[np.float64]:
    """A column as numbers, (rows, width of the column).

    Raises:
        DataError: names not seen in training, or another unit; says where.
    """
    cells, out = table.column(column.name), np.zeros((len(table), column.width))
    if not column.names:
        check_unit(table, column.name, column.unit)
        out[:, 0] = table.numbers(column.name, column.missing)
        if column.missing is not None:
            out[:, 1] = [is_missing(cell) for cell in cells]
        return out
    index = {label_key(name): i for i, name in enumerate(column.names)}
    found = {cell: index.get(label_key(cell)) for cell in set(cells)}
    if column.missing is not None:  # the last column
        found |= {cell: len(column.names) for cell in found if is_missing(cell)}
    for row, cell in enumerate(cells):
        at = found[cell]
        if at is None:
            known = ", ".join(column.names[:8]) + (", ..." if len(column.names) > 8 else "")
            raise DataError(
                f"{table.where(row, column.name)}: {cell!r} was not among the names of the "
                f"training data ({known})."
            )
        out[row, at] = 1.0
    return out
