"""Views: the same memory read through another shape. Their references are NumPy views.

Attributes are normalised by the public functions: no -1 in shapes, no negative axes; `slice` has
one (start, stop, step) an axis as `slice.indices` gives them, so a stop of -1 with a negative step
means "through element 0".
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.core import Array, ArrayType, Kind, OpSpec, Shape, Typed, bind, describe
from gpubp.core.strided import Strided, c_strides
from gpubp.errors import ShapeError
from gpubp.ops.spec import (
    broadcast_shape,
    normalized_axes,
    normalized_axis,
    promote,
    register,
    unbroadcast,
)

_Cotangents = tuple[Array | None, ...]


_Layout = Callable[..., Strided | None]


def _view(
    name: str, infer: Any, reference: Any, vjp: Callable[..., _Cotangents], layout: _Layout
) -> OpSpec:
    return register(OpSpec(name, Kind.VIEW, infer, reference, vjp, flops=0.0, view=layout))


def as_shape(shape: Any, name: str) -> Shape:
    """A tuple of ints from an int or a sequence; ShapeError if it is neither."""
    parts = shape if isinstance(shape, (tuple, list)) else (shape,)
    try:
        return tuple(operator.index(n) for n in parts)
    except TypeError as err:
        raise ShapeError(f"{name}: expected a shape of whole numbers, got {shape!r}.") from err


def _reshape_infer(x: Typed, *, shape: Shape) -> ArrayType:
    if math.prod(shape) != math.prod(x.shape) or any(n < 0 for n in shape):
        raise ShapeError(f"reshape: {describe(x)} does not fit into {shape}.")
    return ArrayType(shape, x.dtype)


def _reshape_layout(source: Strided, shape: Shape, /, **_: Any) -> Strided | None:
    if source.contiguous or math.prod(shape) == 0:
        return Strided(source.offset, shape, c_strides(shape))
    dims = [(n, s) for n, s in zip(source.shape, source.strides) if n != 1]
    if all(s == 0 for _, s in dims):
        return Strided(source.offset, shape, (0,) * len(shape))
    if tuple(n for n, _ in dims) == tuple(n for n in shape if n != 1):
        rest = iter(s for _, s in dims)
        return Strided(source.offset, shape, tuple(0 if n == 1 else next(rest) for n in shape))
    return None


def _transpose_infer(x: Typed, *, axes: tuple[int, ...]) -> ArrayType:
    if sorted(axes) != list(range(len(x.shape))):
        raise ShapeError(f"transpose: {axes} is not a permutation of the axes of {describe(x)}.")
    return ArrayType(tuple(x.shape[a] for a in axes), x.dtype)


def _transpose_vjp(g: Array, y: Array, x: Array, *, axes: tuple[int, ...]) -> _Cotangents:
    return (transpose(g, tuple(axes.index(i) for i in range(len(axes)))),)


def _transpose_layout(source: Strided, shape: Shape, /, *, axes: tuple[int, ...]) -> Strided:
    return Strided(source.offset, shape, tuple(source.strides[a] for a in axes))


def _broadcast_infer(x: Typed, *, shape: Shape) -> ArrayType:
    if broadcast_shape(x, ArrayType(shape, x.dtype)) != shape:
        raise ShapeError(f"broadcast_to: {describe(x)} does not broadcast to {shape}.")
    return ArrayType(shape, x.dtype)


def _broadcast_layout(source: Strided, shape: Shape, /, **_: Any) -> Strided:
    extra = len(shape) - len(source.shape)
    strides = tuple(
        s if n == m else 0 for s, n, m in zip(source.strides, source.shape, shape[extra:])
    )
    return Strided(source.offset, shape, (0,) * extra + strides)


def _slices(starts: Shape, stops: Shape, steps: Shape) -> tuple[slice, ...]:
    return tuple(
        slice(start, None if stop < 0 else stop, step)
        for start, stop, step in zip(starts, stops, steps, strict=True)
    )


def _slice_infer(x: Typed, *, starts: Shape, stops: Shape, steps: Shape) -> ArrayType:
    if not len(starts) == len(stops) == len(steps) == len(x.shape) or 0 in steps:
        raise ShapeError(f"slice: {starts}, {stops}, {steps} do not describe {describe(x)}.")
    shape = tuple(len(range(*part)) for part in zip(starts, stops, steps, strict=True))
    for n, size, start, step in zip(shape, x.shape, starts, steps, strict=True):
        if n and not (0 <= start < size and 0 <= start + (n - 1) * step < size):
            raise ShapeError(f"slice: {starts}, {stops}, {steps} leave {describe(x)}.")
    return ArrayType(shape, x.dtype)


def _slice_reference(x: Any, *, starts: Shape, stops: Shape, steps: Shape) -> Any:
    return x[_slices(starts, stops, steps)]


def _slice_layout(
    source: Strided, shape: Shape, /, *, starts: Shape, stops: Shape, steps: Shape
) -> Strided:
    offset = source.offset + sum(a * s for a, s in zip(starts, source.strides))
    return Strided(offset, shape, tuple(a * s for a, s in zip(steps, source.strides)))


def _slice_vjp(
    g: Array, y: Array, x: Array, *, starts: Shape, stops: Shape, steps: Shape
) -> _Cotangents:
    return (bind(UNSLICE, g, shape=x.shape, starts=starts, steps=steps),)


def _stops(lengths: Shape, starts: Shape, steps: Shape) -> Shape:
    """The stops that give slices of these lengths."""
    return tuple(max(a + n * s, -1) for n, a, s in zip(lengths, starts, steps, strict=True))


def _unslice_infer(g: Typed, *, shape: Shape, starts: Shape, steps: Shape) -> ArrayType:
    whole = ArrayType(shape, g.dtype)
    part = _slice_infer(whole, starts=starts, stops=_stops(g.shape, starts, steps), steps=steps)
    if part.shape != g.shape:
        raise ShapeError(f"unslice: {describe(g)} does not fit into {shape} at {starts}.")
    return whole


def _unslice_reference(g: Any, *, shape: Shape, starts: Shape, steps: Shape) -> Any:
    out = np.zeros(shape, g.dtype)
    out[_slices(starts, _stops(g.shape, starts, steps), steps)] = g
    return out


def _unslice_vjp(
    g: Array, y: Array, x: Array, *, shape: Shape, starts: Shape, steps: Shape
) -> _Cotangents:
    stops = _stops(x.shape, starts, steps)
    return (bind(SLICE, g, starts=starts, stops=stops, steps=steps),)


def _same_infer(x: Typed) -> ArrayType:
    return ArrayType(x.shape, x.dtype)


RESHAPE = _view(
    "reshape",
    _reshape_infer,
    lambda x, shape: x.reshape(shape),
    lambda g, y, x, shape: (reshape(g, x.shape),),
    _reshape_layout,
)
TRANSPOSE = _view("transpose", _transpose_infer, np.transpose, _transpose_vjp, _transpose_layout)
BROADCAST_TO = _view(
    "broadcast_to",
    _broadcast_infer,
    np.broadcast_to,
    lambda g, y, x, shape: (unbroadcast(g, x),),
    _broadcast_layout,
)
SLICE = _view("slice", _slice_infer, _slice_reference, _slice_vjp, _slice_layout)
STOP_GRADIENT = _view(
    "stop_gradient",
    _same_infer,
    lambda x: x,
    lambda g, y, x: (None,),
    lambda source, shape: source,
)
UNSLICE = register(
    OpSpec("unslice", Kind.MOVE, _unslice_infer, _unslice_reference, _unslice_vjp, flops=0.0)
)


def reshape(x: Any, shape: int | Sequence[int]) -> Any:
    """The same elements in C order in another shape; one size may be -1.

    Raises:
        ShapeError: the number of elements differs, or the -1 is not determined.
    """
    (x,) = promote(x)
    wanted = as_shape(shape, "reshape")
    if wanted.count(-1) == 1:
        known = -math.prod(wanted)
        size = math.prod(x.shape)
        if known == 0 or size % known:
            raise ShapeError(f"reshape: {describe(x)} does not fit into {wanted}.")
        wanted = tuple(size // known if n == -1 else n for n in wanted)
    return x if wanted == x.shape else bind(RESHAPE, x, shape=wanted)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """The axes in another order; reversed by default. Raises ShapeError if not a permutation."""
    (x,) = promote(x)
    ndim = len(x.shape)
    wanted = tuple(range(ndim))[::-1] if axes is None else as_shape(axes, "transpose")
    order = tuple(normalized_axis(a, ndim, "transpose") for a in wanted)
    return x if order == tuple(range(ndim)) else bind(TRANSPOSE, x, axes=order)


def swapaxes(x: Any, first: int, second: int) -> Any:
    """Two axes exchanged. Raises ShapeError if one is out of range."""
    (x,) = promote(x)
    ndim = len(x.shape)
    order = list(range(ndim))
    a, b = normalized_axis(first, ndim, "swapaxes"), normalized_axis(second, ndim, "swapaxes")
    order[a], order[b] = b, a
    return transpose(x, order)


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Any:
    """`x` repeated to `shape` by NumPy's rules. Raises ShapeError if it does not broadcast."""
    (x,) = promote(x)
    wanted = as_shape(shape, "broadcast_to")
    return x if wanted == x.shape else bind(BROADCAST_TO, x, shape=wanted)


