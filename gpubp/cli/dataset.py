"""The data of a command: read, described, split, standardised."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli import held_out, summary
from gpubp.cli.failures import BAD_DATA, WRONG_ARGUMENTS, CommandError
from gpubp.data import encoding as encodings
from gpubp.data.digits import load_digits
from gpubp.data.encoding import Encoding
from gpubp.data.images import ENDINGS, read_images
from gpubp.data.npz import read_npz
from gpubp.data.numerals import COMMA, POINT, like_numbers
from gpubp.data.scaling import Standardizer
from gpubp.data.table import Table, read_csv

DIGITS, FOLDER, CNN = "digits", "folder", "cnn"
DIGITS_IMAGE = (1, 8, 8)
DECIMALS = {"auto": None, "point": POINT, "comma": COMMA}
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
    """

    train: _Arrays
    held_out: _Arrays | None
    encoding: Encoding
    unit: str
    said: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load(options: argparse.Namespace) -> Dataset:
    """The data set that `gpubp train` was given.

    Raises:
        GpubpError: it cannot be used; says why.
    """
    if options.data == DIGITS:
        _check_unused(options, DIGITS, {**_OF_COLUMNS, **_OF_FILES})
        return _digits(options.model == CNN)
    kind = kind_of(options.data)
    if kind == FOLDER:
        _check_unused(options, "a folder of images", _OF_COLUMNS)
        return _of_folder(options)
    if kind == ".npz":
        _check_unused(options, "an NPZ file", _OF_COLUMNS)
        return _of_npz(options)
    if options.model == CNN:
        raise CommandError(
            WRONG_ARGUMENTS, f"--model {CNN} is for images: an NPZ file, a folder, or {DIGITS}."
        )
    return _of_csv(options)


# Options that only some data have a use for, and what they are if they were not given.
_OF_COLUMNS = {"drop": [], "categorical": [], "missing": "error", "decimal": "auto"}
_OF_FILES = {"target": None, "validation": 0.2}


def _check_unused(options: argparse.Namespace, what: str, defaults: Mapping[str, Any]) -> None:
    """Raise CommandError for an option that would be ignored."""
    for name, default in defaults.items():
        if getattr(options, name) != default:
            only = "files" if name in _OF_FILES else "CSV files"
            raise CommandError(
                WRONG_ARGUMENTS,
                f"--{name} is for {only}, and means nothing for {what}. Leave it out.",
            )


def kind_of(path: str) -> str:
    """The ending of a data file, or "folder"; an image counts as a folder of one.

    Raises:
        CommandError: another ending.
    """
    if Path(path).is_dir():
        return FOLDER
    ending = Path(path).suffix.lower()
    if ending in (".csv", ".tsv", ".txt"):
        return ".csv"
    if ending in ENDINGS:
        return FOLDER
    if ending != ".npz":
        raise CommandError(
            WRONG_ARGUMENTS,
            f"data {path!r}: expected {DIGITS}, or a file that ends in .csv or .npz, or a folder "
            "of images.",
        )
    return ending


def _digits(images: bool) -> Dataset:
    X, X_test, y, y_test = load_digits(split=True)
    if images:
        X, X_test = (a.reshape(-1, *DIGITS_IMAGE) for a in (X, X_test))
    found = encodings.of_arrays(X, y, "y", "classification", images)
    said = [
        summary.of_file(DIGITS, "images", (len(y), len(y_test))),
        summary.of_target(found, np.concatenate([y, y_test])),
        summary.of_inputs(found, []),
    ]
    return Dataset((X, y), (X_test, y_test), found, "images", said)


def _of_csv(options: argparse.Namespace) -> Dataset:
    whole = read_csv(options.data, decimal=DECIMALS[options.decimal])
    target = options.target
    if target is None:
        raise CommandError(
            WRONG_ARGUMENTS,
            f"--target is missing: which of {', '.join(whole.columns)} is to be predicted?",
        )
    whole.column(target)
    if target in options.drop:
        raise CommandError(WRONG_ARGUMENTS, f"--drop {target}: it is the target.")
    used = [name for name in whole.columns if name not in options.drop]
    table, dropped = _complete(options, whole, used)
    gaps = "mark" if options.missing == "mark" else "error"
    found = encodings.of_table(table, target, options.task, options.drop, options.categorical, gaps)
    _check_amounts(options, found, table)
    X, y = found.features(table), _targets(found, table)
    declared = [*options.categorical, *([target] if options.task == "classification" else [])]
    warnings = [
        *dropped,
        *summary.doubts(table, [n for n in used if n not in declared]),
        *summary.of_columns(table, found, declared),
        *summary.of_labels(found, table, target in declared),
    ]
    made = _split(options, found, X, y, "rows", table)
    made.said.extend(summary.of_writing(table, [n for n in used if n not in declared]))
    made.warnings[:0] = warnings
    return made


