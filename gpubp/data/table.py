"""Tables: named columns of text, with the place of every cell: errors say row and column.

Rows are numbered as the lines of the file are, the header being row 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gpubp.data.cells import Cells, as_cells
from gpubp.data.numerals import Writing
from gpubp.errors import DataError, unknown_name

_SHOWN = 5
_PLAIN = Writing()


@dataclass(frozen=True)
class Table:
    """Columns of text.

    Attributes:
        path: where it is from, for errors.
        columns: name -> cells, of which `Cells` are made.
        lines: the line of the file that each row ends on.
        delimiter: what separated the columns.
        written: the columns of numbers, and how each writes them.
        whole: the table as it was read, if this has some of its rows; `written` speaks of that.
        index: the column that had no name, or "".
        comments: how many lines of the file were comments.
    """

    path: str
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    delimiter: str = ","
    written: Mapping[str, Writing] = field(default_factory=dict)
    whole: Table | None = None
    index: str = ""
    comments: int = 0

    def __post_init__(self) -> None:
        made = {name: as_cells(cells) for name, cells in self.columns.items()}
        object.__setattr__(self, "columns", made)

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> Cells:
        """The cells of a column. Raises UnknownNameError if there is none of that name."""
        if name not in self.columns:
            raise unknown_name(f"column of {self.path}", name, self.columns)
        return as_cells(self.columns[name])

    def where(self, row: int, name: str) -> str:
        """The place of a cell, in words."""
        return f"{self.path}, row {self.lines[row]}, column {name!r}"

    def rows(self, keep: Sequence[int] | NDArray[np.int64]) -> Table:
        """A table of some of the rows."""
        columns = {name: self.column(name).take(keep) for name in self.columns}
        lines = [self.lines[i] for i in keep]
        return replace(self, columns=columns, lines=lines, whole=self.whole or self)

    def parts(self, rows: int) -> Iterator[Table]:
        """The table in parts of so many rows."""
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            columns = {name: self.column(name).part(start, stop) for name in self.columns}
            lines = self.lines[start:stop]
            yield replace(self, columns=columns, lines=lines, whole=self.whole or self)

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
        return self.column(name).absent

    def given(self, name: str) -> Cells:
        """The cells of a column that have a value."""
        return self.column(name).given

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
        complete = np.ones(len(self), np.bool_)
        for name in names:
            complete &= ~self.absent(name)
        if not complete.any():
            raise DataError(
                f"{self.path}: every row has a missing value, in {self.gaps(names)}. "
                "Leave out columns that are mostly empty (--drop NAME)."
            )
        return self if complete.all() else self.rows(np.flatnonzero(complete))

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
        plain = cells.plain if writing == _PLAIN else None
        if plain is not None and np.isfinite(plain).all():  # the usual case, quickly
            return plain.copy()
        different, codes = cells.coded
        values = np.empty(len(different))
        for i, cell in enumerate(different):
            number = writing.number(cell)
            if number is None or not np.isfinite(number):
                why = writing.wrong(cell) or "as the others are"
                raise DataError(
                    f"{self.where(cells.index(cell), name)}: {cell!r} is not a finite number, "
                    f"{why}. Correct it, or declare the column (--categorical {name} of gpubp "
                    "train) if it holds names."
                )
            values[i] = number
        return values[codes]
