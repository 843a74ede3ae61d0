"""Columns that pyarrow holds, where it is installed: read by it from regular CSV text, in threads.

What comes out is what `Cells` and Python's csv module give; where that is in doubt, they are asked:
text that is not regular, numbers that are written in other ways than most programs do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gpubp.data.cells import Cells, Rows, floats
from gpubp.data.gaps import MISSING

_PIECE = 1 << 12
_SEPARATORS = frozenset(",;\t|")
# Python takes more of these for whitespace than pyarrow does.
_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r")
_NEWLINE, _RETURN, _QUOTE = 10, 13, 34


def library() -> Any:
    """pyarrow, or None where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
    except ImportError:
        return None
    return pyarrow


class ArrowCells(Cells):
    """A column of texts in pyarrow's memory.

    Args:
        array: a ChunkedArray of strings, without nulls.
    """

    def __init__(self, array: Any) -> None:
        self._array = array

    def texts(self) -> Sequence[str]:
        """All cells, as Python's."""
        found: list[str] = self._array.to_pylist()
        return found

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _PIECE):
            yield from self._array.slice(start, _PIECE).to_pylist()

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        found: str = self._array[place].as_py()
        return found

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The first row with this cell. Raises ValueError if there is none."""
        place = _compute().index(self._array.slice(start), value).as_py()
        if place < 0 or (stop is not None and start + place >= stop):
            raise ValueError(f"{value!r} is not in the column")
        return start + int(place)

    def take(self, rows: Rows) -> Cells:
        """The cells of some rows."""
        return ArrowCells(self._array.take(library().array(np.asarray(rows, np.int64))))

    def part(self, start: int, stop: int) -> Cells:
        """The cells of neighbouring rows; they share the memory."""
        return ArrowCells(self._array.slice(start, stop - start))

    def containing(self, part: str) -> Iterator[str]:
        """The cells that have `part` in them, in their order."""
        return self._where(_compute().match_substring(self._array, part))

    def leading_zeros(self) -> Iterator[str]:
        """The cells that are digits behind a zero, in their order."""
        return self._where(_compute().match_substring_regex(self._array, r"^0\p{Nd}+$"))

    def _where(self, chosen: Any) -> Iterator[str]:
        return iter(ArrowCells(self._array.filter(chosen)))

    @cached_property
    def longest(self) -> int:
        """The length of the longest cell."""
        return _compute().max(_compute().utf8_length(self._array)).as_py() or 0

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """The different cells, in the order in which they come, and how often each does."""
        found = _compute().value_counts(self._array)  # in the order of the rows
        return dict(zip(*[found.field(i).to_pylist() for i in (0, 1)], strict=True))

    @property
    def coded(self) -> tuple[list[str], NDArray[np.int64]]:
        """The different cells, in the order in which they come, and of each row which it is."""
        different = _compute().unique(self._array)
        codes = _compute().index_in(self._array, value_set=different)
        return different.to_pylist(), _copied(codes, np.int32).astype(np.int64)

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """Which cells have no value, (rows,)."""
        return _bools(self._gaps())

    @property
    def plain(self) -> NDArray[np.float64] | None:
        """The numbers, (rows,), NaN where there is no value; see `Cells.plain`."""
        return self._numbers

    @cached_property
    def _numbers(self) -> NDArray[np.float64] | None:
        return self._read()

    def _gaps(self) -> Any:
        arrow, compute = library(), _compute()
        marks = arrow.array(sorted(MISSING), self._array.type)
        return compute.is_in(compute.utf8_lower(self._array), value_set=marks)

    def _read(self) -> NDArray[np.float64] | None:
        arrow, compute = library(), _compute()
        gaps = self._gaps()
        try:
            known = compute.if_else(gaps, arrow.scalar(None, self._array.type), self._array)
            values = compute.fill_null(compute.cast(known, arrow.float64()), np.nan)
        except arrow.ArrowInvalid:
            return self._by_python(gaps)
        absent, found = _bools(gaps), _copied(values, np.float64)
        if absent.all():
            return None
        # Of what is not finite, Python and pyarrow have different names.
        return found if (np.isfinite(found) | absent).all() else self._by_python(gaps)

    def _by_python(self, gaps: Any) -> NDArray[np.float64] | None:
        absent = _bools(gaps)
        rows = np.flatnonzero(~absent)
        given = self._array.filter(_compute().invert(gaps)) if absent.any() else self._array
        if not len(rows) or floats(given.slice(0, 1).to_pylist()) is None:
            return None
        found = floats(given.to_pylist())
        if found is None:
            return None
        values = np.full(len(absent), np.nan)
        values[rows] = found
        return values


def _copied(array: Any, dtype: Any) -> NDArray[Any]:
    """Numbers of pyarrow's, without nulls; its `to_numpy` would import pandas."""
    chunks = array.chunks if hasattr(array, "chunks") else [array]
    parts = [
        np.frombuffer(c.buffers()[1], dtype)[c.offset : c.offset + len(c)] for c in chunks if len(c)
    ]
    return np.concatenate([np.zeros(0, dtype), *parts])


