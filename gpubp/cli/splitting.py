"""A data set in parts: to train on, held out, and perhaps a third one to judge by."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli import held_out, summary
from gpubp.cli.failures import BAD_DATA, CommandError
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


def shares(
    y: NDArray[Any], parts: Sequence[float], seed: int, classes: bool = True
) -> list[NDArray[np.int64]]:
    """Rows of what is left and of each part, in a random order.

    With classes the parts are stratified: each gets its share of every class, as far as whole rows
    allow; those that are left go to the classes with the largest rest.

    Args:
        y: class indices, or numbers.
        parts: shares of the rows; a part has so many, rounded up.
        seed: of the order.
        classes: what y is.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    found = []
    for share in parts:
        count = math.ceil(share * len(y))
        held = _stratified(y[order], count) if classes else np.arange(count)
        found.append(order[held])
        order = np.delete(order, held)
    return [order, *found]


def _stratified(y: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Positions of `count` rows: the first ones of each class, as many as is its share."""
    classes, which = np.unique(y, return_inverse=True)
    sizes = np.bincount(which, minlength=len(classes))
    wanted = sizes * count / max(len(y), 1)
    taken = np.floor(wanted).astype(np.int64)
    rest = np.where(sizes > 1, wanted - taken, -1.0)  # a class of one row is there to be learned
    for c in np.argsort(-rest, kind="stable")[: count - int(taken.sum())]:
        taken[c] += 1
    rank = np.zeros(len(y), np.int64)
    for c in range(len(classes)):
        rank[which == c] = np.arange(sizes[c])
    return np.flatnonzero(rank < taken[which])


def _check_varies(
    options: argparse.Namespace, found: Encoding, y: NDArray[Any], unit: str, table: Table | None
) -> None:
    """Raise CommandError for a target that is the same everywhere."""
    same = len(found.classes) == 1 if found.task == "classification" else bool((y == y[0]).all())
    if same:
        if table is not None and (lost := summary.lost_digits(table, found.target)):
            raise CommandError(BAD_DATA, f"{options.data}: {lost}")
        value = found.classes[0] if found.classes else y[0].tolist()
        raise CommandError(
            BAD_DATA,
            f"{named(options.data)}: {found.target!r} is {value!r} in all {len(y)} {unit}: there "
            "is nothing to learn. Name another target, or find data in which it varies.",
        )


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
    wanted = [options.validation, *([options.test] if options.test else [])]
    if sum(math.ceil(share * len(X)) for share in wanted) >= len(X):
        raise CommandError(
            BAD_DATA, f"{named(options.data)} has {len(X)} {unit}: too few to hold some out."
        )
    kept, *others = shares(y, wanted, options.seed, found.task == "classification")
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
    parts = [(found.scaled(X[r]), found.scaled_targets(y[r])) for r in rows]
    said = [
        summary.of_file(options.data, unit, [len(r) for r in rows], table),
        summary.of_target(found, y),
        summary.of_inputs(found, list(dict.fromkeys([*options.drop, *found.ids]))),
    ]
    places = [int(i) if table is None else table.lines[i] for i in [*kept, *others[-1]]]
    warnings = held_out.of_split(found, (y[kept], y[others[-1]]), unit, places)
    held = parts[1] if len(others[0]) else None
    return Dataset(parts[0], held, found, unit, said, warnings, parts[2] if parts[2:] else None)
