"""What the columns of a table are: the encoding of a file that is seen for the first time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpubp.data.columns import column_of, different_cells
from gpubp.data.encoding import MOST_CLASSES, TASKS, Encoding
from gpubp.data.gaps import is_missing
from gpubp.data.numerals import POINT, as_number, label_key
from gpubp.data.table import Table
from gpubp.errors import DataError, unknown_name


def of_table(
    table: Table,
    target: str,
    task: str = "auto",
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    fill: bool = False,
) -> Encoding:
    """Find out what the columns of a table are.

    Args:
        table: complete in all columns that are not dropped, or with `fill` in the target.
        target: the column to predict.
        task: "auto" takes texts and few different whole numbers for classes.
        drop: columns to leave out.
        categorical: columns that hold names even if they look like numbers.
        fill: missing values are filled in, with what `columns.with_fills` measures.

    Raises:
        UnknownNameError: a column or task that does not exist.
        DataError: nothing left to learn from, or a column of too many names.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    for name in (target, *drop, *categorical):
        table.column(name)
    names = [name for name in table.columns if name != target and name not in drop]
    if not names:
        raise DataError(f"{table.path} has no column left to predict {target!r} from.")
    columns = [column_of(table, name, name in categorical, fill) for name in names]
    cells = table.column(target)
    if task == "auto":
        task = "classification" if target in categorical else _task_of(table, target)
    classes = different_cells(cells) if task == "classification" else []
    width = sum(column.width for column in columns)
    unit = table.written[target].unit if task == "regression" and table.is_numeric(target) else ""
    return Encoding(task, target, columns, width, classes, len(classes) or 1, target_unit=unit)


def _task_of(table: Table, target: str) -> str:
    if not table.is_numeric(target):
        return "classification"
    writing = table.written[target]
    if writing.unit or writing.problem:
        return "regression"
    cells = table.column(target)
    plain = cells.plain if writing.decimal == POINT else None
    if plain is not None and (np.isinf(plain) | (plain != np.floor(plain)))[~cells.absent].any():
        return "regression"  # at once, without a look at each of many different numbers
    values = {cell: writing.number(cell) for cell in cells.counts if not is_missing(cell)}
    whole = all(value is not None and value.is_integer() for value in values.values())
    # Long numbers that differ in the last digit are different, though float64 has one for both.
    different = len(
        {value if as_number(c) is None else label_key(c) for c, value in values.items()}
    )
    few = different <= MOST_CLASSES and different * 2 <= len(cells)
    return "classification" if whole and few else "regression"