def strided_slice(x: Any, slices: Sequence[slice]) -> Any:
    """`x[slices]` with one slice for each axis, of any steps."""
    (x,) = promote(x)
    parts = []
    for part, n in zip(slices, x.shape, strict=True):
        start, stop, step = part.indices(n)
        parts.append((start, stop, step) if len(range(start, stop, step)) else (0, 0, 1))
    if all(p == (0, n, 1) for p, n in zip(parts, x.shape, strict=True)):
        return x
    starts, stops, steps = zip(*parts, strict=True)
    return bind(SLICE, x, starts=starts, stops=stops, steps=steps)


def stop_gradient(x: Any) -> Any:
    """`x`, treated as a constant by differentiation."""
    return bind(STOP_GRADIENT, *promote(x))


def squeeze(x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """Axes of size 1 removed: the ones named, or all. Raises ShapeError if one is not of size 1."""
    (x,) = promote(x)
    ones = [i for i, n in enumerate(x.shape) if n == 1]
    axes = ones if axis is None else normalized_axes(axis, len(x.shape), "squeeze")
    if not set(axes) <= set(ones):
        raise ShapeError(f"squeeze: axis {axis} of {describe(x)} is not of size 1.")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


def expand_dims(x: Any, axis: int | tuple[int, ...]) -> Any:
    """New axes of size 1 at these positions of the result. Raises ShapeError if out of range."""
    (x,) = promote(x)
    count = len(axis) if isinstance(axis, tuple) else 1
    axes = normalized_axes(axis, len(x.shape) + count, "expand_dims")
    rest = iter(x.shape)
    ndim = len(x.shape) + count
    return reshape(x, tuple(1 if i in axes else next(rest) for i in range(ndim)))


def ravel(x: Any) -> Any:
    """All elements in C order, shape (n,)."""
    return flatten(x)


def flatten(x: Any, start_axis: int = 0, end_axis: int = -1) -> Any:
    """The axes from `start_axis` through `end_axis` made one; a scalar becomes shape (1,).

    Raises:
        ShapeError: an axis is out of range, or the end comes before the start.
    """
    (x,) = promote(x)
    if not x.shape:
        return reshape(x, (1,))
    first = normalized_axis(start_axis, len(x.shape), "flatten")
    last = normalized_axis(end_axis, len(x.shape), "flatten")
    if last < first:
        raise ShapeError(f"flatten: end_axis {end_axis} comes before start_axis {start_axis}.")
    middle = math.prod(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], middle, *x.shape[last + 1 :]))
