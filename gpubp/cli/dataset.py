"""The data of a command: read, described, split, standardised."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.cli import summary
from gpubp.cli.failures import BAD_DATA, WRONG_ARGUMENTS, CommandError
from gpubp.cli.folds import shares
from gpubp.cli.splitting import Dataset as Dataset
from gpubp.cli.splitting import split
from gpubp.cli.tables import DECIMALS as DECIMALS
from gpubp.cli.tables import of_csv
from gpubp.data import encoding as encodings
from gpubp.data.digits import load_digits
from gpubp.data.images import ENDINGS, read_images
from gpubp.data.npz import read_npz
from gpubp.data.parquet import ENDINGS as PARQUET
from gpubp.data.textfile import STDIN

DIGITS, FOLDER, CNN = "digits", "folder", "cnn"
DIGITS_IMAGE = (1, 8, 8)


def load(options: argparse.Namespace) -> Dataset:
    """The data set that `gpubp train` was given.

    Raises:
        GpubpError: it cannot be used; says why.
    """
    if options.data == DIGITS:
        _check_unused(options, DIGITS, {**_OF_COLUMNS, **_OF_FILES})
        return _digits(options)
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
    return of_csv(options)


# Options that only some data have a use for, and what they are if they were not given.
_OF_COLUMNS: dict[str, Any] = {
    "drop": [], "categorical": [], "id": [], "missing": "mean", "decimal": "auto", "encoding": None,
    "on_disk": None,
}  # fmt: skip
_OF_FILES: dict[str, Any] = {"target": None, "validation": 0.2}


def _check_unused(options: argparse.Namespace, what: str, defaults: Mapping[str, Any]) -> None:
    """Raise CommandError for an option that would be ignored."""
    for name, default in defaults.items():
        if getattr(options, name) != default:
            only = "files" if name in _OF_FILES else "CSV files" if name != "on_disk" else "tables"
            name = name.replace("_", "-")
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
    ending = Path(path.lower().removesuffix(".gz")).suffix
    if path == STDIN or ending in (".csv", ".tsv", ".txt", ".tab", ".data", *PARQUET):
        return ".csv"
    if ending in ENDINGS:
        return FOLDER
    if ending != ".npz":
        raise CommandError(
            WRONG_ARGUMENTS,
            f"data {path!r}: expected {DIGITS}, or a file that ends in .csv, .parquet or .npz, or "
            "a folder of images, or - for a CSV file on standard input.",
        )
    return ending


def _digits(options: argparse.Namespace) -> Dataset:
    X, X_test, y, y_test = load_digits(split=True)
    images = options.model == CNN
    if images:
        X, X_test = (a.reshape(-1, *DIGITS_IMAGE) for a in (X, X_test))
    found = encodings.of_arrays(X, y, "y", "classification", images)
    said = [
        summary.of_file(DIGITS, "images", (len(y), len(y_test))),
        summary.of_target(found, np.concatenate([y, y_test])),
        summary.of_inputs(found, []),
    ]
    held = X_test, y_test
    if not options.test:
        return Dataset((X, y), held, found, "images", said)
    kept, chosen = shares(y, (options.validation,), options.seed)
    said[0] = summary.of_file(DIGITS, "images", (len(kept), len(chosen), len(y_test)))
    return Dataset((X[kept], y[kept]), (X[chosen], y[chosen]), found, "images", said, [], held)


def _of_npz(options: argparse.Namespace) -> Dataset:
    target = options.target or "y"
    arrays = read_npz(options.data, ["X", target])
    X, y = arrays["X"], arrays[target]
    found = encodings.of_arrays(X, y, target, options.task, options.model == CNN)
    targets = found.labels(y.tolist()) if found.task == "classification" else y
    return split(options, found, found.array(X, "X"), targets, "samples")


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
    made = split(options, found, images.pixels, found.labels(images.labels), "images")
    if images.others:
        made.warnings.append(
            f"{options.data}: {summary.counted(images.others, 'files')} left out that are no PNG "
            "or JPEG."
        )
    return made
