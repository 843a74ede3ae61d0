"""Where values stand among others, and how often: searchsorted, bucketize, bincount, histc."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.arguments import checked, truth
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError, TraceError
from gpubp.ops.custom import custom_op
from gpubp.ops.index import scatter_add
from gpubp.ops.places import index_array
from gpubp.ops.shape import stop_gradient
from gpubp.ops.sorting import whole
from gpubp.ops.spec import beside, is_concrete, promote


def _search(boundaries: Any, values: Any, *, right: bool) -> Any:
    side: Any = "right" if right else "left"
    if boundaries.ndim == 1:
        return np.searchsorted(boundaries, values, side).astype(np.int64)
    rows = boundaries.reshape(-1, boundaries.shape[-1])
    asked = values.reshape(len(rows), -1)
    found = [np.searchsorted(b, v, side) for b, v in zip(rows, asked, strict=True)]
    return np.array(found, np.int64).reshape(values.shape)


_SEARCH = custom_op("searchsorted", _search, infer=lambda b, v, right: (v.shape, np.int64))


def searchsorted(sorted_sequence: Any, values: Any, right: bool = False) -> Any:
    """Where values would stand in rising sequences (along the last axis), int64.

    Args:
        sorted_sequence: (n,), or (*rows, n) for values (*rows, m).
        values: numbers of any shape for one sequence.
        right: behind equal elements, not before them.
    """
    rising, asked = promote(sorted_sequence, values)
    rank = len(rising.shape)
    if not rank or (rank > 1 and rising.shape[:-1] != asked.shape[:-1]):
        raise ShapeError(
            f"searchsorted: expected (n,), or (*rows, n) and values (*rows, m), got "
            f"{describe(rising)} and {describe(asked)}."
        )
    side = truth("searchsorted", "right", right)
    return _SEARCH(stop_gradient(rising), stop_gradient(asked), right=side)


def bucketize(x: Any, boundaries: Any, right: bool = False) -> Any:
    """Which bucket between rising boundaries holds each element; see `searchsorted`."""
    return searchsorted(boundaries, x, right)


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each whole number from 0 on occurs (or the sum of its weights).

    In a trace its size must be given by `minlength`: a larger number is an error of the run.
    """
    found = index_array("bincount", x, x)
    if len(found.shape) != 1:
        raise ShapeError(f"bincount: expected one dimension, got {describe(found)}.")
    size = whole("bincount", "minlength", minlength, 0, 2**47)
    if is_concrete(found) and found.size:
        size = max(size, int(found.max()) + 1)
    elif not is_concrete(found) and not size:
        raise TraceError("bincount: give minlength in a trace, where sizes are static.")
    ones = beside(np.ones(found.shape, np.int64), found)
    return scatter_add(ones if weights is None else weights, found, size)


def _hist(x: Any, *, bins: int, low: float, high: float) -> Any:
    if low == high and x.size:
        low, high = float(x.min()), float(x.max())
    if low == high:
        low, high = low - 1.0, high + 1.0
    return np.histogram(x, bins, (low, high))[0].astype(x.dtype)


_HISTC = custom_op("histc", _hist, infer=lambda x, bins, low, high: ((bins,), x.dtype))


@checked
def histc(x: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """Counts in bins of equal width from min to max (those of `x` if both are equal), in x's dtype.

    Has no gradient.
    """
    (x,) = promote(x)
    bins = whole("histc", "bins", bins, 1, 2**47)
    if min > max:
        raise ArgumentError(f"histc: min is {min}, which is above max, {max}.")
    return _HISTC(stop_gradient(x), bins=bins, low=float(min), high=float(max))
