"""The data of a command: read, described, split, standardised."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli.failures import BAD_DATA, WRONG_ARGUMENTS, CommandError
from gpubp.data import encoding as encodings
from gpubp.data.digits import load_digits
from gpubp.data.encoding import Encoding
from gpubp.data.npz import array_names, read_npz
from gpubp.data.scaling import Standardizer
from gpubp.data.table import Table, looks_numeric, read_csv

DIGITS = "digits"
_Arrays = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Dataset:
    """What to train on.

    Attributes:
        train: X and targets, as the model takes them.
        held_out: the same for the part held out; None if there is none.
        encoding: how they were made.
        unit: what a sample is called.
    """

    train: _Arrays
    held_out: _Arrays | None
    encoding: Encoding
    unit: str


def load(options: argparse.Namespace) -> Dataset:
    """The data set that `gpubp train` was given.

    Raises:
        GpubpError: it cannot be used; says why.
    """
    if options.data == DIGITS:
        return _digits()
    if kind_of(options.data) == ".npz":
        return _of_npz(options)
    return _of_csv(options)


def kind_of(path: str) -> str:
    """The ending of a data file. Raises CommandError for others than .csv and .npz."""
    ending = Path(path).suffix.lower()
    if ending in (".csv", ".tsv", ".txt"):
        return ".csv"
    if ending != ".npz":
        raise CommandError(
            WRONG_ARGUMENTS,
            f"data {path!r}: expected {DIGITS}, or a file that ends in .csv or .npz.",
        )
    return ending


def _digits() -> Dataset:
    X, X_test, y, y_test = load_digits(split=True)
    found = encodings.of_arrays(X, y, "y", "classification")
    return Dataset((X, y), (X_test, y_test), found, "images")


def _of_csv(options: argparse.Namespace) -> Dataset:
    table = read_csv(options.data)
    target = options.target
    if target is None:
        raise CommandError(
            WRONG_ARGUMENTS,
            f"--target is missing: which of {', '.join(table.columns)} is to be predicted?",
        )
    table.column(target)
    used = [name for name in table.columns if name not in options.drop]
    if options.missing == "drop":
        table = table.complete_rows(used)
    table.check_complete([name for name in used if name in table.columns])
    found = encodings.of_table(table, target, options.task, options.drop, options.categorical)
    return _split(options, found, found.features(table), _targets(found, table), "rows")


def _targets(found: Encoding, table: Table) -> NDArray[Any]:
    if found.task == "classification":
        return found.labels(table.column(found.target), table)
    return table.numbers(found.target)


def _of_npz(options: argparse.Namespace) -> Dataset:
    target = options.target or "y"
    arrays = read_npz(options.data, ["X", target])
    X, y = arrays["X"], arrays[target]
    found = encodings.of_arrays(X, y, target, options.task)
    targets = found.labels(y.tolist()) if found.task == "classification" else y
    return _split(options, found, found.array(X, "X"), targets, "samples")


def _split(
    options: argparse.Namespace,
    found: Encoding,
    X: NDArray[np.float64],
    y: NDArray[Any],
    unit: str,
) -> Dataset:
    """Hold a part out, and standardise by what is left."""
    for name, array in (("X", X), (found.target, y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise CommandError(BAD_DATA, f"{options.data}: {name} holds {array[at]} at index {at}.")
    order = np.random.default_rng(options.seed).permutation(len(X))
    count = math.ceil(options.validation * len(X))
    if count >= len(X):
        raise CommandError(
            BAD_DATA, f"{options.data} has {len(X)} {unit}: too few to hold some out."
        )
    held, kept = order[:count], order[count:]
    if options.standardize:
        found.scale = Standardizer.fit(X[kept], encodings.numeric_columns(found))
    if found.task == "regression":
        found.target_scale = Standardizer.fit(y[kept].reshape(len(kept), -1))
    parts = [(found.scaled(X[rows]), found.scaled_targets(y[rows])) for rows in (kept, held)]
    return Dataset(parts[0], parts[1] if count else None, found, unit)


def features(found: Encoding, path: str, name: str = "X") -> tuple[NDArray[np.float32], Any]:
    """X of a file to predict from, and its targets if it has them: labels or numbers, else None.

    Raises:
        GpubpError: the file does not fit the model.
    """
    if path == DIGITS:
        _, X, _, y = load_digits(split=True)
        return found.scaled(found.array(X, name)), y.tolist()
    if kind_of(path) == ".npz":
        has_target = found.target in array_names(path)
        arrays = read_npz(path, [name, found.target] if has_target else [name])
        X = found.array(arrays[name], name)
        if not np.isfinite(X).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(X))[0])
            raise CommandError(BAD_DATA, f"{path}: {name} holds {X[at]} at index {at}.")
        return found.scaled(X), arrays[found.target].tolist() if has_target else None
    if not found.columns:
        raise CommandError(BAD_DATA, f"the model was trained on arrays: {path} has columns.")
    table = read_csv(path)
    X = found.features(table)
    given = table.columns.get(found.target)
    if given is None or table.missing([found.target]):
        return found.scaled(X), None
    known = found.task == "classification" or looks_numeric(given)
    numbers = (
        table.numbers(found.target).tolist() if found.task == "regression" and known else given
    )
    return found.scaled(X), numbers if known else None
