"""Tables larger than memory: their cells and numbers in files, which are read as they are needed.

Comes in: a CSV or Parquet file, a folder. Goes out: a `Table` like any other, whose columns pyarrow
maps from a file in that folder, and arrays of NumPy's that are mapped, too. What is in memory at a
time is a part of the rows, or a column.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data import arrow, parquet
from gpubp.data.arrow import ArrowCells
from gpubp.data.beginnings import beginning
from gpubp.data.cells import Cells, Rows
from gpubp.data.numerals import Writing, survey
from gpubp.data.reading import (
    check_lengths,
    checked_header,
    header_of,
    rows_of,
    without_comments,
)
from gpubp.data.table import Table
from gpubp.data.textfile import lines_of, named
from gpubp.errors import DataError, missing_extra

CELLS = 1 << 18  # of a table, that are in memory as texts
_FILES = 256  # of the columns of a table, at most: so many may be open
MOVED = 1 << 26  # bytes of rows that are put into another order together
_files = count()


def rows_at_once(columns: int) -> int:
    """How many rows of a table of so many columns are in memory as texts."""
    return max(CELLS // max(columns, 1), 1)


class DiskCells(ArrowCells):
    """A column in a file: of what is found out nothing is kept but that it has gaps.

    Args:
        array: mapped from a file.
        folder: for columns made of this one.
    """

    def __init__(self, array: Any, folder: Path) -> None:
        super().__init__(array)
        self._folder = folder

    def take(self, rows: Rows) -> Cells:
        """The cells of some rows, in a file of their own."""
        kept = self._array.take(arrow.library().array(np.asarray(rows, np.int64)))
        table = arrow.library().table({"cells": kept})
        path = self._folder / f"column{next(_files)}.arrow"
        with arrow.library().ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=CELLS)
        return DiskCells(_mapped(path).column(0), self._folder)

    @property
    def counts(self) -> Any:
        """See `Cells.counts`."""
        return ArrowCells(self._array).counts

    @property
    def absent(self) -> NDArray[np.bool_]:
        """See `Cells.absent`."""
        return ArrowCells(self._array).absent

    @property
    def plain(self) -> NDArray[np.float64] | None:
        """See `Cells.plain`."""
        return ArrowCells(self._array).plain


def read_csv(
    path: str | os.PathLike[str],
    folder: Path,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Table:
    """As `gpubp.data.read_csv`, by the same reader of Python's, into files of a folder.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: as there.
    """
    if arrow.library() is None:
        raise missing_extra("pyarrow", "parquet", "reading files larger than memory")
    text = lines_of(path, encoding)
    name = named(path)
    began, seen = beginning(text, None)
    after = began.skipped - sum(map(len, seen[: began.lines]))  # of the line of the header
    kept = seen[began.lines :]
    rows = rows_of(name, chain([line[after:] for line in kept[:1]], kept[1:], text), began)
    _, cells = next(rows, (0, []))
    if not cells:
        raise DataError(f"{name} is empty: expected a header line and at least one row.")
    header = header_of(cells, began)
    index = checked_header(name, header)
    lines, comments = array("q"), [began.comments]
    parts = _columns(name, header, rows, began.delimiter, lines, comments)
    columns = _kept(folder, header, parts)
    if not lines:
        raise DataError(f"{name} is empty: expected a header line and at least one row.")
    written = survey(columns, began.delimiter, decimal)
    found = sum(comments)
    return Table(name, columns, lines, began.delimiter, written, index=index, comments=found)


def read_parquet(path: str | os.PathLike[str], folder: Path) -> Table:
    """As `gpubp.data.read_parquet`, into files of a folder.

    Raises:
        MissingExtraError, DataError: as there.
    """
    name = os.fspath(path)
    parts = parquet.parts_of(name, CELLS)
    first = next(parts)
    written: dict[str, Writing] = {}
    rows = 0

    def columns() -> Iterator[list[list[str]]]:
        nonlocal rows
        for part in chain([first], parts):
            rows += len(next(iter(part.values()))[0])
            for column, (texts, number) in part.items():
                if number and any(texts):
                    written[column] = Writing()
            yield [texts for texts, _ in part.values()]

    kept = _kept(folder, list(first), columns())
    return Table(name, kept, range(1, rows + 1), written=written)


def _columns(
    name: str,
    header: Sequence[str],
    rows: Iterator[tuple[int, list[str]]],
    delimiter: str,
    lines: array[int],
    comments: list[int],
) -> Iterator[list[Sequence[str]]]:
    """The cells of rows of text, column by column and part by part; `lines` gets their lines, and
    `comments` how many were none.
    """
    while read := list(islice(rows, rows_at_once(len(header)))):
        part = without_comments(read, header)
        comments.append(len(read) - len(part))
        check_lengths(name, header, part, delimiter)
        lines.extend(line for line, _ in part)
        cells: list[Sequence[str]] = list(zip(*[row for _, row in part]))
        del read, part  # before the next ones are read
        if cells:
            yield cells


def _kept(
    folder: Path, header: Sequence[str], parts: Iterable[Sequence[Sequence[str]]]
) -> dict[str, DiskCells]:
    """Columns in files of pyarrow's, which are mapped.

    A file for each, or for a few of many: a column is read as a whole, and what stands beside it on
    the disk would be read, too.
    """
    library = arrow.library()
    each = -(-len(header) // _FILES)
    groups = [range(i, min(i + each, len(header))) for i in range(0, len(header), each)]
    paths = [folder / f"columns{group.start}.arrow" for group in groups]
    schemas = [library.schema([(f"{i}", library.string()) for i in group]) for group in groups]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(library.ipc.new_file(str(path), schema))
            for path, schema in zip(paths, schemas, strict=True)
        ]
        for part in parts:
            for group, writer, schema in zip(groups, writers, schemas, strict=True):
                columns = [library.array(part[i], library.string()) for i in group]
                writer.write_batch(library.record_batch(columns, schema))
    tables = [_mapped(path) for path in paths]
    arrays = [column for table in tables for column in table.columns]
    return {name: DiskCells(made, folder) for name, made in zip(header, arrays, strict=True)}


def _mapped(path: Path) -> Any:
    library = arrow.library()
    return library.ipc.open_file(library.memory_map(str(path))).read_all()


def new_array(folder: Path | None, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """An array to be filled: in a file of the folder, or in memory if that is None."""
    if folder is None or not np.prod(shape):
        return np.empty(tuple(shape), dtype)
    path = folder / f"array{next(_files)}.npy"
    made: NDArray[Any] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), tuple(shape))
    return made


def in_order(folder: Path, X: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """These rows of a mapped array in a file of their own, one behind the other.

    They are read in the order of the file, as many at a time as `MOVED` bytes hold: row by row at
    random, a file larger than memory would be read a hundred times over.
    """
    out = new_array(folder, (len(rows), *X.shape[1:]), X.dtype)
    many = max(MOVED // max(X[:1].nbytes, 1), 1)
    for start in range(0, len(rows), many):
        some = rows[start : start + many]
        order = np.argsort(some)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        out[start : start + many] = X[some[order]][back]  # written one after the other, too
    return out
