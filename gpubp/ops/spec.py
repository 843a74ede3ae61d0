"""Helpers that op families share: dtype promotion, broadcasting, and builders of common specs.

An op in gpubp is two things: an `OpSpec` (what the compiler knows) and a public function (what
users call), which promotes dtypes, normalises attributes and calls `bind`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.core import (
    Array,
    ArrayType,
    Kind,
    OpSpec,
    Shape,
    Typed,
    active_graph,
    at_once,
    bind,
    checked_dtype,
    concrete,
    describe,
)
from gpubp.errors import DTypeError, ShapeError
from gpubp.interop import on_device
from gpubp.ops.weak import FLOAT32, FLOAT64, SPECS, is_weak, settled, weakly
from gpubp.store import Slot

INT64 = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)
_ORDER = {np.dtype(n): i for i, n in enumerate(("bool", "int32", "int64", "float32", "float64"))}


def register(spec: OpSpec) -> OpSpec:
    """Add a spec to the table of all ops; names are unique."""
    if spec.name in SPECS:
        raise ValueError(f"an op named {spec.name!r} exists already")
    SPECS[spec.name] = spec
    return spec


def promote(*values: Any, floating: bool = False) -> list[Any]:
    """Bring arguments to one dtype.

    The order is bool < int32 < int64 < float32 < float64; Python numbers take the dtype of the
    arrays they meet. With `floating`, integers become float32. A Python float that meets no float
    array gives float32; in a trace, a weak value (see `weak`) that has its dtype to come.

    Returns:
        The arguments as arrays (on the host or a device), slots or traced arrays of one dtype.
    """
    numbers = [type(v) in (bool, int, float) for v in values]  # not np.float64, a float's subclass
    arrays = [v if n else operand(v) for v, n in zip(values, numbers, strict=True)]
    soft = [n or is_weak(a) for a, n in zip(arrays, numbers, strict=True)]
    dtypes = [checked_dtype(a.dtype) for a, s in zip(arrays, soft, strict=True) if not s]
    target = max(dtypes, key=_ORDER.__getitem__) if dtypes else BOOL
    has_float = any(isinstance(a, float) or is_weak(a) for a, s in zip(arrays, soft) if s)
    if target.kind != "f" and (has_float or floating):
        graph = active_graph()
        if graph is not None and (has_float or not dtypes):
            return [weakly(graph, a) for a in arrays]
        target = FLOAT32
    if target == BOOL and any(type(v) is int for v in values):
        target = INT64
    return [
        np.asarray(a, dtype=target) if n else cast_to(a, target)
        for a, n in zip(arrays, numbers, strict=True)
    ]


def operand(value: Any) -> Any:
    """An argument of an op: a traced array, a slot, an array on a device, or a NumPy array."""
    if isinstance(value, (Array, Slot)):
        return value
    graph = active_graph()
    if graph is None and on_device(value):
        return at_once.native(value)
    if graph is not None and isinstance(value, np.ndarray):
        graph.facts.array(value)
    return concrete(value)


def is_concrete(value: Any) -> bool:
    """Its numbers can be looked at here: it is neither traced, nor a slot, nor on a device."""
    return isinstance(value, (np.ndarray, np.generic))


def beside(other: Any, value: Any) -> Any:
    """A constant, or a slot of which a view is needed, where the main argument of an op is."""
    if not on_device(value) or on_device(other) or isinstance(other, Array):
        return other
    if isinstance(other, Slot):
        return at_once.apply(SPECS["copy"], [other], {}, value)
    return at_once.put(other, value)


def cast_to(value: Any, dtype: np.dtype[Any]) -> Any:
    """`value` itself if it has `dtype`, else a cast of it."""
    if is_weak(value):
        return settled(value, dtype)
    if value.dtype == dtype:
        return value
    return bind(SPECS["cast"], value, dtype=str(dtype))


def broadcast_shape(*types: Typed) -> Shape:
    """NumPy's broadcasting, with an error that names both types."""
    try:
        return np.broadcast_shapes(*[t.shape for t in types])
    except ValueError:
        given = " and ".join(describe(t) for t in types)
        raise ShapeError(
            f"cannot broadcast {given}: sizes must be equal or 1, aligned from the last axis."
        ) from None


