"""Values at index arrays of a copy: scatter, scatter_reduce, index_add and their kin.

Sums are `scatter_add`, in the order of indices. Where one value is to stand (scatter, put,
index_copy) it is the last one of those with the same index, on every backend; which one that is is
found when the op is called where indices are known, else by a black box on the host.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, IndexRangeError, ShapeError
from gpubp.ops import logic
from gpubp.ops.constant import constant
from gpubp.ops.custom import custom_op
from gpubp.ops.elementwise import add, divide, floor, maximum, multiply
from gpubp.ops.index import gather, scatter_add
from gpubp.ops.places import along, index_array, nd_places, wrapped
from gpubp.ops.shape import broadcast_to, reshape, stop_gradient, swapaxes
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import beside, is_concrete, normalized_axis, promote, require_numeric


def _last(places: Any, *, size: int) -> Any:
    """Which update comes last at each place, -1 where none does."""
    if places.size and (places.min() < 0 or places.max() >= size):
        raise IndexRangeError("scatter: an index is out of range.")
    out = np.full(size, -1, np.int64)
    np.maximum.at(out, places.ravel(), np.arange(places.size))
    return out


_LAST = custom_op("last_update", _last, infer=lambda p, size: ((size,), np.int64))


def _written(rows: Any, updates: Any, places: Any) -> Any:
    """Rows (n, *rest) with updates (m, *rest) written at places (m,), the last one of several."""
    n = rows.shape[0]
    if not math.prod(updates.shape):
        return rows
    winner = _last(places, size=n) if is_concrete(places) else _LAST(places, size=n)
    hit = logic.greater_equal(winner, 0)
    at = logic.where(hit, winner, 0)
    if is_concrete(places):
        hit, at = constant(hit, rows), constant(at, rows)
    hit = reshape(hit, (n, *[1] * (len(rows.shape) - 1)))
    return logic.where(hit, gather(updates, at, 0), rows)


def _held(places: Any, like: Any) -> Any:
    return constant(places, like) if is_concrete(places) else places


def _summed(updates: Any, places: Any, size: int) -> Any:
    return scatter_add(updates, _held(places, updates), size)


def _prepared(name: str, x: Any, dim: int, index: Any, src: Any) -> tuple[Any, Any, Any]:
    """`x`, updates in a row, and flat places in `x`."""
    x, src = promote(x, src)
    index = index_array(name, index, x)
    if not len(x.shape):
        x, src, index = reshape(x, (1,)), reshape(src, (-1,)), reshape(index, (-1,))
    if len(index.shape) != len(x.shape):
        raise ShapeError(f"{name}: index {describe(index)} needs as many axes as {describe(x)}.")
    axis = normalized_axis(dim, len(x.shape), name)
    if not len(src.shape):
        src = broadcast_to(src, index.shape)
    larger = [n > m for n, m in zip(index.shape, src.shape)]
    if len(src.shape) != len(index.shape) or any(larger):
        raise ShapeError(f"{name}: index {describe(index)} does not fit into {describe(src)}.")
    src = strided_slice(src, [slice(0, n) for n in index.shape])
    places = along(name, x.shape, index, axis)
    return x, reshape(src, (math.prod(src.shape),)), reshape(places, (math.prod(index.shape),))


def scatter(x: Any, dim: int, index: Any, src: Any) -> Any:
    """torch.scatter: a copy of `x` with x[i, index[i, j, k], k] = src[i, j, k] for dim=1.

    Args:
        x: any array.
        dim: the indexed axis.
        index: int32 or int64, as many axes as `x`, not longer than it along others.
        src: an array at least as long as `index`, or a number.

    Raises:
        IndexRangeError: an index is out of range.
    """
    shape = promote(x)[0].shape
    x, updates, places = _prepared("scatter", x, dim, index, src)
    return reshape(_written(reshape(x, (-1,)), updates, places), shape)


@checked
def scatter_reduce(
    x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True
) -> Any:
    """torch.scatter_reduce: values of `src` joined at their places, and with those of `x`.

    Args:
        x, dim, index, src: see `scatter`.
        reduce: sum, mean, amax, amin or prod. Of equal extremes each has its share of the gradient.
        include_self: the values of `x` count; otherwise they stand only where there is no index.
    """
    kinds = ("sum", "mean", "amax", "amin", "prod")
    if reduce not in kinds:
        raise ArgumentError(
            f"scatter_reduce: reduce is {shown(reduce)}, expected {', '.join(kinds)}."
        )
    shape = promote(x)[0].shape
    require_numeric("scatter_reduce", promote(x)[0])
    x, updates, places = _prepared("scatter_reduce", x, dim, index, src)
    flat, n = reshape(x, (-1,)), math.prod(x.shape)
    if not n or not math.prod(updates.shape):
        return reshape(x, shape)
    ones = constant(np.ones(updates.shape, np.int64), flat)
    count = _summed(ones, places, n)
    hit = logic.greater(count, 0)
    if reduce in ("sum", "mean"):
        total = _summed(updates, places, n)
        start = flat if include_self else logic.where(hit, 0, flat)
        total = add(start, total)
        if reduce == "mean":
            total = _shared(total, add(count, 1) if include_self else maximum(count, 1))
        return reshape(total, shape)
    if not include_self:
        neutral = _neutral(reduce, flat)
        made = _joined(reduce, logic.where(hit, neutral, flat), updates, places)
    else:
        made = _joined(reduce, flat, updates, places)
    return reshape(made, shape)


def _shared(total: Any, count: Any) -> Any:
    dtype = total.dtype
    if total.dtype.kind != "f":
        total = divide(logic.astype(total, "float64"), logic.astype(count, "float64"))
        return logic.astype(floor(total), dtype)
    return divide(total, logic.astype(count, dtype))


def _neutral(reduce: str, like: Any) -> Any:
    if reduce == "prod":
        return 1
    low = reduce == "amax"
    if like.dtype.kind == "f":
        return -np.inf if low else np.inf
    found = np.iinfo(like.dtype)
    return int(found.min if low else found.max)


_ABOVE = {"amax": np.maximum, "amin": np.minimum, "prod": np.multiply}


def _combine(x: Any, updates: Any, places: Any, *, reduce: str) -> Any:
    out = np.array(x)
    _ABOVE[reduce].at(out, places, updates)
    return out


def _combine_vjp(g: Any, y: Any, x: Any, updates: Any, places: Any, *, reduce: str) -> Any:
    """Each extreme's share; of products, by the product of the others, zeros counted apart."""
    n = x.shape[0]
    if reduce == "prod":
        zero, zeros = logic.equal(x, 0), logic.equal(updates, 0)
        count = add(
            logic.astype(zero, "int64"), scatter_add(logic.astype(zeros, "int64"), places, n)
        )
        parts = logic.where(zero, 1, x), logic.where(zeros, 1, updates)
        full = _COMBINE(*parts, places, reduce="prod")

        def others(value: Any, is_zero: Any, product: Any, among: Any) -> Any:
            lone = logic.logical_and(is_zero, logic.equal(among, 1))
            rest = divide(product, logic.where(is_zero, 1, value))
            live = logic.logical_or(lone, logic.equal(among, 0))
            return logic.where(live, rest, 0)

        at = [gather(v, places, 0) for v in (full, count, g)]
        return (
            multiply(g, others(x, zero, full, count)),
            multiply(at[2], others(updates, zeros, at[0], at[1])),
            None,
        )
    top = gather(stop_gradient(y), places, 0)
    mine = logic.astype(logic.equal(x, stop_gradient(y)), x.dtype.name)
    theirs = logic.astype(logic.equal(updates, top), x.dtype.name)
    share = divide(g, add(mine, scatter_add(theirs, places, n)))
    return multiply(mine, share), multiply(theirs, gather(share, places, 0)), None


