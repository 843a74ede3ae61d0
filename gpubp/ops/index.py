"""Indexed data movement: concat, gather, scatter_add; `x[key]` is in `getitem`.

Indices are int32 or int64, from 0 to the size of their axis minus 1. References check them and name
the offending one; concrete indices are checked when the function is called, also in a trace.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.arguments import shown
from gpubp.core import (
    Array,
    ArrayType,
    Indices,
    Kind,
    OpSpec,
    Typed,
    bind,
    checked_dtype,
    describe,
)
from gpubp.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from gpubp.ops.batched import concat_batched, gather_batched, scatter_batched
from gpubp.ops.logic import astype, equal
from gpubp.ops.shape import expand_dims
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import (
    beside,
    is_concrete,
    normalized_axis,
    promote,
    register,
    require_numeric,
    require_possible,
    require_same_dtype,
)

_Cotangents = tuple[Array | None, ...]


def require_integer(name: str, what: str, indices: Typed) -> None:
    """Raise DTypeError unless the dtype is int32 or int64."""
    if indices.dtype.kind != "i":
        raise DTypeError(f"{name}: {what} must be int32 or int64, got {describe(indices)}.")


def check_indices(name: str, indices: Any, size: int) -> None:
    """Raise IndexRangeError unless every concrete index is in [0, size)."""
    bad = (indices < 0) | (indices >= size)
    if bad.any():
        value = np.asarray(indices)[bad].flat[0]
        raise IndexRangeError(
            f"{name}: index {value} is out of range for an axis of size {size}. Indices start at "
            "0; negative ones are not taken from the end."
        )


def _concat_infer(*xs: Typed, axis: int) -> ArrayType:
    first = xs[0]
    require_same_dtype("concat", *xs)
    for x in xs:
        rest = (x.shape[:axis], x.shape[axis + 1 :], len(x.shape))
        if rest != (first.shape[:axis], first.shape[axis + 1 :], len(first.shape)):
            given = ", ".join(map(describe, xs))
            raise ShapeError(f"concat: arrays may differ along axis {axis} only, got {given}.")
    total = sum(x.shape[axis] for x in xs)
    return ArrayType((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def _concat_vjp(g: Array, y: Array, *xs: Array, axis: int) -> _Cotangents:
    parts: list[Array | None] = []
    start = 0
    for x in xs:
        key = [slice(None)] * x.ndim
        key[axis] = slice(start, start + x.shape[axis])
        parts.append(strided_slice(g, key))
        start += x.shape[axis]
    return tuple(parts)


def _gather_infer(x: Typed, indices: Typed, *, axis: int) -> ArrayType:
    require_integer("gather", "indices", indices)
    normalized_axis(axis, len(x.shape), "gather")
    return ArrayType((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)


def _gather_reference(x: Any, indices: Any, *, axis: int) -> Any:
    check_indices("gather", indices, x.shape[axis])
    return np.take(x, indices, axis=axis)


def _gather_vjp(g: Array, y: Array, x: Array, indices: Array, *, axis: int) -> _Cotangents:
    return bind(SCATTER_ADD, g, indices, axis=axis, size=x.shape[axis]), None


def _scatter_infer(updates: Typed, indices: Typed, *, axis: int, size: int) -> ArrayType:
    require_integer("scatter_add", "indices", indices)
    require_numeric("scatter_add", updates)
    after = axis + len(indices.shape)
    if updates.shape[axis:after] != indices.shape:
        raise ShapeError(
            f"scatter_add: updates {describe(updates)} must have the shape of the indices "
            f"{describe(indices)} from axis {axis} on."
        )
    return ArrayType((*updates.shape[:axis], size, *updates.shape[after:]), updates.dtype)


def _scatter_reference(updates: Any, indices: Any, *, axis: int, size: int) -> Any:
    check_indices("scatter_add", indices, size)
    after = axis + indices.ndim
    out = np.zeros((*updates.shape[:axis], size, *updates.shape[after:]), updates.dtype)
    np.add.at(out, (*[slice(None)] * axis, indices), updates)
    return out


def _scatter_vjp(
    g: Array, y: Array, updates: Array, indices: Array, *, axis: int, size: int
) -> _Cotangents:
    return bind(GATHER, g, indices, axis=axis), None


def _concat_reference(*xs: Any, axis: int) -> Any:
    return np.concatenate(xs, axis=axis)


def _concat_rows(inputs: int, *, axis: int) -> Sequence[int] | None:
    return range(inputs) if axis > 0 else None


def _gather_rows(inputs: int, *, axis: int) -> Sequence[int] | None:
    return (1,) if axis == 0 else (0,)


def _scatter_rows(inputs: int, *, axis: int, size: int) -> Sequence[int] | None:
    return (0,) if axis > 0 else ()  # along axis 0, a worker adds what falls into its rows


def _other_axis(order: tuple[int, ...], *, axis: int, **rest: Any) -> dict[str, Any]:
    """See `OpSpec.turned`; of one row of indices, so that ranks are equal."""
    return {"axis": order[axis], **rest}


CONCAT = register(
    OpSpec(
        "concat",
        Kind.MOVE,
        _concat_infer,
        _concat_reference,
        _concat_vjp,
        flops=0.0,
        row_inputs=_concat_rows,
        turned=_other_axis,
        batched=concat_batched,
    )
)
GATHER = register(
    OpSpec(
        "gather",
        Kind.MOVE,
        _gather_infer,
        _gather_reference,
        _gather_vjp,
        flops=0.0,
        indices=Indices(1, lambda x, indices, axis: x.shape[axis]),
        row_inputs=_gather_rows,
        turned=_other_axis,
        batched=gather_batched,
    )
)
SCATTER_ADD = register(
    OpSpec(
        "scatter_add",
        Kind.MOVE,
        _scatter_infer,
        _scatter_reference,
        _scatter_vjp,
        row_inputs=_scatter_rows,
        followed=True,
        turned=_other_axis,
        batched=scatter_batched,
    )
)


def several(name: str, arrays: Any) -> Sequence[Any]:
    """A sequence of arrays; ArgumentError if it is none."""
    if not hasattr(arrays, "__len__") or getattr(arrays, "shape", None) == ():
        raise ArgumentError(f"{name}: got {shown(arrays)}, expected a sequence of arrays.")
    found = list(arrays)
    if not found:
        raise ShapeError(f"{name}: got no arrays, expected one or more.")
    return found


def _count(op: str, name: str, value: Any) -> int:
    """A size, at least 0; ArgumentError or ShapeError if it is none."""
    try:
        found = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{op}: {name} is {shown(value)}, expected a whole number.") from None
    if found < 0:
        raise ShapeError(f"{op}: {name} is {found}, expected at least 0.")
    return found


def concat(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Arrays one after the other along `axis`.

    Raises:
        ShapeError: there are none, or they differ along another axis.
    """
    xs = promote(*several("concat", arrays))
    if not xs or not xs[0].shape:
        raise ShapeError("concat: expected one or more arrays of at least one dimension.")
    return bind(CONCAT, *xs, axis=normalized_axis(axis, len(xs[0].shape), "concat"))


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """`concat` by torch's name and arguments."""
    return concat(tensors, dim)


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Arrays along a new axis. Raises ShapeError if there are none or shapes differ."""
    xs = promote(*several("stack", arrays))
    if any(x.shape != xs[0].shape for x in xs):
        given = ", ".join(map(describe, xs))
        raise ShapeError(f"stack: arrays must have one shape, got {given}.")
    return concat([expand_dims(x, axis) for x in xs], axis)


def gather(x: Any, indices: Any, axis: int = 0) -> Any:
    """`x` at integer indices along `axis`, as np.take: that axis becomes the indices' shape.

    Args:
        x: any shape with at least one dimension.
        indices: int32 or int64, any shape, from 0 to x.shape[axis] - 1.
        axis: the indexed axis.

    Raises:
        IndexRangeError: an index is out of range (negative ones included).
        DTypeError: indices are not integers.
    """
    (x,), (found,) = promote(x), promote(indices)
    axis = normalized_axis(axis, len(x.shape), "gather")
    require_integer("gather", "indices", found)
    if is_concrete(found):
        check_indices("gather", found, x.shape[axis])
    return bind(GATHER, x, found, axis=axis)


def scatter_add(updates: Any, indices: Any, size: int, axis: int = 0) -> Any:
    """Zeros of `size` along `axis`, with each update added at its index, in the order of indices.

    Args:
        updates: (*before, *indices.shape, *after).
        indices: int32 or int64, from 0 to size - 1.
        size: of the result's axis.
        axis: where the indices' axes start in `updates`: the number of axes before.

    Returns:
        (*before, size, *after), the dtype of `updates`.

    Raises:
        IndexRangeError: an index is out of range.
        ShapeError: `updates` does not have the indices' shape at `axis`, or `size` is more than any
            memory holds.
    """
    (values,), (found,) = promote(updates), promote(indices)
    size = _count("scatter_add", "size", size)
    require_integer("scatter_add", "indices", found)
    before = normalized_axis(axis, len(values.shape) - len(found.shape) + 1, "scatter_add")
    require_possible("scatter_add", (size,), values.dtype)
    if is_concrete(found):
        check_indices("scatter_add", found, size)
    return bind(SCATTER_ADD, values, found, axis=before, size=size)


def one_hot(labels: Any, num_classes: int, dtype: Any = "float32") -> Any:
    """1 at each label's place along a new last axis, else 0; a label out of range gives zeros.

    Args:
        labels: (...) int32 or int64.
        num_classes: the size of the new axis.
        dtype: of the result, shape (..., num_classes).
    """
    (found,) = promote(labels)
    require_integer("one_hot", "labels", found)
    count = _count("one_hot", "num_classes", num_classes)
    require_possible("one_hot", (*found.shape, count), found.dtype)
    classes = beside(np.arange(count, dtype=found.dtype), found)
    return astype(equal(expand_dims(found, -1), classes), checked_dtype(dtype))
