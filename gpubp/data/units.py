"""Units of the numbers in columns."""

from __future__ import annotations

from gpubp.data.table import Table
from gpubp.errors import DataError


def check_unit(table: Table, name: str, unit: str) -> None:
    """Raise DataError if a column has numbers in another unit than those of the training data."""
    writing = table.written.get(name)
    if writing is not None and unit and writing.unit not in ("", unit):
        cell, place = table.example(name)
        raise DataError(
            f"{place}: {cell!r} is in {writing.unit!r}, training was in {unit!r}. Convert it."
        )
