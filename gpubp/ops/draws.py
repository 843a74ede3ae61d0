"""Random whole numbers, and random classes: draws that are made of uniform ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.arguments import checked
from gpubp.core import checked_dtype, describe
from gpubp.errors import DataError, DTypeError, ShapeError
from gpubp.ops.elementwise import add, divide, floor, log, multiply, negative, subtract
from gpubp.ops.logic import astype, greater, where
from gpubp.ops.random import UNIFORM, Generator, draw
from gpubp.ops.reduce import argmin
from gpubp.ops.shape import expand_dims, stop_gradient
from gpubp.ops.sorting import topk, whole
from gpubp.ops.spec import is_concrete, promote

_MOST = 2**53  # different numbers: as many as a uniform float64 has values


@checked
def randint(
    low: int,
    high: int,
    shape: int | tuple[int, ...],
    dtype: Any = "int64",
    generator: Generator | None = None,
) -> Any:
    """Whole numbers from `low` to `high` - 1, each as likely as the others.

    Args:
        low: the least.
        high: one above the largest; at most low + 2**53.
        shape: of the result.
        dtype: of whole numbers.
        generator: default is the one that `manual_seed` seeds.

    Raises:
        DataError: there is no number from low to high, or there are too many.
        DTypeError: not a dtype of whole numbers, or one that does not hold them.
        ShapeError: not a shape.
    """
    if not 0 < high - low <= _MOST:
        raise DataError(
            f"randint: low is {low} and high {high}, expected low < high <= low + 2**53."
        )
    kind = checked_dtype(dtype)
    if kind.kind not in "iu":
        raise DTypeError(f"randint: dtype is {kind}, expected one of whole numbers, such as int64.")
    held = np.iinfo(kind)
    if low < held.min or high - 1 > held.max:
        raise DTypeError(f"randint: {kind} does not hold the numbers from {low} to {high - 1}.")
    u = draw(UNIFORM, shape, "float64", generator)
    found = astype(floor(multiply(u, float(high - low))), "int64")
    return astype(add(found, low), kind)


@checked
def multinomial(
    input: Any, num_samples: int, replacement: bool = False, generator: Generator | None = None
) -> Any:
    """Classes, drawn in proportion to their weights along the last axis.

    Each class waits for an exponentially distributed time, the shorter the larger its weight: the
    first to come are the sample (Efraimidis & Spirakis, "Weighted random sampling with a
    reservoir", 2006). So the first place of a sample without replacement is a draw as well.

    Args:
        input: weights (..., classes), none below 0; their sum need not be 1.
        num_samples: draws of each row.
        replacement: a class may be drawn again.
        generator: default is the one that `manual_seed` seeds.

    Returns:
        int64 (..., num_samples). A class of weight 0 is not drawn; of traced weights, which are
        not looked at, it is where the others do not suffice.

    Raises:
        DataError: a weight is below 0 or not finite, or a row has too few that are above 0.
        ShapeError: there is no axis of classes, or it has fewer than are to be drawn.
    """
    (p,) = promote(input, floating=True)
    if not p.shape or not p.shape[-1]:
        raise ShapeError(f"multinomial: expected weights (..., classes), got {describe(p)}.")
    count = whole(
        "multinomial", "num_samples", num_samples, 1, 2**47 if replacement else p.shape[-1]
    )
    if is_concrete(p):
        _check_weights(p, 1 if replacement else count)
    p = stop_gradient(astype(p, "float64"))
    if replacement:
        p = expand_dims(p, -2)
        sizes = (*p.shape[:-2], count, p.shape[-1])
        return argmin(_waits(p, sizes, generator), -1)
    return topk(_waits(p, p.shape, generator), count, largest=False)[1]


def _waits(p: Any, shape: tuple[int, ...], generator: Generator | None) -> Any:
    """How long each class waits: exponentially distributed with rate p, for ever if that is 0."""
    u = draw(UNIFORM, shape, "float64", generator, p)
    likely = greater(p, 0.0)
    waits = divide(negative(log(subtract(1.0, u))), where(likely, p, 1.0))
    return where(likely, waits, float("inf"))


def _check_weights(p: Any, least: int) -> None:
    weights = np.asarray(p)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError("multinomial: a weight is below 0 or not finite, expected none such.")
    if ((weights > 0).sum(-1) < least).any():
        raise DataError(f"multinomial: a row has fewer than {least} weights above 0.")
