"""The data of `gpubp predict`: inputs as the model takes them, and targets if the file has them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli import summary
from gpubp.cli.dataset import DIGITS, DIGITS_IMAGE, FOLDER, kind_of
from gpubp.cli.failures import BAD_DATA, WRONG_ARGUMENTS, CommandError
from gpubp.cli.tables import read_table
from gpubp.data import ondisk
from gpubp.data.columns import NewNames
from gpubp.data.digits import load_digits
from gpubp.data.encoding import Encoding
from gpubp.data.images import read_images
from gpubp.data.npz import array_names, read_npz
from gpubp.data.table import Table
from gpubp.data.units import check_unit
from gpubp.errors import DataError

_FILL = "Fill them in, or have an empty prediction for such rows (--missing empty)."


@dataclass
class NewData:
    """What to predict from.

    Attributes:
        X: of the rows that have all values.
        rows: which rows of the file those are.
        total: rows of the file.
        scored: which of X have a target that the model can be held against.
        targets: of those: class indices, or numbers.
        notes: what was left out of the score, and why; how numbers were read.
        names: of the rows of the file, where they have some: files of images.
        beside: columns of the file that predictions have beside them.
    """

    X: NDArray[np.float32]
    rows: NDArray[np.int64]
    total: int
    scored: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    targets: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    notes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    beside: dict[str, Sequence[str]] = field(default_factory=dict)


def load(found: Encoding, options: argparse.Namespace, folder: Path | None = None) -> NewData:
    """Read the file of the options; with a folder, tables and what is made of them are kept there.

    Raises:
        GpubpError: it does not fit the model.
    """
    path = options.data
    kind = DIGITS if path == DIGITS else kind_of(path)
    if folder is not None and kind != ".csv":
        raise CommandError(
            WRONG_ARGUMENTS, f"--on-disk is for tables: {path} is none. Leave it out."
        )
    if kind == DIGITS:
        _, X, _, y = load_digits(split=True)
        if found.image:
            X = X.reshape(-1, *DIGITS_IMAGE)
        return _of_arrays(found, X, y, path, options.missing)
    if kind == FOLDER:
        return _of_images(found, path)
    if kind == ".npz":
        has_target = found.target in array_names(path)
        arrays = read_npz(path, ["X", found.target] if has_target else ["X"])
        return _of_arrays(found, arrays["X"], arrays.get(found.target), path, options.missing)
    if not found.columns:
        raise CommandError(BAD_DATA, f"the model was trained on arrays: {path} has columns.")
    table = read_table(options, folder)
    data = _of_table(found, table, options.missing, folder)
    kept = list(table.columns) if options.keep == ["all"] else options.keep
    wanted = [*(name for name in found.ids if name in table.columns), *kept]
    data.beside = {name: table.column(name) for name in wanted}
    return data


def _of_images(found: Encoding, path: str) -> NewData:
    if not found.image:
        raise CommandError(BAD_DATA, f"the model was not trained on images, and {path} is of such.")
    channels, *size = found.image
    images = read_images(path, size if found.resized else None, channels)
    y = None if images.labels is None else np.array(images.labels)
    data = _of_arrays(found, images.pixels, y, path, "error")
    root = Path(path) if Path(path).is_dir() else Path(path).parent
    data.names = [file.relative_to(root).as_posix() for file in images.files]
    return data


def _of_arrays(
    found: Encoding, given: NDArray[Any], y: NDArray[Any] | None, path: str, missing: str
) -> NewData:
    X = found.array(given, "X")
    good = np.isfinite(X).all(axis=tuple(range(1, X.ndim)))
    if not good.all() and (missing != "empty" or not good.any()):
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(X))[0])
        raise CommandError(BAD_DATA, f"{path}: X holds {X[at]} at index {at}. {_FILL}")
    rows = np.flatnonzero(good)
    data = NewData(found.scaled(X[rows]), rows, len(X))
    if y is None:
        return data
    if len(y) != len(X):
        raise CommandError(BAD_DATA, f"{path}: X has {len(X)} samples, {found.target} {len(y)}.")
    y = y[rows]
    if found.task == "classification":
        _score_labels(data, found, y.tolist(), rows)
    elif y.dtype.kind not in "fiub" or y.reshape(len(y), -1).shape[1] != found.outputs:
        data.notes.append(f"no score: {found.target!r} is {y.dtype} of shape {y.shape}.")
    else:
        finite = np.asarray(np.isfinite(y.reshape(len(y), -1).astype(np.float64)).all(axis=1))
        data.scored = np.flatnonzero(finite)
        data.targets = y[data.scored]
        _left_out(data, found, rows, [""] * len(rows), ~finite, "is no finite number")
    return data


def _of_table(found: Encoding, whole: Table, missing: str, folder: Path | None) -> NewData:
    needed = [c.name for c in found.columns if c.fill is None or missing != "mean"]
    complete = np.ones(len(whole), np.bool_)
    for name in needed:
        complete &= ~whole.absent(name)
    if missing != "empty":
        whole.check_complete(needed, _FILL)
    rows = np.flatnonzero(complete)
    if not len(rows):
        raise DataError(f"{whole.path}: every row has a missing value: {whole.gaps(needed)}.")
    table = whole.rows(rows) if len(rows) < len(whole) else whole
    X, notes = _inputs(found, table, folder)
    data = NewData(X, rows, len(whole), notes=notes)
    filled = table.gaps([c.name for c in found.columns if c.fill is not None])
    if filled:
        data.notes.append(f"missing values filled in as in training: {filled}.")
    if len(rows) < len(whole):
        left = len(whole) - len(rows)
        data.notes.append(
            f"no prediction for {left} of {len(whole)} rows with missing values: "
            f"{whole.gaps(needed)}."
        )
    data.notes += _readings(found, whole)
    cells = table.columns.get(found.target)
    if cells is not None:
        _score_cells(data, found, table, cells)
    return data


def _inputs(
    found: Encoding, table: Table, folder: Path | None
) -> tuple[NDArray[np.float32], list[str]]:
    """What the model takes, and what is said of names that training did not have."""
    names = NewNames()
    if folder is None:
        return found.scaled(found.features(table, _FILL, names)), names.said()
    X: NDArray[np.float32] = ondisk.new_array(folder, (len(table), found.width), np.float32)
    start = 0
    for part in table.parts(ondisk.rows_at_once(len(table.columns))):
        X[start : start + len(part)] = found.scaled(found.features(part, _FILL, names))
        start += len(part)
    return X, names.said()


def _readings(found: Encoding, table: Table) -> list[str]:
    """How numbers were read, where that is not plain."""
    units = {column.name: column.unit for column in found.columns if not column.names}
    if found.task == "regression" and found.target in table.columns:
        units[found.target] = found.target_unit
    notes = summary.of_writing(table, list(units)) + summary.doubts(table, list(units))
    for name, unit in units.items():
        writing = table.written.get(name)
        if writing is not None and writing.unit != unit and not (unit and writing.unit):
            has, was = (f"{u!r}" if u else "no unit" for u in (writing.unit, unit))
            notes.append(
                f"column {name!r} has {has}, the training data had {was}: the numbers are taken as "
                "they are."
            )
    return notes


def _score_cells(data: NewData, found: Encoding, table: Table, cells: Sequence[str]) -> None:
    """Compare with the target's column, as far as it can be read."""
    lines, gaps = table.lines, set(table.missing([found.target]).get(found.target, []))
    empty = np.array([i in gaps for i in range(len(cells))])
    if found.task == "classification":
        _score_labels(data, found, cells, lines, empty)
        return
    writing = table.written.get(found.target)
    try:
        if writing is None or writing.problem:
            raise DataError(writing.problem if writing else "it holds no numbers.")
        check_unit(table, found.target, found.target_unit)
    except DataError as error:
        data.notes.append(f"no score by {found.target!r}: {error}")
        return
    numbers = [None if empty[i] else writing.number(cell) for i, cell in enumerate(cells)]
    values = np.array([np.nan if n is None else n for n in numbers], np.float64)
    good = np.isfinite(values)
    data.scored, data.targets = np.flatnonzero(good), values[good]
    _left_out(data, found, lines, cells, empty, "has no value")
    _left_out(data, found, lines, cells, ~good & ~empty, "is no finite number")


def _score_labels(
    data: NewData,
    found: Encoding,
    labels: Sequence[Any],
    lines: Sequence[int] | NDArray[np.int64],
    empty: NDArray[np.bool_] | None = None,
) -> None:
    known = found.known_labels(labels)
    if empty is None:
        empty = np.zeros(len(known), np.bool_)
    empty = empty & (known < 0)
    data.scored = np.flatnonzero(known >= 0)
    data.targets = known[data.scored]
    _left_out(data, found, lines, labels, empty, "has no value")
    unknown = (known < 0) & ~empty
    _left_out(data, found, lines, labels, unknown, "was not among the labels of training")


def _left_out(
    data: NewData,
    found: Encoding,
    lines: Sequence[int] | NDArray[np.int64],
    cells: Sequence[Any],
    which: NDArray[np.bool_],
    why: str,
) -> None:
    """Note rows that the score leaves out."""
    count = int(which.sum())
    if count:
        first = int(np.argmax(which))
        what = f" ({cells[first]!r}, row {lines[first]})" if cells[first] else ""
        what = what or f" (first: row {lines[first]})"
        data.notes.append(
            f"{count} of {len(cells)} rows are not in the score: {found.target!r} {why}{what}."
        )
