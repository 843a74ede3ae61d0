"""Comparisons, boolean logic, selection and conversion, element by element.

Comparisons take any one dtype and give booleans; they have no gradient. `where`, `cast` and `copy`
pass gradients on to the inputs they read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.core import (
    Array,
    ArrayType,
    Kind,
    OpSpec,
    Typed,
    active_graph,
    bind,
    checked_dtype,
    describe,
)
from gpubp.core.formula import Formula
from gpubp.errors import DTypeError
from gpubp.ops.spec import (
    BOOL,
    broadcast_shape,
    cast_to,
    elementwise,
    promote,
    register,
    require_same_dtype,
    unbroadcast,
)
from gpubp.ops.weak import is_weak, weakly


def _require_bool(name: str, *types: Typed) -> None:
    for t in types:
        if t.dtype != BOOL:
            given = ", ".join(describe(t) for t in types)
            raise DTypeError(f"{name}: expected booleans, got {given}. Compare first: x != 0.")


def _truth(condition: str) -> Formula:
    return Formula(condition, integer=True, truth=True)


def _comparison(name: str, reference: Any, condition: str) -> OpSpec:
    return elementwise(name, reference, None, _truth(condition), floating=False, out=BOOL)


def _logic(name: str, reference: Any, condition: str) -> OpSpec:
    return elementwise(name, reference, None, _truth(condition), out=BOOL, check=_require_bool)


GREATER = _comparison("greater", np.greater, "a > b")
GREATER_EQUAL = _comparison("greater_equal", np.greater_equal, "a >= b")
LESS = _comparison("less", np.less, "a < b")
LESS_EQUAL = _comparison("less_equal", np.less_equal, "a <= b")
EQUAL = _comparison("equal", np.equal, "a == b")
NOT_EQUAL = _comparison("not_equal", np.not_equal, "a != b")
LOGICAL_AND = _logic("logical_and", np.logical_and, "a != C(0) and b != C(0)")
LOGICAL_OR = _logic("logical_or", np.logical_or, "a != C(0) or b != C(0)")
LOGICAL_NOT = _logic("logical_not", np.logical_not, "a == C(0)")
ISFINITE = elementwise("isfinite", np.isfinite, None, _truth("a - a == C(0)"), out=BOOL)


def greater(a: Any, b: Any) -> Any:
    """`a > b`, booleans of the broadcast shape."""
    return bind(GREATER, *promote(a, b))


def greater_equal(a: Any, b: Any) -> Any:
    """`a >= b`, booleans of the broadcast shape."""
    return bind(GREATER_EQUAL, *promote(a, b))


def less(a: Any, b: Any) -> Any:
    """`a < b`, booleans of the broadcast shape."""
    return bind(LESS, *promote(a, b))


def less_equal(a: Any, b: Any) -> Any:
    """`a <= b`, booleans of the broadcast shape."""
    return bind(LESS_EQUAL, *promote(a, b))


def equal(a: Any, b: Any) -> Any:
    """`a == b`, booleans of the broadcast shape; NaN equals nothing."""
    return bind(EQUAL, *promote(a, b))


def not_equal(a: Any, b: Any) -> Any:
    """`a != b`, booleans of the broadcast shape."""
    return bind(NOT_EQUAL, *promote(a, b))


def logical_and(a: Any, b: Any) -> Any:
    """True where both are. Raises DTypeError unless both are booleans."""
    return bind(LOGICAL_AND, *promote(a, b))


def logical_or(a: Any, b: Any) -> Any:
    """True where at least one is. Raises DTypeError unless both are booleans."""
    return bind(LOGICAL_OR, *promote(a, b))


def logical_not(x: Any) -> Any:
    """True where `x` is False. Raises DTypeError unless `x` is boolean."""
    return bind(LOGICAL_NOT, *promote(x))


def isfinite(x: Any) -> Any:
    """True where `x` is neither NaN nor infinite."""
    return bind(ISFINITE, *promote(x, floating=True))


def _where_infer(condition: Typed, a: Typed, b: Typed) -> ArrayType:
    _require_bool("where", condition)
    require_same_dtype("where", a, b)
    return ArrayType(broadcast_shape(condition, a, b), a.dtype)


def _where_vjp(g: Array, y: Array, condition: Array, a: Array, b: Array) -> list[Array | None]:
    to_a, to_b = where(condition, g, 0.0), where(condition, 0.0, g)
    return [None, unbroadcast(to_a, a), unbroadcast(to_b, b)]


WHERE = register(
    OpSpec(
        "where",
        Kind.ELEMENTWISE,
        _where_infer,
        np.where,
        _where_vjp,
        formula=Formula("b if a != C(0) else c", integer=True),
    )
)


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`; the three broadcast.

    The gradient reaches only the input that was taken; but a NaN or infinity that the other input's
    own derivative makes still spoils it (0 * inf): make that input safe first.

    Raises:
        DTypeError: the condition is not boolean.
        ShapeError: the shapes do not broadcast.
    """
    (mask,) = promote(condition)
    return bind(WHERE, mask, *promote(a, b))


def _cast_infer(x: Typed, *, dtype: str) -> ArrayType:
    return ArrayType(x.shape, checked_dtype(dtype))


def _cast_reference(x: Any, *, dtype: str) -> Any:
    return np.asarray(x).astype(dtype)


def _cast_vjp(g: Array, y: Array, x: Array, *, dtype: str) -> list[Array | None]:
    if x.dtype.kind != "f" or y.dtype.kind != "f":
        return [None]
    return [weakly(x.graph, g) if is_weak(x) else cast_to(g, x.dtype)]


CAST = register(
    OpSpec("cast", Kind.ELEMENTWISE, _cast_infer, _cast_reference, _cast_vjp, settles=True)
)


def astype(x: Any, dtype: Any) -> Any:
    """`x` converted to `dtype`, or `x` itself if it has that dtype.

    Floats become integers by dropping the fraction, as in C; what does not fit is undefined. The
    gradient passes between float dtypes only.

    Raises:
        DTypeError: gpubp does not have the dtype.
    """
    wanted = checked_dtype(dtype)
    if type(x) is float and wanted.kind == "f" and active_graph() is None:
        return np.asarray(x, wanted)  # not by way of float32, which Python's floats become alone
    (x,) = promote(x)
    return cast_to(x, wanted)


def _copy_reference(x: Any) -> Any:
    return np.array(x)


COPY = elementwise(
    "copy",
    _copy_reference,
    lambda g, y, x: (g,),
    Formula("a", integer=True),
    floating=False,
    flops=0.0,
)


# The first input, computed when the second is there: what is recomputed waits for its use.
AFTER = elementwise(
    "after",
    lambda x, g: np.broadcast_arrays(x, g)[0],
    lambda g, y, x, late: (g, None),
    Formula("a if b == b else a"),
    flops=0.0,
)


def copy(x: Any) -> Any:
    """`x` in memory of its own."""
    return bind(COPY, *promote(x))
