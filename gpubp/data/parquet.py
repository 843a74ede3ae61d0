"""Parquet files as tables of text, by pyarrow: what follows is as of CSV files."""

from __future__ import annotations

import os
from typing import Any

from gpubp.arguments import checked
from gpubp.data.numerals import Writing
from gpubp.data.table import Table
from gpubp.errors import DataError, missing_extra

ENDINGS = (".parquet", ".pq")


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
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "reading Parquet files") from error
    name = os.fspath(path)
    try:
        found = parquet.read_table(name)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    except pyarrow.ArrowException as error:
        raise DataError(f"{name} is no Parquet file, or it is damaged: {error}") from error
    if not found.num_rows or not found.num_columns:
        raise DataError(f"{name} is empty: expected at least one row.")
    twice = next((n for n in found.column_names if found.column_names.count(n) > 1), None)
    if twice is not None:
        raise DataError(f"{name} has two columns named {twice!r}.")
    columns, written = {}, {}
    for column, values in zip(found.column_names, found.columns):
        columns[column] = _texts(name, column, values)
        if _is_number(values.type) and any(columns[column]):
            written[column] = Writing()
    lines = list(range(1, found.num_rows + 1))
    return Table(name, columns, lines, written=written)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return any(is_kind(kind) for is_kind in (types.is_integer, types.is_floating, types.is_decimal))


def _texts(path: str, name: str, values: Any) -> list[str]:
    """The cells of a column, as a CSV file would have them."""
    from pyarrow import types

    kind = values.type.value_type if types.is_dictionary(values.type) else values.type
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        raise DataError(
            f"{path}: column {name!r} holds {kind}, expected numbers, texts or dates. Leave it out "
            "when the file is written."
        )
    if types.is_timestamp(kind) or types.is_date(kind):
        return ["" if v is None else v.isoformat() for v in values.to_pylist()]
    if types.is_floating(kind):
        return ["" if v is None or v != v else repr(v) for v in values.to_pylist()]
    return ["" if v is None else str(v).strip() for v in values.to_pylist()]
