"""Sorted elements and their places; counts. PyTorch's names, and its order: NaN is the largest.

The order is found by one black box (`argsort`, NumPy's stable sort, on one worker of the host); the
values are gathered at it, so that gradients of all orders are those of `gather`.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown, truth
from gpubp.core import describe
from gpubp.errors import ArgumentError, DTypeError, ShapeError, TraceError
from gpubp.ops import logic
from gpubp.ops.custom import custom_op
from gpubp.ops.elementwise import add, divide, multiply, subtract
from gpubp.ops.index import stack
from gpubp.ops.places import gather_along, mask_places, pick
from gpubp.ops.reduce import sum as total
from gpubp.ops.shape import broadcast_to, expand_dims, reshape, squeeze, stop_gradient, swapaxes
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import beside, broadcast_shape, is_concrete, normalized_axis, operand, promote


def _order(x: Any, *, descending: bool) -> Any:
    """Stable, along the last axis; NaN is the largest."""
    if not descending:
        return np.argsort(x, axis=-1, kind="stable").astype(np.int64)
    turned = np.argsort(x[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    return (x.shape[-1] - 1 - turned).astype(np.int64)


_ARGSORT = custom_op("argsort", _order, infer=lambda x, descending: (x.shape, np.int64))


@checked
def argsort(x: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Places of the elements in rising (or falling) order, int64; equal ones keep their order."""
    (x,) = promote(x)
    down = truth("argsort", "descending", descending)
    if not len(x.shape):
        return reshape(argsort(reshape(x, (1,)), dim, down), ())
    axis = normalized_axis(dim, len(x.shape), "argsort")
    if axis == len(x.shape) - 1:
        return _ARGSORT(stop_gradient(x), descending=down)
    return swapaxes(_ARGSORT(stop_gradient(swapaxes(x, axis, -1)), descending=down), axis, -1)


