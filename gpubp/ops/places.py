"""Elements at index arrays: negative indices, several axes, torch's `gather` along an axis.

All of it is one `gather` from the elements in a row. Indices are of int32 or int64, from -n to
n - 1; concrete ones are checked at once, traced ones in the run: what is out of range becomes -1,
which the kernels refuse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown
from gpubp.core import describe
from gpubp.core.interop import TO_GPU, TO_HOST, on_device
from gpubp.errors import ArgumentError, DataError, IndexRangeError, ShapeError, TraceError
from gpubp.ops import logic
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import add, multiply
from gpubp.ops.index import gather, require_integer
from gpubp.ops.shape import broadcast_to, reshape, transpose
from gpubp.ops.spec import beside, is_concrete, normalized_axis, operand, promote


def index_array(name: str, indices: Any, like: Any) -> Any:
    """Integers in int64, where `like` is. Raises DTypeError if they are none."""
    if not hasattr(indices, "dtype"):
        try:
            found = np.asarray(indices)
        except (RuntimeError, TypeError, ValueError):
            raise ArgumentError(
                f"{name}: indices are {shown(indices)}, expected an array of whole numbers."
            ) from None
        indices = beside(found.astype(np.int64) if not found.size else found, like)
    if on_device(like) and isinstance(indices, np.ndarray) and indices.ndim:
        raise DataError(
            f"{name}: an array on a GPU and NumPy indices do not mix. Copy them to the GPU "
            f"with {TO_GPU}, or the array to the host with {TO_HOST}."
        )
    found = operand(indices)
    require_integer(name, "indices", found)
    return logic.astype(found, "int64")


def wrapped(name: str, indices: Any, size: int, what: str = "an axis") -> Any:
    """Indices from 0 on, negative ones counted from the end; -1 for those out of range.

    Raises:
        IndexRangeError: a concrete index is out of range; any one is where the axis is empty.
    """
    if not size and math.prod(indices.shape):
        raise IndexRangeError(
            f"{name}: {describe(indices)} index {what} of size 0, where nothing is. Give no "
            "indices, or an array that is not empty."
        )
    if is_concrete(indices):
        bad = (indices < -size) | (indices >= size)
        if bad.any():
            raise IndexRangeError(
                f"{name}: index {indices[bad].flat[0]} is out of range for {what} of size {size}."
            )
        return np.where(indices < 0, indices + size, indices)
    below = logic.less(indices, 0)
    found = logic.where(below, add(indices, size), indices)
    right = logic.logical_and(logic.greater_equal(found, 0), logic.less(found, size))
    return logic.where(right, found, -1)


def flat_places(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """One index into the elements in a row from one for each axis; -1 where one of them is."""
    total: Any = None
    right: Any = None
    stride = 1
    for part, size in zip(reversed(parts), reversed(sizes), strict=True):
        scaled = part if stride == 1 else multiply(part, stride)
        total = scaled if total is None else add(total, scaled)
        if not is_concrete(part):
            ok = logic.greater_equal(part, 0)
            right = ok if right is None else logic.logical_and(right, ok)
        stride *= size
    return total if right is None else logic.where(right, total, -1)


def _line(n: int, axis: int, ndim: int) -> Any:
    """0 to n - 1 along one of several axes."""
    return np.arange(n, dtype=np.int64).reshape([-1 if i == axis else 1 for i in range(ndim)])


def along(name: str, shape: Sequence[int], indices: Any, axis: int) -> Any:
    """Flat places in an array of `shape` of the elements (i, ..., indices[i, ..., k], ..., k)."""
    parts: list[Any] = []
    for i, n in enumerate(indices.shape):
        if i == axis:
            parts.append(wrapped(name, indices, shape[axis]))
            continue
        if n > shape[i]:
            raise ShapeError(
                f"{name}: indices {describe(indices)} are longer along axis {i} than {shape[i]}."
            )
        line = _line(n, i, len(shape))
        parts.append(line if is_concrete(indices) else constant(line, indices))
    return flat_places(parts, shape)


def _aligned(name: str, x: Any, indices: Any) -> None:
    if len(x.shape) != len(indices.shape):
        raise ShapeError(
            f"{name}: indices {describe(indices)} must have as many axes as {describe(x)}."
        )


def _lifted(indices: Any, like: Any) -> Any:
    return constant(indices, like) if is_concrete(indices) else indices


def take_along_dim(x: Any, indices: Any, dim: int | None = None) -> Any:
    """torch.take_along_dim: one element for each index, the other axes side by side (broadcast).

    Without `dim` both are taken as they lie, in a row. torch.gather is this, too, for indices that
    are shorter than `x` along other axes: it takes the first ones there.

    Raises:
        IndexRangeError: an index is not in -n to n - 1.
        ShapeError: numbers of axes differ.
    """
    (x,) = promote(x)
    indices = index_array("take_along_dim", indices, x)
    if dim is None:
        x, indices, dim = reshape(x, (-1,)), reshape(indices, (-1,)), 0
    if not len(x.shape) and not len(indices.shape):
        return reshape(take_along_dim(reshape(x, (1,)), reshape(indices, (1,)), 0), ())
    _aligned("take_along_dim", x, indices)
    axis = normalized_axis(dim, len(x.shape), "take_along_dim")
    pairs = list(zip(x.shape, indices.shape, strict=True))
    x = broadcast_to(x, tuple(n if i == axis or n != 1 else m for i, (n, m) in enumerate(pairs)))
    wide = tuple(m if i == axis or m != 1 else n for i, (n, m) in enumerate(pairs))
    return pick(x, along("take_along_dim", x.shape, broadcast_to(indices, wide), axis))


def gather_along(x: Any, dim: int, index: Any) -> Any:
    """torch.gather: out[i, j, k] = x[i, index[i, j, k], k] for dim=1; nothing is broadcast."""
    (x,) = promote(x)
    index = index_array("gather_along", index, x)
    if not len(x.shape):
        return reshape(gather_along(reshape(x, (1,)), 0, reshape(index, (-1,))), index.shape)
    _aligned("gather_along", x, index)
    axis = normalized_axis(dim, len(x.shape), "gather_along")
    return pick(x, along("gather_along", x.shape, index, axis))


def pick(x: Any, places: Any) -> Any:
    """Elements of `x` at flat places."""
    return rows_at(reshape(x, (math.prod(x.shape),)), places, 0)


def rows_at(x: Any, places: Any, axis: int) -> Any:
    """`x` at places of any shape along `axis`, gathered as one row of indices."""
    line = reshape(places, (math.prod(places.shape),))
    found = gather(x, _lifted(line, x), axis)
    return reshape(found, (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


def take(x: Any, index: Any) -> Any:
    """torch.take: elements of `x` in a row, at indices of any shape; negative ones from the end."""
    (x,) = promote(x)
    index = index_array("take", index, x)
    return pick(x, wrapped("take", index, math.prod(x.shape), "an array"))


def index_select(x: Any, dim: int, index: Any) -> Any:
    """torch.index_select: rows of `x` along `dim` at a vector of indices."""
    (x,) = promote(x)
    index = reshape(index_array("index_select", index, x), (-1,))
    if not len(x.shape):
        return reshape(gather(reshape(x, (1,)), index, 0), ())
    axis = normalized_axis(dim, len(x.shape), "index_select")
    return gather(x, _lifted(wrapped("index_select", index, x.shape[axis]), x), axis)


@checked
def gather_nd(x: Any, indices: Any, batch_dims: int = 0) -> Any:
    """ONNX's GatherND: the last axis of `indices` holds one index for each leading axis of `x`.

    Args:
        x: (*batch, *sizes, *rest).
        indices: (*batch, *where, k), k <= x.ndim - batch_dims.
        batch_dims: how many leading axes both share.

    Returns:
        (*batch, *where, *x.shape[batch_dims + k:]).
    """
    (x,) = promote(x)
    indices = index_array("gather_nd", indices, x)
    places, rows = nd_places("gather_nd", x.shape, indices, batch_dims)
    if places is None:
        raise ShapeError(f"gather_nd: indices {describe(indices)} name no axis of {describe(x)}.")
    return rows_at(reshape(x, rows), places, 0)


def nd_places(name: str, shape: Sequence[int], indices: Any, batch: int = 0) -> tuple[Any, Any]:
    """Flat places of the rows that `indices` name, and the shape of all rows."""
    k = indices.shape[-1] if indices.shape else 0
    if not len(indices.shape) or batch + k > len(shape) or batch >= len(indices.shape):
        raise ShapeError(
            f"{name}: the last axis of indices {describe(indices)} has one index for each of the "
            f"first axes of {tuple(shape)}."
        )
    used = batch + k
    where = indices.shape[:-1]
    parts: list[Any] = []
    for i in range(batch):
        line = _line(shape[i], i, len(where))
        parts.append(line if is_concrete(indices) else constant(line, indices))
    for i in range(k):
        parts.append(wrapped(name, indices[..., i], shape[batch + i]))
    rest = tuple(shape[used:])
    return flat_places(parts, shape[:used]), (math.prod(shape[:used]), *rest)


def at_arrays(x: Any, axes: Sequence[int], arrays: Sequence[Any], joined: bool) -> Any:
    """`x` at index arrays that stand on `axes`, by NumPy's rules.

    Args:
        x: any array.
        axes: of `x`, rising.
        arrays: int64 arrays that broadcast together.
        joined: nothing stands between them in the key: their axes replace `axes` in place;
            otherwise they come first.
    """
    sizes = [x.shape[a] for a in axes]
    places = flat_places(
        [wrapped("x[key]", i, n) for i, n in zip(arrays, sizes, strict=True)], sizes
    )
    others = [i for i in range(len(x.shape)) if i not in axes]
    before = [i for i in others if i < axes[0]] if joined else []
    after = [i for i in others if i not in before]
    turned = transpose(x, (*before, *axes, *after))
    kept = [x.shape[i] for i in before], [x.shape[i] for i in after]
    flat = reshape(turned, (*kept[0], math.prod(sizes), *kept[1]))
    return rows_at(flat, places, len(before))


def mask_places(name: str, mask: Any) -> tuple[Any, ...]:
    """Where a boolean array is true, one vector of indices for each axis. TraceError in a trace."""
    if not is_concrete(mask):
        raise TraceError(
            f"{name}: how many elements are true is not known while tracing, and shapes are "
            "static. Use gp.ops.where, or call this outside of compiled functions."
        )
    return tuple(i.astype(np.int64) for i in np.nonzero(np.atleast_1d(mask)))
