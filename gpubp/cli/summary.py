"""How a data file was read, in words: three lines before training, and warnings.

What a reader of the file would see at once, and a program would not: identifiers taken for names,
dates, codes, columns that are the same everywhere, numbers written in another manner.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data import dates
from gpubp.data.columns import Column
from gpubp.data.encoding import MOST_CLASSES, Encoding
from gpubp.data.numerals import COMMA, as_number, like_numbers
from gpubp.data.table import Table
from gpubp.data.textfile import named

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SHOWN_CLASSES, _SHOWN_COLUMNS, SHOWN = 8, 12, 5
# Whole numbers are classes up to `encoding.MOST_CLASSES`; from here on that is worth a word.
MANY_CLASSES = 10
# Above this share of rows with a name of their own, a column says who, not what.
_IDENTIFIERS = 0.5
_DIGITS = 15  # a number of no more is exactly one of float64
_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T].*)?|\d{1,2}:\d{2}(?::\d{2}.*)?|\d{4}-\d{2}"
    r"|\d{1,2}[. -]+[A-Za-z]{3,9}[., -]+\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}"
)


def warn(text: str) -> None:
    """Say on stderr what may be wrong although work goes on."""
    print(f"warning: {' '.join(text.split())}", file=sys.stderr)


def option(name: str, value: object) -> str:
    """An option as it is typed."""
    return f"--{name} {shlex.quote(str(value))}"


def counted(number: int, unit: str) -> str:
    """`1 row`, `1,000 rows`."""
    return f"{number:,} {unit.removesuffix('s') if number == 1 else unit}"


def of_file(path: str, unit: str, counts: Sequence[int], table: Table | None = None) -> str:
    """The first line: how much there is.

    Args:
        path: of the file.
        unit: what a sample is called.
        counts: samples to train on, held out, and perhaps of a third part.
        table: of a CSV file.
    """
    text = f"{named(path)}: {counts[0]:,} {unit} to train on, {counts[1]:,} held out"
    if len(counts) > 2:
        text += f" to stop by, {counts[2]:,} to test"
    if table is None:
        return text
    commas = any(w.decimal == COMMA for w in table.written.values())
    separator = _SEPARATORS.get(table.delimiter, repr(table.delimiter))
    return f"{text}; columns separated by {separator}{', decimal commas' if commas else ''}"


def of_target(found: Encoding, y: NDArray[Any]) -> str:
    """The second line: what is to be learned.

    Args:
        found: the encoding.
        y: class indices, or numbers.
    """
    if found.task == "regression":
        unit = f" in {found.target_unit!r}" if found.target_unit else ""
        values = f"{y.min():.6g} to {y.max():.6g}{unit}"
        return f"regression of {found.target!r}, {values} (the loss is of standardised targets)"
    counts = np.bincount(y, minlength=len(found.classes))
    shown = [f"{c} {n:,}" for c, n in zip(found.classes, counts)][:_SHOWN_CLASSES]
    more = ", ..." if len(found.classes) > _SHOWN_CLASSES else ""
    kinds = f"{len(found.classes)} classes ({', '.join(shown)}{more})"
    return f"classification of {found.target!r}, {kinds}"


def of_inputs(found: Encoding, left_out: Sequence[str]) -> str:
    """The third line: what it is learned from."""
    text = f"from {counted(found.width, 'inputs')}"
    if found.image:
        sizes = " x ".join(map(str, found.image))
        text = f"from images of {sizes} (channels, height, width)"
        text += "" if found.scale is None else ", standardised by channel"
    if found.columns:
        shown = [_column(column) for column in found.columns[:_SHOWN_COLUMNS]]
        more = len(found.columns) - len(shown)
        columns, inputs = counted(len(found.columns), "columns"), counted(found.width, "inputs")
        text = f"from {columns}, {inputs}: {', '.join(shown)}"
        text += f", and {more} more" if more else ""
    return text + (f"; left out: {', '.join(left_out)}" if left_out else "")


def _column(column: Column) -> str:
    if column.date:
        return f"{column.name} (date: {', '.join(column.parts)})"
    if not column.names:
        return f"{column.name} ({f'number in {column.unit!r}' if column.unit else 'number'})"
    doubt = ": dates?" if _dates(column.names) else ""
    rest = " and the rest" if column.rest else ""
    return f"{column.name} ({counted(len(column.names), 'names')}{rest}{doubt})"


def of_gaps(table: Table, found: Encoding) -> list[str]:
    """What missing values became: nothing, or one line."""
    gaps = table.gaps([column.name for column in found.columns if column.mark])
    text = f"missing values filled in (numbers by the mean) and marked by an input more: {gaps}"
    return [text] if gaps else []


def of_writing(table: Table, names: Sequence[str]) -> list[str]:
    """How numbers were read that are not written as Python writes them: nothing, or one line."""
    parts = []
    for name in names:
        cell, place = table.example(name)
        writing = table.written.get(name)
        number = writing.number(cell) if writing is not None and cell else None
        if writing is not None and number is not None and not writing.doubt:
            unit = f" in {writing.unit!r}" if writing.unit else ""
            parts.append(
                f"{cell!r} ({place.removeprefix(f'{table.path}, ')}) as {number:.10g}{unit}"
            )
    more = f"; and {len(parts) - SHOWN} columns more" if len(parts) > SHOWN else ""
    return [f"read {'; '.join(parts[:SHOWN])}{more}"] if parts else []


def doubts(table: Table, names: Sequence[str]) -> list[str]:
    """Warnings: numbers that may be meant otherwise."""
    found = []
    for name in names:
        writing = table.written.get(name)
        if writing is not None and writing.doubt:
            cell, place = table.example(name)
            found.append(f"{place}: {cell!r} is read as {writing.doubt}.")
    return found


def of_columns(table: Table, found: Encoding, declared: Sequence[str]) -> list[str]:
    """Warnings about the columns that a model is to learn from.

    Args:
        table: as it was read.
        found: its encoding.
        declared: columns that the user has said to hold names.
    """
    warnings = []
    for column in found.columns:
        different = Counter(table.given(column.name))
        place = f"column {column.name!r}"
        leave = option("drop", column.name)
        if len(different) == 1:
            same = next(iter(different))
            warnings.append(f"{place} is {same!r} in every row: it says nothing ({leave}).")
        elif column.date:
            warnings += _of_dates(column, list(different), place)
        elif not column.names:
            warnings += _of_numbers(table, column.name, list(different), place)
        elif column.rest:
            warnings.append(
                f"{place} holds {len(different):,} names: the {len(column.names)} most frequent "
                "are inputs, the rest is one more."
            )
        elif column.name not in declared:
            warnings += _of_names(table, column.name, different, place)
    return warnings


def _of_dates(column: Column, different: Sequence[str], place: str) -> list[str]:
    form, other = dates.format_of(different)
    if not other:
        return []
    return [
        f"{place}: {different[0]!r} is read as {form}; it could be {other} as well. If it is, "
        "write dates as 2024-12-31."
    ]


def _of_numbers(table: Table, name: str, different: Sequence[str], place: str) -> list[str]:
    code = next((c for c in different if c[:1] == "0" and len(c) > 1 and c.isdecimal()), None)
    if code is not None:
        row = table.lines[table.column(name).index(code)]
        return [
            f"{place}, row {row}: {code!r} is read as a number; if these are codes, "
            f"{option('categorical', name)} takes them as names."
        ]
    if lost := lost_digits(table, name):
        return [lost]
    cells = table.column(name)
    first = as_number(cells[0]) if len(cells) > MANY_CLASSES else None
    if first in (0, 1) and all(as_number(c) == i + (first or 0) for i, c in enumerate(cells)):
        return [
            f"{place} counts the rows: if it is no more than that, leave it out "
            f"({option('drop', name)})."
        ]
    return []


def lost_digits(table: Table, name: str) -> str:
    """A warning if different numbers of a column become one in float64, else nothing."""
    seen: dict[float, str] = {}
    for cell in dict.fromkeys(table.column(name)):
        value = as_number(cell) if len(cell) > _DIGITS else None
        if value is None:
            continue
        other = seen.setdefault(value, cell)
        if Decimal(other) != Decimal(cell):
            row = table.lines[table.column(name).index(cell)]
            return (
                f"column {name!r}, row {row}: {cell} and {other} are read as the same number: "
                "about 16 digits are kept. Subtract what they have in common, or take them as "
                f"names ({option('categorical', name)})."
            )
    return ""


def _of_names(table: Table, name: str, different: Counter[str], place: str) -> list[str]:
    leave = option("drop", name)
    example = next(iter(different))
    where = f"{place}, row {table.lines[table.column(name).index(example)]}"
    if _dates(different):
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


def _spellings(different: Counter[str], place: str) -> list[str]:
    """Names that differ by capital letters alone."""
    alike: dict[str, str] = {}
    for cell in different:
        other = alike.setdefault(cell.lower(), cell)
        if other != cell:
            return [f"{place}: {other!r} and {cell!r} are taken as different names."]
    return []


def _mixture(table: Table, name: str, different: Counter[str], place: str) -> list[str]:
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
    different = Counter(table.column(found.target))
    if count * 2 > len(table):
        return [f"{place} holds {count} classes in {len(table)} rows: hardly any has two rows."]
    return _spellings(different, place)


def _dates(names: Sequence[str] | Counter[str]) -> bool:
    return sum(bool(_DATE.fullmatch(name)) for name in names) * 2 > len(names)
