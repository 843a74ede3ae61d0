"""What undoes a max pool: each value back where it stood, zeros elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.core import Array, ArrayType, Indices, Kind, OpSpec, Shape, Typed, bind, describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.elementwise import add
from gpubp.ops.index import check_indices, gather, require_integer
from gpubp.ops.pooling import steps_of
from gpubp.ops.shape import reshape
from gpubp.ops.spatial import batched, each_axis, unbatched
from gpubp.ops.spec import beside, is_concrete, promote, register, require_float, require_possible


def _infer(values: Typed, indices: Typed, *, size: int) -> ArrayType:
    require_float("unpool", values)
    require_integer("unpool", "indices", indices)
    if values.shape != indices.shape or len(values.shape) != 2:
        raise ShapeError(
            f"unpool: expected rows and their indices, got {describe(values)} and "
            f"{describe(indices)}."
        )
    return ArrayType((values.shape[0], size), values.dtype)


def _reference(values: Any, indices: Any, *, size: int) -> Any:
    check_indices("unpool", indices, size)
    out = np.zeros((values.shape[0], size), values.dtype)
    rows = np.arange(values.shape[0])
    for i in range(values.shape[1]):
        out[rows, indices[:, i]] = values[:, i]
    return out


def _vjp(
    g: Array, y: Array, values: Array, indices: Array, *, size: int
) -> tuple[Array | None, None]:
    first = np.arange(values.shape[0], dtype=indices.dtype)[:, None] * size
    found: Array = gather(reshape(g, (-1,)), add(indices, beside(first, g)))
    return found, None


# out[r, indices[r, i]] = values[r, i], into zeros; of equal indices the last one counts.
UNPOOL = register(
    OpSpec(
        "unpool",
        Kind.ROWWISE,
        _infer,
        _reference,
        _vjp,
        flops=0.0,
        indices=Indices(1, lambda values, indices, size: size),
    )
)


def _sizes(
    op: str, found: Shape, kernel: Shape, stride: Shape, padding: Shape, output_size: Any
) -> Shape:
    usual = tuple(
        (n - 1) * s + k - 2 * p for n, s, k, p in zip(found, stride, kernel, padding, strict=True)
    )
    if output_size is None:
        sizes = usual
    else:
        given = tuple(output_size) if isinstance(output_size, (tuple, list)) else output_size
        if isinstance(given, tuple) and len(given) == len(kernel) + 2:
            given = given[2:]
        sizes = each_axis(op, "output_size", given, len(kernel), least=0)
        if any(not u - s < n < u + s for n, u, s in zip(sizes, usual, stride, strict=True)):
            raise ArgumentError(
                f"{op}: output_size is {sizes}, expected each to be nearer than its stride "
                f"{stride} to {usual}."
            )
    if any(n < 1 for n in sizes):
        raise ShapeError(f"{op}: padding {padding} leaves nothing: {sizes}.")
    return sizes


def _unpooled(
    op: str,
    axes: int,
    x: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    output_size: Any,
) -> Any:
    (x,), (found,) = promote(x, floating=True), promote(indices)
    require_integer(op, "indices", found)
    if tuple(x.shape) != tuple(found.shape):
        raise ShapeError(f"{op}: expected an index for each value, got {describe(found)}.")
    x, added = batched(op, x, axes)
    kernel = each_axis(op, "kernel_size", kernel_size, axes)
    steps = steps_of(op, stride, kernel)
    around = each_axis(op, "padding", padding, axes, least=0)
    sizes = _sizes(op, tuple(x.shape[2:]), kernel, steps, around, output_size)
    require_possible(op, (*x.shape[:2], *sizes), x.dtype)
    size = math.prod(sizes)
    if is_concrete(found):
        check_indices(op, found, size)
    rows = (math.prod(x.shape[:2]), math.prod(x.shape[2:]))
    y = bind(UNPOOL, reshape(x, rows), reshape(found, rows), size=size)
    return unbatched(reshape(y, (*x.shape[:2], *sizes)), added)


def max_unpool1d(
    x: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Values back where they stood; see `max_unpool2d`. x (N, C, W) or (C, W)."""
    given = indices, kernel_size, stride, padding, output_size
    return _unpooled("max_unpool1d", 1, x, *given)


def max_unpool2d(
    x: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Each value where `max_pool2d` found it, zeros elsewhere. Of equal indices the last counts.

    Args:
        x: (N, C, H, W) or (C, H, W).
        indices: of x's shape: flat indices into (H', W'), as `max_pool2d` returns them.
        kernel_size, stride, padding: of the pool that is undone.
        output_size: (H', W') or (N, C, H', W'), where several sizes give the same x.

    Returns:
        (N, C, H', W') or (C, H', W').

    Raises:
        ShapeError: the shapes differ, or nothing would be left.
        IndexRangeError: an index is out of range.
        ArgumentError: a number that cannot be.
    """
    given = indices, kernel_size, stride, padding, output_size
    return _unpooled("max_unpool2d", 2, x, *given)


def max_unpool3d(
    x: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Values back where they stood; see `max_unpool2d`. x (N, C, D, H, W) or (C, D, H, W)."""
    given = indices, kernel_size, stride, padding, output_size
    return _unpooled("max_unpool3d", 3, x, *given)
