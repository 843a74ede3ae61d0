"""How a data file was read, in words: three lines before training, and warnings.

What a reader of the file would see at once, and a program would not: identifiers taken for names,
dates, codes, columns that are the same everywhere, numbers written in another manner.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data.columns import Column
from gpubp.data.encoding import Encoding
from gpubp.data.numerals import COMMA
from gpubp.data.table import Table
from gpubp.data.textfile import named

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
_SHOWN_CLASSES, _SHOWN_COLUMNS, SHOWN = 8, 12, 5
# Whole numbers are classes up to `encoding.MOST_CLASSES`; from here on that is worth a word.
MANY_CLASSES = 10
_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T].*)?|\d{1,2}:\d{2}(?::\d{2}.*)?|\d{4}-\d{2}"
    r"|\d{1,2}[. -]+[A-Za-z]{3,9}[., -]+\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}"
)


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
    text += f"; columns separated by {separator}{', decimal commas' if commas else ''}"
    if table.comments:
        text += f"; {counted(table.comments, 'lines')} of comment left out"
    return text


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
    doubt = ": dates?" if like_dates(column.names) else ""
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


def like_dates(names: Sequence[str] | Mapping[str, int]) -> bool:
    """Whether most of these texts look like dates."""
    return sum(bool(_DATE.fullmatch(name)) for name in names) * 2 > len(names)