def _bools(array: Any) -> NDArray[np.bool_]:
    return _copied(_compute().cast(array, "uint8"), np.uint8).view(np.bool_)


def _compute() -> Any:
    import pyarrow.compute

    return pyarrow.compute


def read_rows(
    data: bytes, start: int, names: Sequence[str], delimiter: str, line: int
) -> tuple[dict[str, Cells], Sequence[int]] | None:
    """The rows of CSV text below its header, and the line of the file on which each ends.

    Args:
        data: UTF-8.
        start: the first byte below the header.
        names: of the columns.
        delimiter: what separates them.
        line: the line that begins at `start`, from 1.

    Returns:
        None if pyarrow is not installed, or Python's csv module must look at it: quotes in other
        places than around values, unusual whitespace, rows of other lengths.
    """
    arrow = library()
    regular = delimiter in _SEPARATORS and len(data) == len(data.translate(None, _CONTROLS))
    if arrow is None or not regular or start >= len(data):
        return None
    ends = _row_ends(np.frombuffer(data, np.uint8, offset=start), ord(delimiter))
    if ends is None or not (data.isascii() or _usual_spaces(data)):
        return None
    try:
        table = _parsed(arrow, data, start, names, delimiter)
    except arrow.ArrowInvalid:
        return None
    if table.num_rows != len(ends):
        return None
    compute = arrow.compute
    trim = compute.ascii_trim_whitespace if data.isascii() else compute.utf8_trim_whitespace
    columns = [trim(column) for column in table.columns]
    lines: Sequence[int] = range(line, line + len(ends))
    if len(ends) and ends[-1] != len(ends) - 1:
        lines = (ends + line).tolist()
    return _without_empty(arrow, dict(zip(names, columns, strict=True)), lines)


def _parsed(arrow: Any, data: bytes, start: int, names: Sequence[str], delimiter: str) -> Any:
    csv = arrow.csv
    kinds = {name: arrow.string() for name in names}
    return csv.read_csv(
        arrow.py_buffer(data).slice(start),
        read_options=csv.ReadOptions(column_names=list(names)),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in data),
        convert_options=csv.ConvertOptions(
            column_types=kinds, strings_can_be_null=False, quoted_strings_can_be_null=False
        ),
    )


def _usual_spaces(data: bytes) -> bool:
    """Whether pyarrow trims what Python trims: blanks, and those of fixed width."""
    return not any(c.isspace() and c not in " \t\r\n\u00a0\u202f" for c in set(data.decode()))


def _without_empty(
    arrow: Any, columns: dict[str, Any], lines: Sequence[int]
) -> tuple[dict[str, Cells], Sequence[int]]:
    """Rows that have nothing in any column are no rows."""
    empty = np.ones(len(lines), np.bool_)
    for column in columns.values():
        empty &= _bools(arrow.compute.equal(column, ""))
        if not empty.any():
            break
    if empty.any():
        kept = np.flatnonzero(~empty)
        lines = [lines[i] for i in kept.tolist()]
        columns = {name: column.take(arrow.array(kept)) for name, column in columns.items()}
    return {name: ArrowCells(column) for name, column in columns.items()}, lines


def _row_ends(text: NDArray[np.uint8], delimiter: int) -> NDArray[np.int64] | None:
    """The line on which each row ends that is not blank, from 0; None for irregular text.

    Regular is: quotes stand around whole values, or are doubled inside; lines end in \\n or \\r\\n.
    """
    breaks = np.flatnonzero(text == _NEWLINE)
    returns = np.flatnonzero(text == _RETURN)
    if len(returns) and (returns[-1] + 1 == len(text) or (text[returns + 1] != _NEWLINE).any()):
        return None
    quotes = np.flatnonzero(text == _QUOTE)
    if len(quotes) and not _around_values(text, quotes, delimiter):
        return None
    if not len(text) or text[-1] != _NEWLINE:
        breaks = np.append(breaks, len(text))
    outside = np.searchsorted(quotes, breaks) % 2 == 0
    ends = breaks[outside]
    begins = np.concatenate([[0], ends[:-1] + 1])
    blank = ends == begins
    one = np.flatnonzero(ends == begins + 1)
    blank[one] = text[begins[one]] == _RETURN
    found: NDArray[np.int64] = np.flatnonzero(outside)[~blank]
    return found


def _around_values(text: NDArray[np.uint8], quotes: NDArray[np.int64], delimiter: int) -> bool:
    """Whether quotes alternate: one that opens stands behind what ends a value or a quote, one that
    closes before such.
    """
    if len(quotes) % 2:
        return False
    edges = (delimiter, _NEWLINE, _QUOTE)
    opens, closes = quotes[::2], quotes[1::2]
    before = text[opens[opens > 0] - 1]
    after = text[closes[closes + 1 < len(text)] + 1]
    # A doubled quote closes and opens again: what opens behind a quote stands next to what closed.
    return bool(np.isin(before, edges).all() and np.isin(after, (*edges, _RETURN)).all())
