"""Reductions: sum, mean, max, min, argmax, argmin.

Specs take `axis` as a sorted tuple of non-negative axes and `keepdims`; public functions take what
NumPy's take. Sums of floats accumulate in float64 and are rounded once, means after the division;
sums of integers and booleans are int64. NaN propagates. An empty sum is 0; every other empty
reduction is a ShapeError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.arguments import truth
from gpubp.core import Array, ArrayType, Kind, OpSpec, Shape, Typed, bind, describe
from gpubp.errors import DTypeError, ShapeError
from gpubp.ops.logic import astype, equal
from gpubp.ops.shape import broadcast_to, reshape
from gpubp.ops.spec import (
    FLOAT64,
    INT64,
    normalized_axes,
    normalized_axis,
    promote,
    register,
    require_float,
    require_numeric,
)


def _reduced(shape: Shape, axis: tuple[int, ...], keepdims: bool) -> Shape:
    if keepdims:
        return tuple(1 if i in axis else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axis)


def _require_elements(name: str, x: Typed, axis: tuple[int, ...]) -> None:
    if _count(x, axis) == 0:
        raise ShapeError(f"{name}: {describe(x)} has no elements along axis {axis}.")


def _spread(value: Array, x: Array, axis: tuple[int, ...]) -> Array:
    """A reduced value beside every element of `x` that it was made from."""
    out: Array = broadcast_to(reshape(value, _reduced(x.shape, axis, True)), x.shape)
    return out


def _sum_infer(x: Typed, *, axis: tuple[int, ...], keepdims: bool, mean: bool = False) -> ArrayType:
    normalized_axes(axis, len(x.shape), "sum")
    if mean:
        require_float("mean", x)
        _require_elements("mean", x, axis)
    dtype = x.dtype if x.dtype.kind == "f" else INT64
    return ArrayType(_reduced(x.shape, axis, keepdims), dtype)


def _count(x: Typed, axis: tuple[int, ...]) -> int:
    return math.prod(x.shape[i] for i in axis)


def _sum_reference(x: Any, *, axis: tuple[int, ...], keepdims: bool, mean: bool = False) -> Any:
    wide = FLOAT64 if x.dtype.kind == "f" else INT64
    total = np.sum(x, axis=axis, dtype=wide, keepdims=keepdims)
    if mean:
        total = total / _count(x, axis)
    return total.astype(x.dtype) if x.dtype.kind == "f" else total


def _sum_vjp(
    g: Array, y: Array, x: Array, *, axis: Any, keepdims: bool, mean: bool = False
) -> list[Array | None]:
    return [_spread(g / float(_count(x, axis)) if mean else g, x, axis)]


# With `mean`, which floats alone may have, the sum is divided by the number of its terms.
SUM = register(OpSpec("sum", Kind.REDUCE, _sum_infer, _sum_reference, _sum_vjp, accumulates=True))


def _extremum(name: str, reference: Callable[..., Any]) -> OpSpec:
    def infer(x: Typed, *, axis: tuple[int, ...], keepdims: bool) -> ArrayType:
        require_numeric(name, x)
        normalized_axes(axis, len(x.shape), name)
        _require_elements(name, x, axis)
        return ArrayType(_reduced(x.shape, axis, keepdims), x.dtype)

    def vjp(g: Array, y: Array, x: Array, *, axis: Any, keepdims: bool) -> list[Array | None]:
        chosen = astype(equal(x, _spread(y, x, axis)), x.dtype)
        share = reshape(g, _reduced(x.shape, axis, True)) / sum(chosen, axis, keepdims=True)
        return [chosen * share]

    return register(OpSpec(name, Kind.REDUCE, infer, reference, vjp))


def _index_of_extremum(name: str, reference: Callable[..., Any]) -> OpSpec:
    def infer(x: Typed, *, axis: tuple[int, ...], keepdims: bool) -> ArrayType:
        require_numeric(name, x)
        normalized_axis(axis[0], len(x.shape), name)
        _require_elements(name, x, axis)
        return ArrayType(_reduced(x.shape, axis, keepdims), INT64)

    def indices(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
        return reference(x, axis=axis[0], keepdims=keepdims)

    return register(OpSpec(name, Kind.REDUCE, infer, indices))


MAX = _extremum("max", np.max)
MIN = _extremum("min", np.min)
ARGMAX = _index_of_extremum("argmax", np.argmax)
ARGMIN = _index_of_extremum("argmin", np.argmin)


def sum(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """The sum over `axis` (None: all axes).

    Args:
        x: any shape; floats keep their dtype, the rest gives int64.
        axis: an axis, several, or None.
        keepdims: leave reduced axes as size 1.

    Raises:
        ShapeError: an axis is out of range or named twice.
    """
    (x,) = promote(x)
    axes = normalized_axes(axis, len(x.shape), "sum")
    return bind(SUM, x, axis=axes, keepdims=truth("sum", "keepdims", keepdims))


def mean(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """The mean over `axis` (None: all axes): the sum divided by n, rounded once.

    Raises:
        DTypeError: `x` is not of floats.
        ShapeError: an axis is out of range, or there is nothing to average.
    """
    (x,) = promote(x)
    if x.dtype.kind != "f":
        raise DTypeError(f"mean: expected floats, got {describe(x)}. Use gp.ops.astype first.")
    axes = normalized_axes(axis, len(x.shape), "mean")
    return bind(SUM, x, axis=axes, keepdims=truth("mean", "keepdims", keepdims), mean=True)


def max(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """The largest element over `axis` (None: all axes); ties share the gradient evenly.

    Raises:
        DTypeError: `x` is boolean.
        ShapeError: an axis is out of range, or has no elements.
    """
    (x,) = promote(x)
    axes = normalized_axes(axis, len(x.shape), "max")
    return bind(MAX, x, axis=axes, keepdims=truth("max", "keepdims", keepdims))


def min(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """The smallest element over `axis` (None: all axes); ties share the gradient evenly.

    Raises:
        DTypeError: `x` is boolean.
        ShapeError: an axis is out of range, or has no elements.
    """
    (x,) = promote(x)
    axes = normalized_axes(axis, len(x.shape), "min")
    return bind(MIN, x, axis=axes, keepdims=truth("min", "keepdims", keepdims))


def _index(spec: OpSpec, x: Any, axis: int | None, keepdims: bool) -> Any:
    keepdims = truth(spec.name, "keepdims", keepdims)
    (x,) = promote(x)
    if axis is not None:
        found = normalized_axis(axis, len(x.shape), spec.name)
        return bind(spec, x, axis=(found,), keepdims=keepdims)
    flat = reshape(x, (math.prod(x.shape),))
    out = bind(spec, flat, axis=(0,), keepdims=False)
    return reshape(out, (1,) * len(x.shape)) if keepdims else out


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The index of the first largest element, int64; of the flattened array if `axis` is None.

    Raises:
        DTypeError: `x` is boolean.
        ShapeError: the axis is out of range, or has no elements.
    """
    return _index(ARGMAX, x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The index of the first smallest element, int64; of the flattened array if `axis` is None.

    Raises:
        DTypeError: `x` is boolean.
        ShapeError: the axis is out of range, or has no elements.
    """
    return _index(ARGMIN, x, axis, keepdims)