_COMBINE = custom_op(
    "scatter_combine", _combine, _combine_vjp, infer=lambda x, u, p, reduce: (x.shape, x.dtype)
)


def _joined(reduce: str, flat: Any, updates: Any, places: Any) -> Any:
    return _COMBINE(flat, updates, _held(places, flat), reduce=reduce)


def scatter_add_along(x: Any, dim: int, index: Any, src: Any) -> Any:
    """torch.scatter_add (`gp.ops.scatter_add` makes a new array from rows): a copy of `x` with
    x[i, index[i, j, k], k] += src[i, j, k] for dim=1."""
    return scatter_reduce(x, dim, index, src, "sum")


def _lines(name: str, x: Any, dim: int, index: Any) -> tuple[int, Any]:
    axis = normalized_axis(dim, max(len(x.shape), 1), name)
    index = reshape(index_array(name, index, x), (-1,))
    return axis, wrapped(name, index, x.shape[axis] if len(x.shape) else 1)


def index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """torch.index_add: `alpha * source` added to rows of `x` along `dim`."""
    x, source = promote(x, source)
    if not len(x.shape):
        found = index_add(reshape(x, (1,)), 0, index, reshape(source, (-1,)), alpha=alpha)
        return reshape(found, ())
    axis, places = _lines("index_add", x, dim, index)
    _require_rows("index_add", x, axis, places, source)
    source = source if alpha == 1 else multiply(source, alpha)
    total = scatter_add(source, _held(places, x), x.shape[axis], axis)
    return add(x, total)


