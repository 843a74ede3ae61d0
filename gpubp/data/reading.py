"""CSV files to tables: by pyarrow where it is installed and the text is regular, else by Python.

Comes in: a file. Goes out: a `Table`; the same one whoever has read it.
"""

from __future__ import annotations

import csv
import gc
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from gpubp.arguments import checked
from gpubp.data import arrow
from gpubp.data.beginnings import (
    BLANKS,
    COMMENT,
    Beginning,
    beginning,
    lines_in,
    separated,
    single,
)
from gpubp.data.cells import Cells
from gpubp.data.numerals import as_number, survey
from gpubp.data.table import Table
from gpubp.data.textfile import named, read_text
from gpubp.errors import DataError

_SPACES = frozenset(c for c in map(chr, range(128)) if c.isspace() and c not in "\r\n")


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
        delimiter: default is the one of comma, semicolon, tab and bar that the header has most of,
            or blanks, any number of them (" "), where it has none of these and they part all lines
            into as many values. A line `sep=;` before the header is read as Excel does; lines
            before it that begin with "#" are comments, and so are later ones that are no rows.
        decimal: "." or ",": the decimal sign of all columns; default is what each column shows.
        encoding: Python's name of it; default is UTF-8, or what a mark at the beginning says.

    Returns:
        The table. A first column without a name, as pandas writes its index, is its `index`.

    Raises:
        DataError: unreadable, empty, no header, or rows of other lengths, with the line.
    """
    check_delimiter(delimiter)
    text = read_text(path, encoding)
    path = named(path)
    began, _ = beginning(lines_in(text), delimiter)
    found = _by_arrow(path, text, began) or _by_python(path, text, began)
    header, columns, lines, index, comments = found
    named_columns = dict(zip(header, columns, strict=True))
    written = survey(named_columns, began.delimiter, decimal)
    return Table(
        path, named_columns, lines, began.delimiter, written, index=index, comments=comments
    )


def check_delimiter(delimiter: str | None) -> None:
    """Raise DataError for what is not one character."""
    if delimiter is not None and len(delimiter) != 1:
        raise DataError(f"delimiter is {delimiter!r}, expected one character.")


class _Found(NamedTuple):
    header: list[str]
    columns: list[Cells]
    lines: Sequence[int]
    unnamed: str
    comments: int


def _by_arrow(path: str, text: str, began: Beginning) -> _Found | None:
    """By pyarrow, if the header is one line; None: see `arrow.read_rows`."""
    if arrow.library() is None or began.delimiter == BLANKS:
        return None
    end = text.find("\n", began.skipped) + 1
    try:
        rows = list(csv.reader([text[began.skipped : end]], delimiter=began.delimiter, strict=True))
    except csv.Error:
        return None
    header = [name.strip() for name in rows[0]] if rows else []
    if not end or not any(header):
        return None
    index = checked_header(path, header)
    data = text.encode()
    start = len(text[:end].encode())
    found = arrow.read_rows(data, start, header, began.delimiter, began.lines + 2)
    if found is None or not len(found[1]):
        return None
    return _Found(header, list(found[0].values()), found[1], index, began.comments)


def _by_python(path: str, text: str, began: Beginning) -> _Found:
    file = io.StringIO(text[began.skipped :], newline="")
    spaces = began.delimiter == BLANKS or _spaces_at_edges(text, began.delimiter)
    with _uncollected():
        read = list(rows_of(path, file, began, spaces))
    if len(read) < 2:
        raise DataError(f"{path} is empty: expected a header line and at least one row.")
    header = header_of(read[0][1], began)
    body = without_comments(read[1:], header)
    index = checked_header(path, header)
    check_lengths(path, header, body, began.delimiter)
    columns = [Cells(cells) for cells in zip(*[row for _, row in body], strict=True)]
    comments = began.comments + len(read) - 1 - len(body)
    return _Found(header, columns, [line for line, _ in body], index, comments)


def rows_of(
    path: str, file: Iterable[str], began: Beginning, spaces: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row that is not empty, the header being the first.

    Args:
        path: for errors.
        file: the lines, from the header on.
        began: what the first line says.
        spaces: whether cells may have whitespace around them, which is removed.
    """
    delimiter = began.delimiter
    reader = csv.reader(separated(file, delimiter), delimiter=single(delimiter), strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row] if spaces else row
            if any(cells):
                yield reader.line_num + began.lines, cells
    except csv.Error as error:
        raise DataError(f"{path} is malformed near line {reader.line_num}: {error}.") from error


def header_of(cells: list[str], began: Beginning) -> list[str]:
    """The names of the columns, with "" for one of row names."""
    return ["", *cells] if began.row_names else cells


def without_comments(
    rows: Sequence[tuple[int, list[str]]], header: Sequence[str]
) -> Sequence[tuple[int, list[str]]]:
    """Rows without those that begin with "#" and have another length than the header."""
    count = len(header)
    if count == 1:
        return rows
    return [row for row in rows if len(row[1]) == count or not row[1][0].startswith(COMMENT)]


def check_lengths(
    path: str, header: Sequence[str], rows: Sequence[tuple[int, list[str]]], delimiter: str
) -> None:
    """Raise DataError for a row of another length than the header."""
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {line}: {len(row)} values under a header of {len(header)} columns. A "
                f"value with {delimiter!r} in it must stand in quotes."
            )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles, of which millions of new lists would make many."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _spaces_at_edges(text: str, delimiter: str) -> bool:
    """Whether a cell may have whitespace at one of its ends."""
    if text.isascii() and '"' not in text and not any(c in text for c in _SPACES - {delimiter}):
        return False
    if text[:1].isspace() or (text[-1:].isspace() and text[-1:] not in "\r\n"):
        return True
    edge = f'["{re.escape(delimiter)}\\r\\n]'
    space = f"[^\\S\\r\\n{re.escape(delimiter)}]"
    return re.search(rf'{edge}{space}|{space}{edge}|"[\r\n]|[\r\n]"', text) is not None


def checked_header(path: object, header: list[str]) -> str:
    """The name that a first column without one gets, in the header too, or "".

    Raises:
        DataError: no header, two names that are the same, or none.
    """
    index = ""
    if header[0] == "" and len(header) > 1:
        index = header[0] = next(n for n in ("index", "index_0", "row") if n not in header)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns named {twice[0]!r}.")
    if all(as_number(name.replace(",", ".")) is not None for name in header):
        raise DataError(
            f"{path} has no header: its first line is {', '.join(header[:4])}... Add a line with "
            "the names of the columns."
        )
    if "" in header:
        raise DataError(
            f"{path}: column {header.index('') + 1} has no name in the header. Write one there, or "
            "take that column (the separator at the ends of all lines) out of the file."
        )
    return index
