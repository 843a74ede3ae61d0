"""`gpubp train --cross-validate K`: every row is judged once, by a model that has not seen it.

The rows are dealt into K folds, of classes so that each fold has its share of every one. A model is
trained on K - 1 folds, with a part of them held out where that decides when to stop, and judged by
the one that is left. Fills and scales are measured anew each time, on what is trained on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gpubp.cli.failures import (
    DIVERGED,
    INTERRUPTED,
    WRONG_ARGUMENTS,
    CommandError,
    of_files,
    warn,
)

if TYPE_CHECKING:
    from gpubp.cli.dataset import Dataset

# What is of one model, and there are several.
_REFUSED = ("save", "resume", "plot", "log", "test")


def check(options: argparse.Namespace) -> None:
    """Raise CommandError for a number of folds, or options, that cannot be."""
    if options.cross_validate < 2:
        raise CommandError(
            WRONG_ARGUMENTS, f"--cross-validate is {options.cross_validate}, expected at least 2."
        )
    if options.data == "digits":
        raise CommandError(
            WRONG_ARGUMENTS, "--cross-validate is for files: digits have a test of their own."
        )
    for name in _REFUSED:
        if getattr(options, name):
            raise CommandError(
                WRONG_ARGUMENTS,
                f"--{name} is of one model, and --cross-validate trains "
                f"{options.cross_validate}. Leave it out.",
            )


def data_of(options: argparse.Namespace) -> Iterator[Dataset]:
    """The data set of each fold, which is its `test`."""
    from gpubp.cli import dataset

    for fold in range(options.cross_validate):
        asked = argparse.Namespace(**vars(options))
        asked.fold = fold
        with of_files():
            yield dataset.load(asked)


def run(options: argparse.Namespace, communicator: object = None) -> int:
    """Train and judge; returns the exit code. Raises CommandError for one of several ranks."""
    from gpubp.cli import scores

    if communicator is not None:
        raise CommandError(WRONG_ARGUMENTS, "--cross-validate is for one process, not for ranks.")
    found: dict[str, list[float]] = {}
    for fold, data in enumerate(data_of(options), 1):
        if fold == 1:
            for line in () if options.quiet else data.said[1:]:
                print(line, file=sys.stderr)
            for line in data.warnings:
                warn(line)
            scores.metrics(options, data.encoding, drawn=False)  # are there such?
        values = _judged(options, data, fold)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        rows = len(data.judged[1][1])
        print(f"fold {fold} of {options.cross_validate}: {shown} ({rows:,} {data.unit})")
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    means = [f"{name} {np.mean(v):.4g} +- {np.std(v, ddof=1):.2g}" for name, v in found.items()]
    print(f"mean of {options.cross_validate} folds: {', '.join(means)}")
    return 0


def _judged(options: argparse.Namespace, data: Dataset, fold: int) -> dict[str, float]:
    """Train on a fold's data; the scores of what is judged."""
    from gpubp.cli import build, scores

    trainer = build.trainer(options, data)
    X, y = data.train
    trainer.fit(
        X,
        y,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=data.held_out,
        verbose=False,
        class_weight=options.class_weight,
        callbacks=build.callbacks(options, data),
        max_steps=options.max_steps,
        max_time=options.max_time,
    )
    if trainer.stop_reason == "interrupted":
        raise CommandError(INTERRUPTED, f"interrupted in fold {fold}")
    if trainer.diverged:
        raise CommandError(DIVERGED, f"training diverged in fold {fold}: {trainer.stop_reason}.")
    return scores.measured(options, data, trainer)
