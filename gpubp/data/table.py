"""CSV files as text, with the place of every cell: errors say row and column.

Comes in: a file. Goes out: named columns of strings, whitespace around them removed. Rows are
numbered as the lines of the file are, the header being row 1.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.data.gaps import missing_of
from gpubp.data.numerals import Writing, all_plain, as_number, survey
from gpubp.data.textfile import named, read_text
from gpubp.errors import DataError, unknown_name

_SHOWN = 5
_DELIMITERS = ",;\t|"
_PLAIN = Writing()


@dataclass(frozen=True)
class Table:
    """Columns of text.

    Attributes:
        path: where it is from, for errors.
        columns: name -> cells.
        lines: the line of the file that each row began on.
        delimiter: what separated the columns.
        written: the columns of numbers, and how each writes them.
        whole: the table as it was read, if this has some of its rows; `written` speaks of that.
        index: the column that had no name, or "".
    """

    path: str
    columns: dict[str, list[str]]
    lines: list[int]
    delimiter: str = ","
    written: Mapping[str, Writing] = field(default_factory=dict)
    whole: Table | None = None
    index: str = ""
    _known: dict[str, NDArray[np.bool_]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
        lines = [self.lines[i] for i in keep]
        return replace(self, columns=columns, lines=lines, whole=self.whole or self)

    def example(self, name: str) -> tuple[str, str]:
        """A cell of a column that is not written as Python writes numbers, and its place in words.

        Two empty texts if there is none.
        """
        whole, writing = self.whole or self, self.written.get(name, _PLAIN)
        if writing.row < 0:
            return "", ""
        return whole.column(name)[writing.row], whole.where(writing.row, name)

    def absent(self, name: str) -> NDArray[np.bool_]:
        """Which cells of a column have no value, (rows,)."""
        if name not in self._known:
            cells = self.column(name)
            marks = missing_of(cells)
            found = np.zeros(len(cells), np.bool_)
            if marks:
                found[:] = [cell in marks for cell in cells]
            self._known[name] = found
        return self._known[name]

    def given(self, name: str) -> list[str]:
        """The cells of a column that have a value."""
        absent, cells = self.absent(name), self.column(name)
        return [cells[i] for i in np.flatnonzero(~absent)] if absent.any() else cells

    def missing(self, names: Sequence[str]) -> dict[str, list[int]]:
        """The rows of each of these columns without a value; only columns that have such rows.

        Those with most come first.
        """
        found = {n: np.flatnonzero(self.absent(n)).tolist() for n in names}
        order = sorted(found, key=lambda name: -len(found[name]))
        return {name: found[name] for name in order if found[name]}

    def gaps(self, names: Sequence[str]) -> str:
        """Columns with missing values, in words: "age: 557 of 1,313 (first in row 7), ..."."""
        found = self.missing(names)
        parts = [
            f"{name}: {len(rows):,} of {len(self):,}"
            f" ({'first in ' if len(rows) > 1 else ''}row {self.lines[rows[0]]})"
            for name, rows in found.items()
        ]
        more = f", and in {len(parts) - _SHOWN} other columns" if len(parts) > _SHOWN else ""
        return ", ".join(parts[:_SHOWN]) + more

    def check_complete(self, names: Sequence[str], advice: str = "") -> None:
        """Raise DataError if cells of these columns have no value.

        Args:
            names: the columns.
            advice: what to do; ends the message.
        """
        found = self.gaps(names)
        if found:
            raise DataError(
                f"{self.path} has missing values in {found}. {advice or 'Fill them in.'}"
            )

    def complete_rows(self, names: Sequence[str]) -> Table:
        """The rows that have a value in each of these columns."""
        gaps = {row for rows in self.missing(names).values() for row in rows}
        if len(gaps) == len(self):
            raise DataError(
                f"{self.path}: every row has a missing value, in {self.gaps(names)}. "
                "Leave out columns that are mostly empty (--drop NAME)."
            )
        return self.rows([i for i in range(len(self)) if i not in gaps]) if gaps else self

    def is_numeric(self, name: str) -> bool:
        """Whether more than half of the cells of a column that have a value are numbers.

        So one mistyped cell is an error at its place, and makes no column of names out of it.
        """
        return name in self.written

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as numbers.

        Raises:
            DataError: a cell that is none, or is not finite, with its row; or cells that can be
                read in two ways.
        """
        cells, writing = self.column(name), self.written.get(name, _PLAIN)
        if writing.problem:
            raise DataError(f"{self.example(name)[1]}: {writing.problem}.")
        if writing == _PLAIN and all_plain(cells):  # the usual case, quickly
            values = np.array(cells, np.float64)
            if np.isfinite(values).all():
                return values
        values = np.empty(len(cells))
        for i, cell in enumerate(cells):
            number = writing.number(cell)
            if number is None or not np.isfinite(number):
                why = writing.wrong(cell) or "as the others are"
                raise DataError(
                    f"{self.where(i, name)}: {cell!r} is not a finite number, {why}. Correct "
                    f"it, or declare the column (--categorical {name} of gpubp train) if it holds "
                    "names."
                )
            values[i] = number
        return values


