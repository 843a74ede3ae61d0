"""Helpers that op families share: dtype promotion, broadcasting, and builders of common specs.

An op in gpubp is two things: an `OpSpec` (what the compiler knows) and a public function (what
users call), which promotes dtypes, normalises attributes and calls `bind`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import shown
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
    dtype_name,
    is_to_come,
)
from gpubp.core.formula import Formula, Variants
from gpubp.core.interop import on_device
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpubp.ops.formula import numpy_reference
from gpubp.ops.weak import FLOAT32 as FLOAT32
from gpubp.ops.weak import FLOAT64 as FLOAT64
from gpubp.ops.weak import SPECS as SPECS
from gpubp.ops.weak import settled, weakly

INT64 = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)
_NUMBERS = (bool, int, float)
_ORDER = {np.dtype(n): i for i, n in enumerate(("bool", "int32", "int64", "float32", "float64"))}


# Of an array, in bytes: what 64-bit processors can address.
LARGEST = 2**47


def require_possible(op: str, shape: Sequence[int], dtype: Any = np.uint8) -> None:
    """Before tables and results are made for sizes that users give.

    Raises:
        ShapeError: no machine has the memory for such an array, of some rows if it has none.
    """
    dtype = np.dtype(dtype)
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > LARGEST:
        raise ShapeError(
            f"{op}: an array {describe(ArrayType(tuple(shape), dtype))} is larger than any memory. "
            "Use smaller sizes."
        )


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
    if _are_alike(values, floating):
        return list(values)
    arrays: list[Any] = []
    target: np.dtype[Any] = BOOL
    is_soft = has_arrays = False
    for value in values:
        kind = type(value)  # np.float64, a float's subclass, has a dtype
        if kind is float:
            is_soft = True
        elif kind not in _NUMBERS:
            value = operand(value)
            if is_to_come(value.dtype):
                is_soft = True
            else:
                has_arrays = True
                target = max(target, checked_dtype(value.dtype), key=_ORDER.__getitem__)
        arrays.append(value)
    if target.kind != "f" and (is_soft or floating):
        graph = active_graph()
        if graph is not None and (is_soft or not has_arrays):
            return [weakly(graph, a) for a in arrays]
        target = FLOAT32
    if target == BOOL and int in map(type, values):
        target = INT64
    return [_number(a, target) if type(a) in _NUMBERS else cast_to(a, target) for a in arrays]


def _number(value: Any, dtype: np.dtype[Any]) -> Any:
    """A Python number as an array."""
    try:
        return np.asarray(value, dtype=dtype)
    except OverflowError:
        raise DataError(f"{shown(value)} does not fit into {dtype}.") from None


def _are_alike(values: Sequence[Any], floating: bool) -> bool:
    """They are traced arrays of one dtype: nothing is to be converted."""
    for value in values:
        if type(value) is not Array:
            return False
    nodes = [v.node for v in values]
    dtype, weak = nodes[0].dtype, nodes[0].weak
    if floating and dtype.kind != "f":
        return False
    return all(n.dtype is dtype and n.weak is weak for n in nodes)


def operand(value: Any) -> Any:
    """An argument of an op: a traced array, a slot, an array on a device, or a NumPy array."""
    if isinstance(value, (Array, Slot)):
        return value
    graph = active_graph()
    if graph is None and on_device(value):
        return at_once.to_user_array(value)
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
    if type(value) is Array and value.node.weak:
        return value if is_to_come(dtype) else settled(value, dtype)
    graph = active_graph()
    if graph is not None and is_to_come(dtype):
        return weakly(graph, value)
    if value.dtype == dtype:
        return value
    return bind(SPECS["cast"], value, dtype=dtype_name(dtype))


def float_limits(x: Any) -> np.finfo[Any]:
    """The limits of the floats of `x`; of float32 where they are made of Python's numbers alone."""
    return np.finfo(FLOAT32 if is_to_come(x.dtype) else x.dtype)


def broadcast_shape(*types: Typed) -> Shape:
    """NumPy's broadcasting, with an error that names both types."""
    shapes = {t.shape for t in types}
    shapes.discard(())
    if len(shapes) < 2:
        return shapes.pop() if shapes else ()
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        given = " and ".join(describe(t) for t in types)
        raise ShapeError(
            f"cannot broadcast {given}: sizes must be equal or 1, aligned from the last axis."
        ) from None


def require_float(name: str, *types: Typed) -> None:
    """Raise unless all are of one float dtype."""
    dtype = types[0].dtype
    for t in types:
        if t.dtype != dtype or dtype.kind != "f":
            given = ", ".join(describe(t) for t in types)
            raise DTypeError(f"{name}: expected float arrays of one dtype, got {given}.")


def require_same_dtype(name: str, *types: Typed) -> None:
    """Raise unless all dtypes are equal."""
    dtype = types[0].dtype
    if any(t.dtype != dtype for t in types[1:]):
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
    """A non-negative axis; ShapeError if it is out of range, ArgumentError if it is no number."""
    try:
        found = operator.index(axis)
    except TypeError:
        raise ArgumentError(f"{name}: axis is {shown(axis)}, expected a whole number.") from None
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
    reference: Callable[..., Any] | None,
    vjp: Callable[..., Sequence[Array | None]] | None,
    formula: str | Formula | Variants,
    *,
    floating: bool = True,
    out: np.dtype[Any] | None = None,
    flops: float = 1.0,
    check: Callable[..., None] | None = None,
) -> OpSpec:
    """Register an elementwise op whose inputs have one dtype and broadcast.

    Args:
        name: the op's name.
        reference: the NumPy definition; None: the formula is it.
        formula: what backends compute; see `gpubp.core.formula`. A text is one of floats.
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
    kept = Formula(formula) if isinstance(formula, str) else formula
    if reference is None:
        assert isinstance(kept, Formula), f"{name} has several formulas and needs a reference"
        reference = numpy_reference(kept)
    return register(OpSpec(name, Kind.ELEMENTWISE, infer, reference, rule, flops, formula=kept))
