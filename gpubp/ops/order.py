"""Elements in another order, along more axes, or in parts."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops import reduce
from gpubp.ops.constant import constant
from gpubp.ops.index import concat, gather
from gpubp.ops.logic import where
from gpubp.ops.reduce import sum as total
from gpubp.ops.shape import (
    broadcast_to,
    expand_dims,
    reshape,
    transpose,
)
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import normalized_axes, normalized_axis, promote, require_possible


def whole(op: str, name: str, value: Any) -> int:
    """A whole number; ArgumentError if it is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentError(f"{op}: {name} is {shown(value)}, expected a whole number.") from None


def _axes(op: str, value: Any, ndim: int) -> tuple[int, ...]:
    if value is None:
        return tuple(range(ndim))
    given = tuple(value) if isinstance(value, (list, tuple)) else value
    return normalized_axes(given, ndim, op)


@checked
def flip(x: Any, dims: int | Sequence[int] | None = None) -> Any:
    """`x` backwards along axes (None: all). Raises ShapeError if one is out of range."""
    (x,) = promote(x)
    axes = _axes("flip", dims, len(x.shape))
    step = [slice(None, None, -1) if i in axes else slice(None) for i in range(len(x.shape))]
    return strided_slice(x, step)


def fliplr(x: Any) -> Any:
    """`x` backwards along axis 1."""
    return flip(x, 1)


def flipud(x: Any) -> Any:
    """`x` backwards along axis 0."""
    return flip(x, 0)