@checked
def read_csv(
    path: str | os.PathLike[str],
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Table:
    """Read a CSV file with a header line.

    Args:
        path: the file, which gzip may have packed; "-" is standard input.
        delimiter: default is the one of comma, semicolon, tab and bar that the header has most of;
            a line `sep=;` before the header is read as Excel does.
        decimal: "." or ",": the decimal sign of all columns; default is what each column shows.
        encoding: Python's name of it; default is UTF-8, or what a mark at the beginning says.

    Returns:
        The table. A first column without a name, as pandas writes its index, is its `index`.

    Raises:
        DataError: unreadable, empty, no header, or rows of other lengths, with the line.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise DataError(f"delimiter is {delimiter!r}, expected one character.")
    text = read_text(path, encoding)
    path = named(path)
    found, rows = _rows(path, text, delimiter)
    if len(rows) < 2:
        raise DataError(f"{path} is empty: expected a header line and at least one row.")
    (_, header), body = rows[0], rows[1:]
    index = ""
    if header[0] == "" and len(header) > 1:
        index = header[0] = next(n for n in ("index", "index_0", "row") if n not in header)
    _check_header(path, header)
    for line, row in body:
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {line}: {len(row)} values under a header of {len(header)} columns. A "
                f"value with {found!r} in it must stand in quotes."
            )
    columns = {name: [row[i] for _, row in body] for i, name in enumerate(header)}
    lines = [line for line, _ in body]
    return Table(path, columns, lines, found, survey(columns, found, decimal), index=index)


def _rows(path: str, text: str, delimiter: str | None) -> tuple[str, list[tuple[int, list[str]]]]:
    """What separates the columns, and (line, cells) of each row, the header being the first."""
    file = io.StringIO(text, newline="")
    first = file.readline()
    given = re.fullmatch(r"sep=(.)\s*", first)
    if given is None:
        file.seek(0)
    outside = re.sub(r'"[^"]*"', "", first)
    found = delimiter or (given and given[1]) or max(_DELIMITERS, key=outside.count)
    reader = csv.reader(file, delimiter=found, strict=True)
    start = 0 if given is None else 1
    try:
        read = ((reader.line_num + start, [c.strip() for c in row]) for row in reader)
        return found, [(line, row) for line, row in read if any(row)]
    except csv.Error as error:
        raise DataError(f"{path} is malformed near line {reader.line_num}: {error}.") from error


def _check_header(path: object, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns named {twice[0]!r}.")
    if all(as_number(name.replace(",", ".")) is not None for name in header):
        raise DataError(
            f"{path} has no header: its first line is {', '.join(header[:4])}... Add a line with "
            "the names of the columns."
        )
    if "" in header:
        raise DataError(f"{path}: column {header.index('') + 1} has no name in the header.")
