"""Warnings about the columns of a file: what is hardly meant as it is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

from gpubp.cli.summary import MANY_CLASSES, like_dates, option
from gpubp.data import dates
from gpubp.data.cells import Cells
from gpubp.data.columns import Column
from gpubp.data.encoding import MOST_CLASSES, Encoding
from gpubp.data.numerals import as_number, like_numbers
from gpubp.data.table import Table

# Above this share of rows with a name of their own, a column says who, not what.
_IDENTIFIERS = 0.5
_DIGITS = 15  # a number of no more is exactly one of float64


def of_columns(table: Table, found: Encoding, declared: Sequence[str]) -> list[str]:
    """Warnings about the columns that a model is to learn from.

    Args:
        table: as it was read.
        found: its encoding.
        declared: columns that the user has said to hold names.
    """
    warnings = []
    for column in found.columns:
        given = table.given(column.name)
        place = f"column {column.name!r}"
        leave = option("drop", column.name)
        if (same := _same(given)) is not None:
            warnings.append(f"{place} is {same!r} in every row: it says nothing ({leave}).")
            continue
        if not column.names and not column.date:
            warnings += _of_numbers(table, column.name, given, place)
            continue
        different = given.counts
        if column.date:
            warnings += _of_dates(column, list(different), place)
        elif column.rest:
            warnings.append(
                f"{place} holds {len(different):,} names: the {len(column.names)} most frequent "
                "are inputs, the rest is one more."
            )
        elif column.name not in declared:
            warnings += _of_names(table, column.name, different, place)
    return warnings


def _same(cells: Cells) -> str | None:
    """The cell of all rows, if there is one."""
    plain = cells.plain
    if plain is not None and plain[0] != plain[-1]:
        return None
    return next(iter(cells.counts)) if len(cells.counts) == 1 else None


def _of_dates(column: Column, different: Sequence[str], place: str) -> list[str]:
    form, other = dates.format_of(different)
    if not other:
        return []
    return [
        f"{place}: {different[0]!r} is read as {form}; it could be {other} as well. If it is, "
        "write dates as 2024-12-31."
    ]


def _of_numbers(table: Table, name: str, given: Cells, place: str) -> list[str]:
    code = next(given.leading_zeros(), None)
    if code is not None:
        row = table.lines[table.column(name).index(code)]
        return [
            f"{place}, row {row}: {code!r} is read as a number; if these are codes, "
            f"{option('categorical', name)} takes them as names."
        ]
    if lost := lost_digits(table, name):
        return [lost]
    plain = table.column(name).plain
    if plain is None or len(plain) <= MANY_CLASSES or plain[0] not in (0, 1):
        return []
    if np.array_equal(plain, np.arange(len(plain)) + plain[0]):
        return [
            f"{place} counts the rows: if it is no more than that, leave it out "
            f"({option('drop', name)})."
        ]
    return []


def lost_digits(table: Table, name: str) -> str:
    """A warning if different numbers of a column become one in float64, else nothing."""
    seen: dict[float, str] = {}
    cells = table.column(name)
    for cell in cells.counts if cells.longest > _DIGITS else ():
        value = as_number(cell) if len(cell) > _DIGITS else None
        if value is None:
            continue
        other = seen.setdefault(value, cell)
        if Decimal(other) != Decimal(cell):
            row = table.lines[cells.index(cell)]
            return (
                f"column {name!r}, row {row}: {cell} and {other} are read as the same number: "
                "about 16 digits are kept. Subtract what they have in common, or take them as "
                f"names ({option('categorical', name)})."
            )
    return ""


def _of_names(table: Table, name: str, different: Mapping[str, int], place: str) -> list[str]:
    leave = option("drop", name)
    example = next(iter(different))
    where = f"{place}, row {table.lines[table.column(name).index(example)]}"
    if like_dates(different):
        return [f"{where}: {example!r} looks like a date and is taken as a name ({leave})."]
    if like_numbers(different):
        return [
            f"{where}: {example!r} looks like a number and is taken as a name, as are "
            f"{len(different) - 1} others. Write plain numbers, or leave the column out ({leave}), "
            f"or say that they are names ({option('categorical', name)})."
        ]
    if len(different) > MOST_CLASSES and len(different) > _IDENTIFIERS * len(table):
        return [
            f"{place} holds {len(different)} names in {len(table)} rows: an identifier? ({leave})"
        ]
    return [*_spellings(different, place), *_mixture(table, name, different, place)]


def _spellings(different: Mapping[str, int], place: str) -> list[str]:
    """Names that differ by capital letters alone."""
    alike: dict[str, str] = {}
    for cell in different:
        other = alike.setdefault(cell.lower(), cell)
        if other != cell:
            return [f"{place}: {other!r} and {cell!r} are taken as different names."]
    return []


def _mixture(table: Table, name: str, different: Mapping[str, int], place: str) -> list[str]:
    numbers = [cell for cell in different if as_number(cell) is not None]
    if 0 < len(numbers) < len(different):
        row = table.lines[table.column(name).index(numbers[0])]
        return [
            f"{place} holds names and numbers ({numbers[0]!r} in row {row}): all are taken as "
            "names."
        ]
    return []


def of_labels(found: Encoding, table: Table, asked: bool) -> list[str]:
    """Warnings about the target.

    Args:
        found: the encoding.
        table: as it was read.
        asked: whether the user has said that it holds classes.
    """
    place, count = f"target {found.target!r}", len(found.classes)
    if found.task == "regression":
        lost = lost_digits(table, found.target)
        return [lost] if lost else []
    if asked:
        return []
    if table.is_numeric(found.target):
        if count <= MANY_CLASSES:
            return []
        return [
            f"{place} holds {count} different whole numbers: each is taken as a class. If they are "
            "amounts, add --task regression."
        ]
    different = table.column(found.target).counts
    if count * 2 > len(table):
        return [f"{place} holds {count} classes in {len(table)} rows: hardly any has two rows."]
    return _spellings(different, place)
