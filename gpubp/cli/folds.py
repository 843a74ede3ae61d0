"""Which rows are trained on, held out and judged."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli.failures import BAD_DATA, CommandError
from gpubp.data.textfile import named


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


def fold_of(y: NDArray[np.generic], folds: int, seed: int, classes: bool) -> NDArray[np.int64]:
    """The fold of each row, from 0: equal in size and in classes, as far as whole rows allow.

    Args:
        y: class indices, or numbers.
        folds: how many.
        seed: of the order in which rows are dealt.
        classes: what y is.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    if classes:  # class by class, the next one where the last one ended
        order = order[np.argsort(y[order], kind="stable")]
    found = np.empty(len(y), np.int64)
    found[order] = np.arange(len(y)) % folds
    return found


def parts(
    options: argparse.Namespace, y: NDArray[np.generic], classes: bool
) -> list[NDArray[np.int64]]:
    """Rows to train on, held out, and judged, of the fold of the options.

    Raises:
        CommandError: fewer rows than folds.
    """
    if len(y) < 2 * options.cross_validate:
        raise CommandError(
            BAD_DATA,
            f"{named(options.data)} has {len(y)} rows: too few for {options.cross_validate} folds.",
        )
    mine = fold_of(y, options.cross_validate, options.seed, classes) == options.fold
    rest = np.flatnonzero(~mine)
    if math.ceil(options.validation * len(rest)) >= len(rest):
        raise CommandError(
            BAD_DATA, f"{named(options.data)} has {len(y)} rows: too few to hold some out."
        )
    kept, held = shares(y[rest], [options.validation], options.seed, classes)
    return [rest[kept], rest[held], np.flatnonzero(mine)]