def _require_rows(name: str, x: Any, axis: int, places: Any, source: Any) -> None:
    wanted = (*x.shape[:axis], places.shape[0], *x.shape[axis + 1 :])
    if tuple(source.shape) != wanted:
        raise ShapeError(f"{name}: source is {describe(source)}, expected the shape {wanted}.")


def index_copy(x: Any, dim: int, index: Any, source: Any) -> Any:
    """torch.index_copy: rows of `x` along `dim` replaced by those of `source`."""
    x, source = promote(x, source)
    if not len(x.shape):
        return reshape(index_copy(reshape(x, (1,)), 0, index, reshape(source, (-1,))), ())
    axis, places = _lines("index_copy", x, dim, index)
    _require_rows("index_copy", x, axis, places, source)
    found = _written(swapaxes(x, 0, axis), swapaxes(source, 0, axis), places)
    return swapaxes(found, 0, axis)


def index_fill(x: Any, dim: int, index: Any, value: Any) -> Any:
    """torch.index_fill: rows of `x` along `dim` filled with one number."""
    x, value = promote(x, value)
    if not len(x.shape):
        return reshape(index_fill(reshape(x, (1,)), 0, index, value), ())
    axis, places = _lines("index_fill", x, dim, index)
    shape = (*x.shape[:axis], places.shape[0], *x.shape[axis + 1 :])
    return index_copy(x, axis, places, broadcast_to(beside(value, x), shape))


@checked
def put(x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """torch.put: elements of `x` in a row replaced (or added to) at indices of any shape."""
    x, source = promote(x, source)
    n = math.prod(x.shape)
    index = index_array("put", index, x)
    places = reshape(wrapped("put", index, n, "an array"), (math.prod(index.shape),))
    flat, updates = reshape(x, (n,)), reshape(source, (math.prod(source.shape),))
    if updates.shape != places.shape:
        raise ShapeError(f"put: source is {describe(source)}, indices are {describe(index)}.")
    new = add(flat, _summed(updates, places, n)) if accumulate else _written(flat, updates, places)
    return reshape(new, x.shape)


@checked
def scatter_nd(x: Any, indices: Any, updates: Any, reduction: str = "none") -> Any:
    """ONNX's ScatterND: slices of `x` replaced by updates, or joined with them.

    Args:
        x: (*sizes, *rest).
        indices: (*where, k): one index for each of the first k axes of `x`.
        updates: (*where, *x.shape[k:]).
        reduction: none, add, mul, max or min.
    """
    x, updates = promote(x, updates)
    kinds = {"none": "", "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    if reduction not in kinds:
        raise ArgumentError(
            f"scatter_nd: reduction is {shown(reduction)}, expected {', '.join(kinds)}."
        )
    indices = index_array("scatter_nd", indices, x)
    places, shape = nd_places("scatter_nd", x.shape, indices)
    if places is None:
        raise ShapeError(f"scatter_nd: {describe(indices)} name no axis of {describe(x)}.")
    count = math.prod(places.shape)
    rows = reshape(x, shape)
    if tuple(updates.shape) != (*indices.shape[:-1], *shape[1:]):
        raise ShapeError(f"scatter_nd: updates {describe(updates)} do not fit {describe(x)}.")
    updates, places = reshape(updates, (count, *shape[1:])), reshape(places, (count,))
    if reduction == "none":
        return reshape(_written(rows, updates, places), x.shape)
    if reduction == "add":
        return reshape(add(rows, _summed(updates, places, shape[0])), x.shape)
    return reshape(_joined(kinds[reduction], rows, updates, places), x.shape)