@checked
def sort(x: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> tuple[Any, Any]:
    """(values, indices) along `dim`; always stable."""
    (x,) = promote(x)
    places = argsort(x, dim, descending)
    return gather_along(x, dim, places), places


def msort(x: Any) -> Any:
    """Sorted along the first axis."""
    return sort(x, 0)[0]


def _first(x: Any, axis: int, start: int, stop: int) -> Any:
    keys = [slice(start, stop) if i == axis else slice(None) for i in range(len(x.shape))]
    return strided_slice(x, keys)


def whole(op: str, name: str, value: Any, low: int, high: int) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{op}: {name} is {shown(value)}, expected a whole number.") from None
    if not low <= found <= high:
        raise ShapeError(f"{op}: {name} is {found}, expected {low} to {high}.")
    return found


@checked
def topk(
    x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Any, Any]:
    """The k largest (or smallest) along `dim` and their places; always in order.

    Raises:
        ShapeError: k is not in 0 to x.shape[dim].
    """
    (x,) = promote(x)
    if not len(x.shape):
        values, places = topk(reshape(x, (1,)), k, dim, largest)
        return (values, places) if k == 0 else (reshape(values, ()), reshape(places, ()))
    axis = normalized_axis(dim, len(x.shape), "topk")
    k = whole("topk", "k", k, 0, x.shape[axis])
    places = _first(argsort(x, axis, truth("topk", "largest", largest)), axis, 0, k)
    return gather_along(x, axis, places), places


@checked
def kthvalue(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    """The k-th smallest along `dim`, k from 1, and its place: the first of equals in order."""
    (x,) = promote(x)
    if not len(x.shape):
        values, places = kthvalue(reshape(x, (1,)), k, dim, True)
        return reshape(values, ()), reshape(places, ())
    axis = normalized_axis(dim, len(x.shape), "kthvalue")
    k = whole("kthvalue", "k", k, 1, x.shape[axis])
    places = _first(argsort(x, axis), axis, k - 1, k)
    return _dropped(gather_along(x, axis, places), places, axis, keepdim)


def _dropped(values: Any, places: Any, axis: int, keepdim: bool) -> tuple[Any, Any]:
    return (values, places) if keepdim else (squeeze(values, axis), squeeze(places, axis))


def median(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median; NaN if there is one. With `dim` (values, indices), else the value alone.

    As in torch, the gradient with `dim` goes to the element at the index; without it all elements
    that equal the median share it.
    """
    return _median("median", x, dim, keepdim, ignore_nan=False)


def nanmedian(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of what is not NaN; results and gradients as those of `median`."""
    return _median("nanmedian", x, dim, keepdim, ignore_nan=True)


def _median(name: str, x: Any, dim: int | None, keepdim: bool, ignore_nan: bool) -> Any:
    (x,) = promote(x)
    keepdim = truth(name, "keepdim", keepdim)
    if dim is None:
        return _shared(_median(name, reshape(x, (-1,)), 0, False, ignore_nan)[0], x)
    if not len(x.shape):
        values, places = _median(name, reshape(x, (1,)), dim, True, ignore_nan)
        return reshape(values, ()), reshape(places, ())
    axis = normalized_axis(dim, len(x.shape), name)
    n = x.shape[axis]
    if not n:
        raise ShapeError(f"{name}: {describe(x)} has no elements along axis {axis}.")
    order = argsort(x, axis)
    nans = logic.astype(logic.not_equal(x, x), "int64").sum(axis=axis, keepdims=True)
    low = beside(np.full(nans.shape, (n - 1) // 2, np.int64), x)
    if ignore_nan:  # (kept - 1) // 2 by a table, of -1 for none kept
        table = np.array([max(n - k - 1, 0) // 2 for k in range(n + 1)], np.int64)
        at = pick(beside(table, x), nans)
    else:  # the first NaN, if there is one
        at = logic.where(logic.greater(nans, 0), subtract(n, nans), low)
    places = gather_along(order, axis, at)
    return _dropped(gather_along(x, axis, places), places, axis, keepdim)


def _shared(value: Any, x: Any) -> Any:
    """`value`, whose gradient goes in equal shares to all elements of `x` that are alike."""
    if x.dtype.kind != "f":
        return value
    value = stop_gradient(value)
    nans = logic.logical_and(logic.not_equal(x, x), logic.not_equal(value, value))
    alike = logic.logical_or(logic.equal(x, value), nans)
    mean = divide(total(logic.where(alike, x, 0.0)), total(logic.astype(alike, x.dtype)))
    # The mean of equal numbers may be rounded: where it can be, only its gradient is used.
    exact = add(value, subtract(mean, stop_gradient(mean)))
    return logic.where(logic.isfinite(value), exact, mean)


@checked
def quantile(
    x: Any, q: Any, dim: int | None = None, keepdim: bool = False, interpolation: str = "linear"
) -> Any:
    """Quantiles along `dim` (None: of all elements); NaN where there is one.

    Args:
        x: floats.
        q: a number, or numbers, from 0 to 1; several make a first axis of the result.
        dim: the axis.
        keepdim: keep it, of size 1.
        interpolation: linear, lower, higher, nearest or midpoint.
    """
    (x,) = promote(x, floating=True)
    if hasattr(q, "shape") and not is_concrete(q):
        raise TraceError("quantile: q must be numbers that are known, not a traced array.")
    try:
        wanted = np.asarray(q, np.float64)
    except (RuntimeError, TypeError, ValueError):
        wanted = np.asarray(np.nan)
    if wanted.ndim > 1 or not ((wanted >= 0) & (wanted <= 1)).all():
        raise ArgumentError(f"quantile: q is {shown(q)}, expected numbers from 0 to 1.")
    rank = len(x.shape)
    flat = reshape(x, (-1,)) if dim is None or not rank else x
    axis = 0 if dim is None or not rank else normalized_axis(dim, rank, "quantile")
    if not flat.shape[axis]:
        raise ShapeError(f"quantile: {describe(x)} has no elements.")
    found = _between(sort(flat, axis)[0], axis, np.atleast_1d(wanted), interpolation)
    nan = logic.not_equal(flat, flat)
    bad = logic.astype(nan, "int64").sum(axis=axis, keepdims=True)
    found = logic.where(logic.greater(expand_dims(bad, 0), 0), float("nan"), found)
    if dim is None or not rank:
        kept = (1,) * rank if keepdim else ()
        return reshape(found, (*wanted.shape, *kept))
    found = found if keepdim else squeeze(found, axis + 1)
    return found if wanted.ndim else squeeze(found, 0)


def _between(rising: Any, axis: int, q: Any, interpolation: str) -> Any:
    """Values at ranks q * (n - 1), (len(q), *shape with 1 at axis)."""
    n = rising.shape[axis]
    ranks = q * (n - 1)
    low, high = np.floor(ranks).astype(int), np.ceil(ranks).astype(int)
    near = np.rint(ranks).astype(int)
    rules = {
        "linear": (low, ranks - low),
        "lower": (low, 0 * ranks),
        "higher": (high, 0 * ranks),
        "nearest": (near, 0 * ranks),
        "midpoint": (low, np.where(high > low, 0.5, 0.0)),
    }
    if interpolation not in rules:
        raise ArgumentError(
            f"quantile: interpolation is {shown(interpolation)}, expected {', '.join(rules)}."
        )
    parts = []
    for i, part in zip(*rules[interpolation], strict=True):
        a = _first(rising, axis, i, i + 1)
        if part:
            b = _first(rising, axis, i + 1, i + 2)
            a = add(a, multiply(subtract(b, a), float(part)))
        parts.append(a)
    return stack(parts, 0)


def _known(name: str, x: Any) -> Any:
    found = operand(x)
    if not is_concrete(found):
        raise TraceError(
            f"{name}: the size of the result depends on values, and shapes are static in a trace. "
            "Call it outside of compiled functions, with a NumPy array."
        )
    return found


@checked
def unique(
    x: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Rising distinct elements (or slices along `dim`), as torch.unique; outside of traces only."""
    found: Any = np.unique  # whose types are of literal options
    known = _known("unique", x)
    return found(
        known,
        return_inverse=truth("unique", "return_inverse", return_inverse),
        return_counts=truth("unique", "return_counts", return_counts),
        axis=None if dim is None else normalized_axis(dim, len(known.shape), "unique"),
    )


def nonzero(x: Any) -> Any:
    """Indices of what is not 0, (count, ndim), int64; outside of traces only."""
    return np.argwhere(_known("nonzero", x)).astype(np.int64)


argwhere = nonzero


def masked_select(x: Any, mask: Any) -> Any:
    """Elements of `x` where `mask` is true, in a row; the mask must be known, not traced."""
    (x,) = promote(x)
    found = operand(mask)
    if found.dtype.kind != "b":
        raise DTypeError(f"masked_select: the mask must be of booleans, got {describe(found)}.")
    shape = broadcast_shape(x, found)
    places = mask_places("masked_select", found)
    if shape != found.shape:
        places = mask_places("masked_select", np.broadcast_to(found, shape))
    wide = broadcast_to(x, shape)
    flat = np.ravel_multi_index(places, shape) if shape else np.zeros(len(places[0]), np.int64)
    return pick(wide, np.asarray(flat, np.int64))
