"""Rules of look-ups and writes by indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.errors import ArgumentError
from gpubp.torch.rules import rule, same

same(
    {
        "index_select": ops.index_select,
        "take": ops.take,
        "take_along_dim": ops.take_along_dim,
        "index_copy": ops.index_copy,
        "put": ops.put,
        "searchsorted.Tensor": ops.searchsorted,
        "scatter_add": ops.scatter_add_along,
    }
)


@rule("index.Tensor", "_unsafe_index")
def index(x: Any, indices: Sequence[Any]) -> Any:
    """x[i, :, j, ...]: by arrays of integers or of booleans of which so many are set."""
    return ops.getitem(x, _key(indices))


def _key(indices: Sequence[Any]) -> tuple[Any, ...]:
    for i in indices:
        if i is not None and i.dtype == np.bool_ and not isinstance(i, np.ndarray):
            raise ArgumentError(
                "how many elements a mask picks depends on its numbers, and a step's shapes are "
                "fixed. Use torch.where(mask, x, 0), and divide by mask.sum() for a mean."
            )
    return tuple(slice(None) if i is None else i for i in indices)


@rule("index_put")
def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """x[i, j] = values, or += values; x[mask] = a number."""
    if len(indices) == 1 and indices[0].dtype == np.bool_:
        return _masked_put(x, indices[0], values, accumulate)
    shape = tuple(x.shape)
    places = np.arange(int(np.prod(shape))).reshape(shape)
    where = ops.getitem(places, _key(indices))
    values = ops.broadcast_to(ops.astype(values, x.dtype), tuple(where.shape))
    return ops.put(x, where, values, bool(accumulate))


def _masked_put(x: Any, mask: Any, values: Any, accumulate: bool) -> Any:
    if int(np.prod(values.shape)) != 1:
        raise ArgumentError(
            "a mask picks so many elements as its numbers say, and a step's shapes are fixed. Use "
            "torch.where(mask, values, x) with values of x's shape."
        )
    mask = ops.reshape(mask, (*mask.shape, *[1] * (len(x.shape) - len(mask.shape))))
    value = ops.reshape(values, ())
    return ops.where(mask, ops.add(x, value) if accumulate else value, x)


@rule("gather")
def gather(x: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
    """Elements along an axis, by an array of the result's shape."""
    return ops.gather_along(x, dim, index)


@rule("scatter.src")
def scatter(x: Any, dim: int, index: Any, src: Any) -> Any:
    """Elements along an axis replaced."""
    return ops.scatter(x, dim, index, src)


@rule("scatter.value")
def scatter_value(x: Any, dim: int, index: Any, value: Any) -> Any:
    """Elements along an axis replaced by a number."""
    return ops.scatter(x, dim, index, ops.full(tuple(index.shape), value, x.dtype))


@rule("scatter_reduce.two")
def scatter_reduce(
    x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True
) -> Any:
    """Elements along an axis joined with others."""
    return ops.scatter_reduce(x, dim, index, src, reduce, include_self)


@rule("index_add")
def index_add(x: Any, dim: int, index: Any, source: Any, alpha: Any = 1) -> Any:
    """Slices added."""
    return ops.index_add(x, dim, index, source, alpha=alpha)


@rule("index_fill.int_Scalar")
def index_fill(x: Any, dim: int, index: Any, value: Any) -> Any:
    """Slices replaced by a number."""
    return ops.index_fill(x, dim, index, value)


@rule("select_scatter")
def select_scatter(x: Any, src: Any, dim: int, index: int) -> Any:
    """One place along an axis replaced."""
    return _placed(x, src, (*[slice(None)] * (dim % len(x.shape)), index))


@rule("slice_scatter")
def slice_scatter(
    x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    """A range along an axis replaced."""
    return _placed(x, src, (*[slice(None)] * (dim % len(x.shape)), slice(start, end, step)))


def _placed(x: Any, src: Any, key: tuple[Any, ...]) -> Any:
    places = np.arange(int(np.prod(x.shape))).reshape(tuple(x.shape))[key]
    return ops.put(x, places, ops.broadcast_to(src, places.shape))


@rule("copy")
def copy(x: Any, src: Any, non_blocking: bool = False) -> Any:
    """Other numbers in the shape of the first."""
    return ops.broadcast_to(ops.astype(src, x.dtype), tuple(x.shape))


@rule("tril")
def tril(x: Any, diagonal: int = 0) -> Any:
    """0 above a diagonal."""
    return ops.tril(x, diagonal)


@rule("triu")
def triu(x: Any, diagonal: int = 0) -> Any:
    """0 below a diagonal."""
    return ops.triu(x, diagonal)


@rule("diag")
def diag(x: Any, diagonal: int = 0) -> Any:
    """A matrix of a diagonal, or a diagonal of a matrix."""
    return ops.diag(x, diagonal)


@rule("diag_embed")
def diag_embed(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Matrices of diagonals."""
    return ops.diag_embed(x, offset, dim1, dim2)


@rule("one_hot")
def one_hot(x: Any, num_classes: int = -1) -> Any:
    """1 at each label's place."""
    return ops.one_hot(x, num_classes, "int64")


@rule("bucketize.Tensor")
def bucketize(x: Any, boundaries: Any, out_int32: bool = False, right: bool = False) -> Any:
    """Between which boundaries each lies."""
    return ops.bucketize(x, boundaries, right)