@checked
def roll(x: Any, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Any:
    """Elements moved on by `shifts`, those at the end to the beginning.

    Args:
        x: any shape.
        shifts: how far: one for each axis.
        dims: axes; None: of the flattened array.

    Raises:
        ArgumentError: as many shifts as axes are needed. ShapeError: an axis is out of range.
    """
    (x,) = promote(x)
    steps = [shifts] if isinstance(shifts, int) else [whole("roll", "shifts", s) for s in shifts]
    if dims is None:
        if len(steps) != 1:
            raise ArgumentError("roll: several shifts need as many dims.")
        return reshape(_rolled(reshape(x, (-1,)), steps[0], 0), x.shape)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if len(axes) != len(steps):
        raise ArgumentError(f"roll: {len(steps)} shifts for {len(axes)} dims, expected as many.")
    for axis, step in zip(axes, steps):
        x = _rolled(x, step, normalized_axis(axis, len(x.shape), "roll"))
    return x


def _rolled(x: Any, step: int, axis: int) -> Any:
    n = x.shape[axis]
    step = step % n if n else 0
    if step == 0:
        return x
    key = [slice(None)] * len(x.shape)
    last, first = list(key), list(key)
    last[axis], first[axis] = slice(n - step, n), slice(0, n - step)
    return concat([strided_slice(x, last), strided_slice(x, first)], axis)


@checked
def _two_axes(op: str, dims: Sequence[int], ndim: int) -> tuple[int, int]:
    """Two different axes, counted from 0."""
    found = [normalized_axis(d, ndim, op) for d in dims]
    if len(found) != 2 or found[0] == found[1]:
        raise ShapeError(f"{op}: got the axes {tuple(dims)}, expected two different ones.")
    return found[0], found[1]


def rot90(x: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """`x` turned by k quarters, from the first of two axes to the second. ShapeError: one axis."""
    (x,) = promote(x)
    first, second = _two_axes("rot90", dims, len(x.shape))
    order = list(range(len(x.shape)))
    order[first], order[second] = second, first
    quarters = whole("rot90", "k", k) % 4
    if quarters == 2:
        return flip(x, (first, second))
    if quarters == 1:
        return flip(transpose(x, order), first)
    return transpose(flip(x, first), order) if quarters == 3 else x


def _matrices(op: str, x: Any) -> Any:
    (x,) = promote(x)
    if len(x.shape) < 2:
        raise ShapeError(f"{op}: got {describe(x)}, expected matrices (at least two dimensions).")
    return x


def _zero(like: Any) -> Any:
    return np.zeros((), like.dtype)


def _near(x: Any, diagonal: int) -> int:
    """The diagonal, or the next one to the matrix behind which all are alike."""
    rows, columns = int(x.shape[-2]), int(x.shape[-1])
    return max(min(diagonal, columns + 1), -rows - 1)


@checked
def tril(x: Any, diagonal: int = 0) -> Any:
    """Matrices with zeros above a diagonal."""
    x = _matrices("tril", x)
    below = np.tri(
        x.shape[-2], x.shape[-1], _near(x, whole("tril", "diagonal", diagonal)), dtype=bool
    )
    return where(constant(below, x), x, _zero(x))


@checked
def triu(x: Any, diagonal: int = 0) -> Any:
    """Matrices with zeros below a diagonal."""
    x = _matrices("triu", x)
    below = np.tri(
        x.shape[-2], x.shape[-1], _near(x, whole("triu", "diagonal", diagonal)) - 1, dtype=bool
    )
    return where(constant(below, x), _zero(x), x)


@checked
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The diagonal of two axes, which becomes the last axis."""
    x = _matrices("diagonal", x)
    first, second = (normalized_axis(d, len(x.shape), "diagonal") for d in (dim1, dim2))
    if first == second:
        raise ShapeError(f"diagonal: dim1 and dim2 are both {dim1}.")
    rest = [i for i in range(len(x.shape)) if i not in (first, second)]
    rows, columns = x.shape[first], x.shape[second]
    top, left = max(-offset, 0), max(offset, 0)
    n = max(min(rows - top, columns - left), 0)
    shape = [x.shape[i] for i in rest]
    flat = reshape(transpose(x, [*rest, first, second]), (*shape, rows * columns))
    start = top * columns + left if n else 0
    cut = slice(start, start + max(n - 1, 0) * (columns + 1) + min(n, 1), columns + 1)
    return strided_slice(flat, [*[slice(None)] * len(rest), cut])


def trace(x: Any) -> Any:
    """The sum of a matrix's diagonal."""
    return reduce.sum(diagonal(x), -1)


@checked
def diag_embed(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Vectors along the last axis as diagonals of matrices, which are zero elsewhere.

    Args:
        x: (..., n).
        offset: of the diagonal, above (or, if negative, below) the main one.
        dim1, dim2: axes of the result along which rows and columns lie.

    Raises:
        ShapeError: a scalar, an axis out of range, or one axis for both.
    """
    (x,) = promote(x)
    if not x.shape:
        raise ShapeError("diag_embed: got a scalar, expected vectors along the last axis.")
    axes = _two_axes("diag_embed", (dim1, dim2), len(x.shape) + 1)
    n = x.shape[-1] + abs(whole("diag_embed", "offset", offset))
    require_possible("diag_embed", (*x.shape[:-1], n, n))
    on = np.eye(x.shape[-1], n, max(offset, 0), dtype=bool)
    if offset < 0:
        on = np.concatenate([np.zeros((-offset, n), bool), np.eye(x.shape[-1], n, dtype=bool)])
    elif offset:
        on = np.concatenate([on, np.zeros((offset, n), bool)])
    # Row r of the matrix holds element r (less the offset below the diagonal).
    spread = np.clip(np.arange(n) + min(offset, 0), 0, max(x.shape[-1] - 1, 0))
    if not x.shape[-1]:  # a sum of nothing is 0, and depends on x
        zeros = reshape(total(x, -1), (*x.shape[:-1], 1, 1))
        return moveaxis(broadcast_to(zeros, (*x.shape[:-1], n, n)), (-2, -1), axes)
    rows = gather(x, constant(spread, x), len(x.shape) - 1)
    spread_out = where(constant(on, x), expand_dims(rows, -1), _zero(x))
    return moveaxis(spread_out, (-2, -1), axes)


@checked
def diag(x: Any, diagonal: int = 0) -> Any:
    """A matrix with a vector on its diagonal, or the diagonal of a matrix."""
    (x,) = promote(x)
    if len(x.shape) == 1:
        return diag_embed(x, diagonal)
    if len(x.shape) != 2:
        raise ShapeError(f"diag: got {describe(x)}, expected a vector or a matrix.")
    return globals()["diagonal"](x, diagonal)


@checked
def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Axes moved to other places; the others keep their order."""
    (x,) = promote(x)
    ndim = len(x.shape)
    given = [source] if isinstance(source, int) else list(source)
    wanted = [destination] if isinstance(destination, int) else list(destination)
    if len(given) != len(wanted):
        raise ArgumentError(f"moveaxis: {len(given)} axes to {len(wanted)} places.")
    moved = normalized_axes(tuple(given), ndim, "moveaxis") and [
        normalized_axis(a, ndim, "moveaxis") for a in given
    ]
    places = [normalized_axis(a, ndim, "moveaxis") for a in wanted]
    rest = iter([i for i in range(ndim) if i not in moved])
    at = dict(zip(places, moved))
    return transpose(x, [at[i] if i in at else next(rest) for i in range(ndim)])


@checked
def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Any:
    """An axis as several; one of the sizes may be -1."""
    (x,) = promote(x)
    axis = normalized_axis(dim, len(x.shape), "unflatten")
    new = list(sizes)
    if new.count(-1) == 1:
        known = math.prod(n for n in new if n != -1)
        new[new.index(-1)] = x.shape[axis] // known if known else 0
    if math.prod(new) != x.shape[axis]:
        raise ShapeError(
            f"unflatten: axis {axis} of {describe(x)} cannot be {tuple(sizes)}: expected "
            f"{x.shape[axis]} elements."
        )
    return reshape(x, (*x.shape[:axis], *new, *x.shape[axis + 1 :]))


def expand(x: Any, *sizes: Any) -> Any:
    """Axes of size 1 as long as wanted; -1 keeps a size."""
    (x,) = promote(x)
    single = len(sizes) == 1 and isinstance(sizes[0], (list, tuple))
    wanted = [whole("expand", "a size", n) for n in (sizes[0] if single else sizes)]
    extra = len(wanted) - len(x.shape)
    shape = [x.shape[i - extra] if n == -1 and i >= extra else n for i, n in enumerate(wanted)]
    return broadcast_to(x, shape)


def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """`value`, a number or an array of shape (), where the mask is True, else `x`."""
    (x,) = promote(x)
    return where(mask, value, x)
