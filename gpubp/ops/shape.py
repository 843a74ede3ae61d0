"""Views: the same memory read through another shape. Their references are NumPy views.

Attributes are normalised by the public functions: no -1 in shapes, no negative axes. Slices are in
`slicing`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
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
_Turned = Callable[..., dict[str, Any] | None]


def view(
    name: str,
    infer: Any,
    reference: Any,
    vjp: Callable[..., _Cotangents],
    layout: _Layout,
    turned: _Turned | None = None,
    batched: Callable[..., Any] | None = None,
) -> OpSpec:
    """Register an op whose result is read where its argument lies."""
    return register(
        OpSpec(
            name,
            Kind.VIEW,
            infer,
            reference,
            vjp,
            flops=0.0,
            view=layout,
            turned=turned,
            batched=batched,
        )
    )


def _into_shape(spec: OpSpec, samples: int, given: Any, inputs: Any, attrs: Any) -> dict[str, Any]:
    """See `OpSpec.batched`."""
    return {"shape": (samples, *attrs["shape"])}


def _axes_after(spec: OpSpec, samples: int, given: Any, inputs: Any, attrs: Any) -> dict[str, Any]:
    return {"axes": (0, *[a + 1 for a in attrs["axes"]])}


def _repeated(spec: OpSpec, samples: int, given: Any, inputs: Any, attrs: Any) -> Any:
    (x,), shape = inputs, attrs["shape"]
    ones = (1,) * (len(shape) - len(x.shape) + 1)
    return broadcast_to(reshape(x, (samples, *ones, *x.shape[1:])), (samples, *shape))


def by_axes(order: Shape, /, **attrs: Shape) -> dict[str, Any]:
    """Attributes with one entry an axis, for axes in another order; see `OpSpec.turned`."""
    back = [order.index(i) for i in range(len(order))]
    return {name: tuple(values[i] for i in back) for name, values in attrs.items()}


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
    strides: list[int] = []
    wanted = [n for n in shape if n != 1]
    dims = [(n, s) for n, s in zip(source.shape, source.strides) if n != 1]
    while dims:
        # The fewest axes of either side that have as many elements.
        taken, parted = [dims.pop(0)], [wanted.pop(0)]
        while (size := math.prod(n for n, _ in taken)) != math.prod(parted):
            if size < math.prod(parted):
                taken.append(dims.pop(0))
            else:
                parted.append(wanted.pop(0))
        if any(outer != n * inner for (_, outer), (n, inner) in pairwise(taken)):
            return None
        inner = taken[-1][1]
        strides += [inner * s for s in c_strides(tuple(parted))]
    rest = iter(strides)
    return Strided(source.offset, shape, tuple(0 if n == 1 else next(rest) for n in shape))


def _transpose_infer(x: Typed, *, axes: tuple[int, ...]) -> ArrayType:
    if sorted(axes) != list(range(len(x.shape))):
        raise ShapeError(
            f"transpose: {axes} is not a permutation of the axes of {describe(x)}. torch's "
            "transpose(a, b) of two axes is swapaxes(a, b)."
        )
    return ArrayType(tuple(x.shape[a] for a in axes), x.dtype)


def _transpose_vjp(g: Array, y: Array, x: Array, *, axes: tuple[int, ...]) -> _Cotangents:
    return (transpose(g, tuple(axes.index(i) for i in range(len(axes)))),)


def _transpose_layout(source: Strided, shape: Shape, /, *, axes: tuple[int, ...]) -> Strided:
    return Strided(source.offset, shape, tuple(source.strides[a] for a in axes))


def _broadcast_infer(x: Typed, *, shape: Shape) -> ArrayType:
    if broadcast_shape(x, ArrayType(shape, x.dtype)) != shape or any(n < 0 for n in shape):
        raise ShapeError(f"broadcast_to: {describe(x)} does not broadcast to {shape}.")
    return ArrayType(shape, x.dtype)


def _broadcast_layout(source: Strided, shape: Shape, /, **_: Any) -> Strided:
    extra = len(shape) - len(source.shape)
    strides = tuple(
        s if n == m else 0 for s, n, m in zip(source.strides, source.shape, shape[extra:])
    )
    return Strided(source.offset, shape, (0,) * extra + strides)


def _same_infer(x: Typed) -> ArrayType:
    return ArrayType(x.shape, x.dtype)


RESHAPE = view(
    "reshape",
    _reshape_infer,
    lambda x, shape: x.reshape(shape),
    lambda g, y, x, shape: (reshape(g, x.shape),),
    _reshape_layout,
    batched=_into_shape,
)
TRANSPOSE = view(
    "transpose",
    _transpose_infer,
    np.transpose,
    _transpose_vjp,
    _transpose_layout,
    batched=_axes_after,
)
BROADCAST_TO = view(
    "broadcast_to",
    _broadcast_infer,
    np.broadcast_to,
    lambda g, y, x, shape: (unbroadcast(g, x),),
    _broadcast_layout,
    by_axes,
    _repeated,
)
STOP_GRADIENT = view(
    "stop_gradient",
    _same_infer,
    lambda x: x,
    lambda g, y, x: (None,),
    lambda source, shape: source,
    lambda order: {},
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