def _complete(
    options: argparse.Namespace, table: Table, used: Sequence[str]
) -> tuple[Table, list[str]]:
    """The rows without gaps in the columns that are used, and what was left out for it."""
    if options.missing == "drop":
        kept = table.complete_rows(used)
        left = len(table) - len(kept)
        text = (
            f"{options.data}: {left:,} of {len(table):,} rows left out: values are missing in "
            f"{table.gaps(used)}. --drop NAME leaves out a column instead."
        )
        return kept, [text] if left else []
    if options.missing == "mark":
        table.check_complete([options.target], "Fill them in, or leave out those rows.")
        return table, []
    rows = "leave out those rows (--missing drop)"
    only = list(table.missing(used)) == [options.target]
    advice = (
        f"{rows}." if only else f"{rows} or columns (--drop NAME), or mark them (--missing mark)."
    )
    table.check_complete(used, f"Fill them in, or {advice}")
    return table, []


def _check_amounts(options: argparse.Namespace, found: Encoding, table: Table) -> None:
    """Raise CommandError if the classes look like numbers that could not be read."""
    target, count = found.target, len(found.classes)
    asked = options.task == "classification" or target in options.categorical
    if asked or table.is_numeric(target) or count <= encodings.MOST_CLASSES:
        return
    if like_numbers(found.classes):
        cell = table.column(target)[0]
        raise CommandError(
            BAD_DATA,
            f"{table.where(0, target)}: {cell!r} and {count - 1} other values look like numbers "
            "that cannot be read as such. Write plain numbers, or add --task classification.",
        )


def _targets(found: Encoding, table: Table) -> NDArray[Any]:
    if found.task == "classification":
        return found.labels(table.column(found.target), table)
    return table.numbers(found.target)


def _of_npz(options: argparse.Namespace) -> Dataset:
    target = options.target or "y"
    arrays = read_npz(options.data, ["X", target])
    X, y = arrays["X"], arrays[target]
    found = encodings.of_arrays(X, y, target, options.task, options.model == CNN)
    targets = found.labels(y.tolist()) if found.task == "classification" else y
    return _split(options, found, found.array(X, "X"), targets, "samples")


def _of_folder(options: argparse.Namespace) -> Dataset:
    if options.target is not None or options.task == "regression":
        raise CommandError(
            WRONG_ARGUMENTS,
            f"{options.data}: the classes of a folder of images are its subfolders; leave out "
            "--target and --task.",
        )
    images = read_images(options.data, options.image_size)
    if images.labels is None:
        raise CommandError(
            BAD_DATA, f"{options.data}: expected one subfolder of images for each class."
        )
    y = np.array(images.labels)
    found = encodings.of_arrays(images.pixels, y, "folder", "classification", images=True)
    found.resized = options.image_size is not None
    made = _split(options, found, images.pixels, found.labels(images.labels), "images")
    if images.others:
        made.warnings.append(
            f"{options.data}: {summary.counted(images.others, 'files')} left out that are no PNG "
            "or JPEG."
        )
    return made


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
            f"{options.data}: {found.target!r} is {value!r} in all {len(y)} {unit}: there is "
            "nothing to learn. Name another target, or find data in which it varies.",
        )


def _split(
    options: argparse.Namespace,
    found: Encoding,
    X: NDArray[Any],
    y: NDArray[Any],
    unit: str,
    table: Table | None = None,
) -> Dataset:
    """Hold a part out, and standardise by what is left."""
    for name, array in (("X", X), (found.target, y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise CommandError(BAD_DATA, f"{options.data}: {name} holds {array[at]} at index {at}.")
    _check_varies(options, found, y, unit, table)
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
    said = [
        summary.of_file(options.data, unit, (len(kept), len(held)), table),
        summary.of_target(found, y),
        summary.of_inputs(found, options.drop),
    ]
    where = [int(i) if table is None else table.lines[i] for i in [*kept, *held]]
    warnings = held_out.of_split(found, (y[kept], y[held]), unit, where)
    return Dataset(parts[0], parts[1] if count else None, found, unit, said, warnings)
