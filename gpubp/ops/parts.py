"""Arrays in parts, and arrays made of the same part again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.constant import constant
from gpubp.ops.index import concat, gather, several
from gpubp.ops.order import whole
from gpubp.ops.shape import (
    as_shape,
    broadcast_to,
    reshape,
)
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import normalized_axis, promote, require_possible


def tile(x: Any, dims: int | Sequence[int]) -> Any:
    """`x` again and again along each axis."""
    (x,) = promote(x)
    times = as_shape(dims, "tile")
    ndim = max(len(times), len(x.shape))
    times = (*[1] * (ndim - len(times)), *times)
    shape = (*[1] * (ndim - len(x.shape)), *x.shape)
    require_possible("tile", [n * t for n, t in zip(shape, times)], x.dtype)
    spaced = [part for n in shape for part in (1, n)]
    wide = [part for n, t in zip(shape, times) for part in (t, n)]
    spread = broadcast_to(reshape(x, spaced), wide)
    return reshape(spread, [n * t for n, t in zip(shape, times)])


def repeat(x: Any, sizes: int | Sequence[int]) -> Any:
    """As torch's Tensor.repeat: `tile` with at least as many numbers as axes."""
    (x,) = promote(x)
    times = as_shape(sizes, "repeat")
    if len(times) < len(x.shape):
        raise ShapeError(
            f"repeat: {len(times)} numbers for {describe(x)}, expected one for each axis at least."
        )
    return tile(x, times)


def repeat_interleave(x: Any, repeats: Any, dim: int | None = None) -> Any:
    """Each element several times, one after the other.

    Args:
        x: any shape.
        repeats: how often: a number, or one for each element along the axis.
        dim: the axis; None: of the flattened array.

    Raises:
        ArgumentError: a number is negative, or there are not as many as elements.
    """
    (x,) = promote(x)
    if dim is None:
        x, dim = reshape(x, (-1,)), 0
    axis = normalized_axis(dim, len(x.shape), "repeat_interleave")
    try:
        times = np.asarray(repeats)
    except (RuntimeError, TypeError, ValueError):
        times = np.asarray("")  # of no shape
    if times.dtype.kind not in "iu" or times.ndim > 1 or (times < 0).any():
        raise ArgumentError("repeat_interleave: repeats must be whole numbers of at least 0.")
    if times.size not in (1, x.shape[axis]):
        raise ArgumentError(
            f"repeat_interleave: {times.size} repeats for {x.shape[axis]} elements, expected one "
            "for each."
        )
    each = np.broadcast_to(times.reshape(-1), (x.shape[axis],))
    require_possible("repeat_interleave", (int(each.sum()),))
    order = np.repeat(np.arange(x.shape[axis]), each)
    return gather(x, constant(order, x), axis)


def split(x: Any, split_size: int | Sequence[int], dim: int = 0) -> list[Any]:
    """Parts of `split_size` each, the last one of what is left; or of the sizes in a list.

    Raises:
        ArgumentError: a size is not positive. ShapeError: sizes do not add up to the axis.
    """
    (x,) = promote(x)
    axis = normalized_axis(dim, len(x.shape), "split")
    n = x.shape[axis]
    if isinstance(split_size, (list, tuple)):
        sizes = [whole("split", "a size", s) for s in split_size]
        if sum(sizes) != n or min(sizes, default=0) < 0:
            raise ShapeError(f"split: {sizes} do not add up to {n}, the size of axis {axis}.")
    else:
        size = whole("split", "split_size", split_size)
        if size < 1:
            raise ArgumentError(f"split: split_size is {size}, expected at least 1.")
        sizes = [min(size, n - start) for start in range(0, n, size)] or [0]
    return _parts(x, sizes, axis)


def tensor_split(x: Any, indices_or_sections: int | Sequence[int], dim: int = 0) -> list[Any]:
    """That many parts of nearly one size, the larger ones first; or parts that begin at indices.

    As torch.tensor_split and np.array_split: indices may be negative, or beyond the end.

    Raises:
        ArgumentError: fewer than one part, or what is no whole number.
    """
    (x,) = promote(x)
    axis = normalized_axis(dim, len(x.shape), "tensor_split")
    n = x.shape[axis]
    if isinstance(indices_or_sections, (list, tuple, np.ndarray)):
        given = [whole("tensor_split", "an index", i) for i in indices_or_sections]
        ends = [*[min(max(i + n if i < 0 else i, 0), n) for i in given], n]
    else:
        count = whole("tensor_split", "the number of parts", indices_or_sections)
        if count < 1:
            raise ArgumentError(f"tensor_split: {count} parts, expected at least 1.")
        ends = [n // count * (i + 1) + min(i + 1, n % count) for i in range(count)]
    starts = [0, *ends[:-1]]
    found = []
    for start, end in zip(starts, ends, strict=True):
        key = [slice(None)] * len(x.shape)
        key[axis] = slice(start, max(start, end))
        found.append(strided_slice(x, key))
    return found


def _parts(x: Any, sizes: Sequence[int], axis: int) -> list[Any]:
    found, start = [], 0
    for size in sizes:
        key = [slice(None)] * len(x.shape)
        key[axis] = slice(start, start + size)
        found.append(strided_slice(x, key))
        start += size
    return found


def chunk(x: Any, chunks: int, dim: int = 0) -> list[Any]:
    """At most `chunks` parts of one size (the last may be smaller); of nothing, all are empty."""
    (x,) = promote(x)
    count = whole("chunk", "chunks", chunks)
    if count < 1:
        raise ArgumentError(f"chunk: chunks is {count}, expected at least 1.")
    n = x.shape[normalized_axis(dim, len(x.shape), "chunk")]
    return split(x, [0] * count if not n else -(-n // count), dim)


def unbind(x: Any, dim: int = 0) -> list[Any]:
    """The elements along an axis, which is dropped."""
    (x,) = promote(x)
    axis = normalized_axis(dim, len(x.shape), "unbind")
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [reshape(p, rest) for p in _parts(x, [1] * x.shape[axis], axis)]


def hstack(arrays: Sequence[Any]) -> Any:
    """Arrays one after the other along axis 1 (vectors: axis 0)."""
    xs = [reshape(x, (1,)) if not x.shape else x for x in promote(*several("hstack", arrays))]
    return concat(xs, 0 if len(xs[0].shape) == 1 else 1)


def vstack(arrays: Sequence[Any]) -> Any:
    """Arrays, vectors as rows, one below the other."""
    xs = promote(*several("vstack", arrays))
    return concat([reshape(x, (1, -1)) if len(x.shape) < 2 else x for x in xs], 0)
