"""A data set in parts: to train on, held out, and perhaps a third one to judge by."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli import doubtful, held_out, summary
from gpubp.cli.failures import BAD_DATA, CommandError
from gpubp.cli.folds import parts, shares
from gpubp.data import encoding as encodings
from gpubp.data import ondisk
from gpubp.data.checks import check_finite
from gpubp.data.columns import fill_in, with_fills
from gpubp.data.encoding import Encoding
from gpubp.data.scaling import PART_ROWS, Standardizer
from gpubp.data.table import Table
from gpubp.data.textfile import named
from gpubp.errors import DataError

_Arrays = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Dataset:
    """What to train on.

    Attributes:
        train: X and targets, as the model takes them.
        held_out: the same for the part held out; None if there is none.
        encoding: how they were made.
        unit: what a sample is called.
        said: how it was read, line by line.
        warnings: what may be wrong with it.
        test: a third part, where the one held out decides when to stop; None if there is none.
    """

    train: _Arrays
    held_out: _Arrays | None
    encoding: Encoding
    unit: str
    said: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    test: _Arrays | None = None

    @property
    def judged(self) -> tuple[str, _Arrays]:
        """The part that the last line is about, and its name."""
        if self.test is not None:
            return "test", self.test
        return ("training", self.train) if self.held_out is None else ("held-out", self.held_out)


def _check_varies(
    options: argparse.Namespace, found: Encoding, y: NDArray[Any], unit: str, table: Table | None
) -> None:
    """Raise CommandError for a target that is the same everywhere."""
    same = len(found.classes) == 1 if found.task == "classification" else bool((y == y[0]).all())
    if same:
        if table is not None and (lost := doubtful.lost_digits(table, found.target)):
            raise CommandError(BAD_DATA, f"{options.data}: {lost}")
        value = found.classes[0] if found.classes else y[0].tolist()
        raise CommandError(
            BAD_DATA,
            f"{named(options.data)}: {found.target!r} is {value!r} in all {len(y)} {unit}: there "
            "is nothing to learn. Name another target, or find data in which it varies.",
        )


def _parts(
    options: argparse.Namespace, found: Encoding, y: NDArray[Any], unit: str
) -> list[NDArray[np.int64]]:
    """Rows to train on, those held out, and perhaps those of the test."""
    classes = found.task == "classification"
    if getattr(options, "fold", None) is not None:
        return parts(options, y, classes)
    wanted = [options.validation, *([options.test] if options.test else [])]
    if sum(math.ceil(share * len(y)) for share in wanted) >= len(y):
        raise CommandError(
            BAD_DATA, f"{named(options.data)} has {len(y)} {unit}: too few to hold some out."
        )
    return shares(y, wanted, options.seed, classes)


def _check_finite(options: argparse.Namespace, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise CommandError at the first NaN or infinity."""
    try:
        for name, array in arrays.items():
            check_finite(array, name)
    except DataError as error:
        raise CommandError(BAD_DATA, f"{named(options.data)}: {error}") from error


def _scaled(
    found: Encoding, X: NDArray[Any], rows: NDArray[np.int64] | None, folder: Path | None
) -> NDArray[np.float32]:
    """Rows of X, or all, as the model takes them, made part by part."""
    count = len(X) if rows is None else len(rows)
    out: NDArray[np.float32] = ondisk.new_array(folder, (count, *X.shape[1:]), np.float32)
    for i in range(0, count, PART_ROWS):
        part = slice(i, i + PART_ROWS)
        out[part] = found.scaled(X[part if rows is None else rows[part]])
    return out


def split(
    options: argparse.Namespace,
    found: Encoding,
    X: NDArray[Any],
    y: NDArray[Any],
    unit: str,
    table: Table | None = None,
    folder: Path | None = None,
) -> Dataset:
    """Hold parts out, and fill in and standardise by what is left; X is written on.

    With a folder X is mapped from a file there, and so are the parts.
    """
    _check_varies(options, found, y, unit, table)
    rows = kept, *others = _parts(options, found, y, unit)
    # Drawn at random: looked up in a file one by one, each would be a page read from the disk.
    drawn = [(X, r) if folder is None else (ondisk.in_order(folder, X, r), None) for r in rows]
    if found.columns:
        found.columns = with_fills(found.columns, *drawn[0])
        for array in [X] if folder is None else [X, *(array for array, _ in drawn)]:
            fill_in(found.columns, array)
    _check_finite(options, {"X": X, found.target: y})
    if options.standardize:
        found.scale = Standardizer.fit(drawn[0][0], encodings.numeric_columns(found), drawn[0][1])
    if found.task == "regression":
        found.target_scale = Standardizer.fit(y.reshape(len(y), -1), None, kept)
    scaled = [_scaled(found, array, some, folder) for array, some in drawn]
    made = [(part, found.scaled_targets(y[r])) for part, r in zip(scaled, rows, strict=True)]
    said = [
        summary.of_file(options.data, unit, [len(r) for r in rows], table),
        summary.of_target(found, y),
        summary.of_inputs(found, list(dict.fromkeys([*options.drop, *found.ids]))),
    ]
    places = np.concatenate([kept, others[-1]])
    if table is not None:
        places = np.asarray(table.lines, np.int64)[places]
    warnings = held_out.of_split(found, (y[kept], y[others[-1]]), unit, places)
    held = made[1] if len(others[0]) else None
    return Dataset(made[0], held, found, unit, said, warnings, made[2] if made[2:] else None)
