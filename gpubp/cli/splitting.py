"""A data set in parts: to train on, held out, and perhaps a third one to judge by."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli import doubtful, held_out, summary
from gpubp.cli.failures import BAD_DATA, CommandError
from gpubp.cli.folds import parts, shares
from gpubp.data import encoding as encodings
from gpubp.data.columns import filled, with_fills
from gpubp.data.encoding import Encoding
from gpubp.data.scaling import Standardizer
from gpubp.data.table import Table
from gpubp.data.textfile import named

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


def split(
    options: argparse.Namespace,
    found: Encoding,
    X: NDArray[Any],
    y: NDArray[Any],
    unit: str,
    table: Table | None = None,
) -> Dataset:
    """Hold parts out, and fill in and standardise by what is left."""
    _check_varies(options, found, y, unit, table)
    kept, *others = _parts(options, found, y, unit)
    if found.columns:
        found.columns = with_fills(found.columns, X[kept])
        X = filled(found.columns, X)
    for name, array in (("X", X), (found.target, y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            where = f"{name} holds {array[at]} at index {at}"
            raise CommandError(BAD_DATA, f"{named(options.data)}: {where}.")
    if options.standardize:
        found.scale = Standardizer.fit(X[kept], encodings.numeric_columns(found))
    if found.task == "regression":
        found.target_scale = Standardizer.fit(y[kept].reshape(len(kept), -1))
    rows = [kept, *others]
    made = [(found.scaled(X[r]), found.scaled_targets(y[r])) for r in rows]
    said = [
        summary.of_file(options.data, unit, [len(r) for r in rows], table),
        summary.of_target(found, y),
        summary.of_inputs(found, list(dict.fromkeys([*options.drop, *found.ids]))),
    ]
    places = [int(i) if table is None else table.lines[i] for i in [*kept, *others[-1]]]
    warnings = held_out.of_split(found, (y[kept], y[others[-1]]), unit, places)
    held = made[1] if len(others[0]) else None
    return Dataset(made[0], held, found, unit, said, warnings, made[2] if made[2:] else None)
