"""Parquet files as tables of text, by pyarrow: what follows is as of CSV files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from gpubp.arguments import checked
from gpubp.data.numerals import Writing
from gpubp.data.table import Table
from gpubp.errors import DataError, missing_extra

ENDINGS = (".parquet", ".pq")
CELLS = 1 << 22  # that are read together


@checked
def read_parquet(path: str | os.PathLike[str]) -> Table:
    """Read a Parquet file.

    Numbers keep all digits; dates and times are written as 2024-12-31 and 2024-12-31T13:30:00;
    what is null or NaN has no value. Rows are numbered from 1.

    Args:
        path: the file.

    Returns:
        The table.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: unreadable, empty, or columns of lists, structures or bytes.
    """
    name = os.fspath(path)
    columns: dict[str, list[str]] = {}
    written = {}
    for part in parts_of(name):
        for column, (texts, number) in part.items():
            columns.setdefault(column, []).extend(texts)
            if number and any(texts):
                written[column] = Writing()
    lines = list(range(1, len(next(iter(columns.values()))) + 1))
    return Table(name, columns, lines, written=written)


def parts_of(name: str, cells: int = CELLS) -> Iterator[dict[str, tuple[list[str], bool]]]:
    """The rows of a file, as many at a time as have so many cells: for each column its cells, and
    whether it has numbers.

    Raises:
        MissingExtraError, DataError: see `read_parquet`.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "reading Parquet files") from error
    try:
        with parquet.ParquetFile(name) as file:
            _check(name, file.metadata.num_rows, file.schema_arrow)
            rows = max(cells // len(file.schema_arrow.names), 1)
            for batch in file.iter_batches(rows):
                yield {
                    column: (_texts(name, column, values), _is_number(values.type))
                    for column, values in zip(batch.schema.names, batch.columns)
                }
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    except pyarrow.ArrowException as error:
        raise DataError(f"{name} is no Parquet file, or it is damaged: {error}") from error


def _check(name: str, rows: int, schema: Any) -> None:
    """Raise DataError for a file that is no table."""
    if not rows or not len(schema.names):
        raise DataError(f"{name} is empty: expected at least one row.")
    twice = next((n for n in schema.names if schema.names.count(n) > 1), None)
    if twice is not None:
        raise DataError(f"{name} has two columns named {twice!r}.")
    for column, kind in zip(schema.names, schema.types):
        _check_kind(name, column, kind)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return any(is_kind(kind) for is_kind in (types.is_integer, types.is_floating, types.is_decimal))


def _texts(path: str, name: str, values: Any) -> list[str]:
    """The cells of a column, as a CSV file would have them."""
    from pyarrow import types

    kind = values.type.value_type if types.is_dictionary(values.type) else values.type
    if types.is_timestamp(kind) or types.is_date(kind):
        return ["" if v is None else v.isoformat() for v in values.to_pylist()]
    if types.is_floating(kind):
        return ["" if v is None or v != v else repr(v) for v in values.to_pylist()]
    return ["" if v is None else str(v).strip() for v in values.to_pylist()]


def _check_kind(path: str, name: str, kind: Any) -> None:
    """Raise DataError for a column whose values are no cells."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        raise DataError(
            f"{path}: column {name!r} holds {kind}, expected numbers, texts or dates. Leave it out "
            "when the file is written."
        )
