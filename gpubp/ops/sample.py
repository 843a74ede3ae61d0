"""Elements of images at computed places: each result is a sum over taps along every axis.

A tap of an axis is a whole place, as a float, and a weight. Places outside have weight 0 and read
the first element, so that no index is out of range, whatever the numbers are (NaN too).
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.core import Array
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import floor, multiply
from gpubp.ops.index import gather
from gpubp.ops.logic import astype, greater_equal, less_equal, logical_and, where
from gpubp.ops.shape import expand_dims, reshape
from gpubp.ops.spatial import channels_first, channels_last

Tap = tuple[Any, Any]


def inside(at: Any, size: int) -> Any:
    """Where places are those of elements."""
    return logical_and(greater_equal(at, 0.0), less_equal(at, size - 1.0))


def within(at: Any, weight: Any, size: int) -> Tap:
    """A tap that counts where there is an element: an index and a weight."""
    found = inside(at, size)
    return astype(where(found, at, 0.0), "int64"), where(found, weight, 0.0)


def linear_taps(at: Any, size: int) -> list[Tap]:
    """The elements before and after a place; zeros stand outside."""
    low = floor(at)
    part = at - low
    return [within(low, 1.0 - part, size), within(low + 1.0, part, size)]


def weighted(rows: Any, base: Any, axes: Sequence[Sequence[Tap]], strides: Sequence[int]) -> Any:
    """The sum over all combinations of taps, one of each axis.

    Args:
        rows: (count, C), the elements of all images.
        base: the row of the first element of each result's image.
        axes: the taps of each axis: places (int64) and weights of the results' shape.
        strides: rows from an element to the next one, by axis.

    Returns:
        (*results, C).
    """
    total: Array | Any = None
    for taps in itertools.product(*axes):
        at = base
        for (place, _), stride in zip(taps, strides, strict=True):
            at = at + (multiply(place, stride) if stride != 1 else place)
        weight = functools.reduce(operator.mul, [w for _, w in taps])
        term = gather(rows, at) * expand_dims(weight, -1)
        total = term if total is None else total + term
    return total


def taken(x: Any, down: Any, right: Any) -> Any:
    """Elements of images at whole places of their own: rows and columns by image.

    Args:
        x: (N, C, H, W).
        down: (N, H'), int64, from 0 to H - 1.
        right: (N, W'), int64, from 0 to W - 1.

    Returns:
        (N, C, H', W').
    """
    n, c, h, w = x.shape
    first = constant(np.arange(n, dtype=np.int64)[:, None] * h, x)
    rows = expand_dims(multiply(down + first, w), 2) + expand_dims(right, 1)
    return channels_first(gather(reshape(channels_last(x), (n * h * w, c)), rows))
