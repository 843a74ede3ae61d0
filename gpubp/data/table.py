"""CSV files as text, with the place of every cell: errors say row and column.

Comes in: a file. Goes out: named columns of strings, whitespace around them removed. Rows are
numbered as the lines of the file are, the header being row 1.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError, unknown_name

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?", "-"))
_SHOWN = 5
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """Columns of text.

    Attributes:
        path: where it is from, for errors.
        columns: name -> cells.
        lines: the line of the file that each row began on.
    """

    path: str
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> list[str]:
        """The cells of a column. Raises UnknownNameError if there is none of that name."""
        if name not in self.columns:
            raise unknown_name(f"column of {self.path}", name, self.columns)
        return self.columns[name]

    def where(self, row: int, name: str) -> str:
        """The place of a cell, in words."""
        return f"{self.path}, row {self.lines[row]}, column {name!r}"

    def rows(self, keep: Sequence[int]) -> Table:
        """A table of some of the rows."""
        columns = {name: [cells[i] for i in keep] for name, cells in self.columns.items()}
        return Table(self.path, columns, [self.lines[i] for i in keep])

    def missing(self, names: Sequence[str]) -> list[tuple[int, str]]:
        """(row, column) of every cell without a value, row by row."""
        found = [(i, n) for n in names for i, c in enumerate(self.column(n)) if is_missing(c)]
        return sorted(found, key=lambda place: place[0])

    def check_complete(self, names: Sequence[str]) -> None:
        """Raise DataError if cells of these columns have no value; says which."""
        found = self.missing(names)
        if found:
            places = "; ".join(f"row {self.lines[i]}, column {n!r}" for i, n in found[:_SHOWN])
            more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise DataError(
                f"{self.path} has {len(found)} missing values: {places}{more}. Fill them in, or "
                "leave out those rows (--missing drop) or columns (--drop NAME)."
            )

    def complete_rows(self, names: Sequence[str]) -> Table:
        """The rows that have a value in each of these columns."""
        gaps = {row for row, _ in self.missing(names)}
        kept = self.rows([i for i in range(len(self)) if i not in gaps])
        if not len(kept):
            raise DataError(f"{self.path}: every row has a missing value.")
        return kept

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as numbers.

        Raises:
            DataError: a cell that is none, or is not finite, with its row.
        """
        cells = self.column(name)
        values = np.empty(len(cells))
        for i, cell in enumerate(cells):
            number = as_number(cell)
            if number is None or not np.isfinite(number):
                raise DataError(
                    f"{self.where(i, name)}: {cell!r} is not a finite number, as the others are. "
                    f"Correct it, or declare the column (--categorical {name}) if it holds names."
                )
            values[i] = number
        return values


def is_missing(cell: str) -> bool:
    """Whether a cell has no value: empty, NA, NaN, null, none, ?, - (in any case)."""
    return cell.lower() in MISSING


def as_number(cell: str) -> float | None:
    """The number that a cell holds, or None."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def looks_numeric(cells: Sequence[str]) -> bool:
    """Whether more than half of the cells that have a value are numbers.

    So one mistyped cell is an error at its place, and does not make a column of names out of it.
    """
    given = [cell for cell in cells if not is_missing(cell)]
    return bool(given) and sum(as_number(c) is not None for c in given) * 2 > len(given)


def read_csv(path: str | os.PathLike[str], delimiter: str | None = None) -> Table:
    """Read a CSV file with a header line.

    Args:
        path: the file, in UTF-8.
        delimiter: default is the one of comma, semicolon, tab and bar that the header has most of.

    Raises:
        DataError: unreadable, empty, no header, or rows of other lengths, with the line.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            found = delimiter or max(_DELIMITERS, key=first.count)
            reader = csv.reader(file, delimiter=found, strict=True)
            rows = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(row)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8 ({error.reason} at byte {error.start})."
        ) from error
    except csv.Error as error:
        raise DataError(f"{path} is malformed near line {reader.line_num}: {error}.") from error
    if len(rows) < 2:
        raise DataError(f"{path} is empty: expected a header line and at least one row.")
    (_, header), body = rows[0], rows[1:]
    _check_header(path, header)
    for line, row in body:
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {line}: {len(row)} values under a header of {len(header)} columns."
            )
    columns = {name: [row[i] for _, row in body] for i, name in enumerate(header)}
    return Table(str(path), columns, [line for line, _ in body])


def _check_header(path: object, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns named {twice[0]!r}.")
    if all(as_number(name) is not None for name in header):
        raise DataError(
            f"{path} has no header: its first line is {', '.join(header[:4])}... Add a line with "
            "the names of the columns."
        )
    if "" in header:
        raise DataError(f"{path}: column {header.index('') + 1} has no name in the header.")