def require_float(name: str, *types: Typed) -> None:
    """Raise unless all are of one float dtype."""
    for t in types:
        if t.dtype.kind != "f" or t.dtype != types[0].dtype:
            given = ", ".join(describe(t) for t in types)
            raise DTypeError(f"{name}: expected float arrays of one dtype, got {given}.")


def require_same_dtype(name: str, *types: Typed) -> None:
    """Raise unless all dtypes are equal."""
    if any(t.dtype != types[0].dtype for t in types):
        given = ", ".join(describe(t) for t in types)
        raise DTypeError(f"{name}: expected one dtype, got {given}.")


def require_numeric(name: str, *types: Typed) -> None:
    """Raise unless all are of one integer or float dtype."""
    require_same_dtype(name, *types)
    if types[0].dtype == BOOL:
        raise DTypeError(
            f"{name}: expected numbers, got {describe(types[0])}. Use gp.ops.logical_and, "
            "logical_or and logical_not on booleans, or gp.ops.astype."
        )


def normalized_axis(axis: Any, ndim: int, name: str) -> int:
    """A non-negative axis; ShapeError if it is out of range."""
    found = operator.index(axis)
    if not -ndim <= found < ndim:
        raise ShapeError(f"{name}: axis {axis} is out of range for {ndim} dimensions.")
    return found % ndim


def normalized_axes(axis: Any, ndim: int, name: str) -> tuple[int, ...]:
    """Sorted non-negative axes from None (all), an int or a tuple."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    found = sorted(normalized_axis(a, ndim, name) for a in axes)
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: axis {axis} names an axis twice.")
    return tuple(found)


def unbroadcast(cotangent: Array, like: Typed) -> Array:
    """Sum a cotangent over the axes along which `like` was broadcast."""
    if cotangent.shape == like.shape:
        return cotangent
    extra = cotangent.ndim - len(like.shape)
    axes = list(range(extra))
    axes += [
        i + extra for i, n in enumerate(like.shape) if n == 1 and cotangent.shape[i + extra] != 1
    ]
    out: Array = cotangent.sum(axis=tuple(axes))
    return out if out.shape == like.shape else out.reshape(like.shape)


def elementwise(
    name: str,
    reference: Callable[..., Any],
    vjp: Callable[..., Sequence[Array | None]] | None,
    *,
    floating: bool = True,
    out: np.dtype[Any] | None = None,
    flops: float = 1.0,
    check: Callable[..., None] | None = None,
) -> OpSpec:
    """Register an elementwise op whose inputs have one dtype and broadcast.

    Args:
        name: the op's name.
        reference: the NumPy definition.
        vjp: may return cotangents of the broadcast shape; they are summed here.
        floating: refuse other than float inputs.
        out: the output dtype; default is the inputs'.
        flops: arithmetic per output element.
        check: (name, *types) -> None, raises on dtypes that are refused; default by `floating`.
    """
    accept = check or (require_float if floating else require_same_dtype)

    def infer(*types: Typed, **_: Any) -> ArrayType:
        accept(name, *types)
        return ArrayType(broadcast_shape(*types), out or types[0].dtype)

    def summed(g: Array, y: Array, *xs: Array, **attrs: Any) -> list[Array | None]:
        assert vjp is not None
        parts = vjp(g, y, *xs, **attrs)
        return [None if p is None else unbroadcast(p, x) for p, x in zip(parts, xs, strict=True)]

    rule = None if vjp is None else summed
    return register(OpSpec(name, Kind.ELEMENTWISE, infer, reference, rule, flops))
