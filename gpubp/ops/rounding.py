"""Rounding, remainders, signs and other functions of single numbers, composed of a few formulas."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from gpubp.arguments import shown
from gpubp.core import Array, bind
from gpubp.core.formula import Formula
from gpubp.errors import ArgumentError
from gpubp.ops.elementwise import abs as absolute
from gpubp.ops.elementwise import (
    divide,
    floor,
    multiply,
    negative,
    subtract,
)
from gpubp.ops.logic import (
    equal,
    greater,
    greater_equal,
    isfinite,
    less,
    logical_and,
    logical_not,
    logical_or,
    where,
)
from gpubp.ops.spec import elementwise, float_limits, promote

# From 2^23 (2^52 in float64) on all numbers are whole; below, adding and taking away that much
# rounds to the nearest whole number, ties to the even one.
_WHOLE = "C(4503599627370496.0)"


def _no_slope(g: Array, y: Array, *xs: Array) -> list[Array | None]:
    return [None] * len(xs)


# floor(a + 1/2), less 1 where that was a tie and came out odd; -0 stays.
_UP = "floor(abs(a) + C(0.5))"
_NEAREST = (
    f"({_UP} - C(1) if {_UP} - abs(a) == C(0.5) and {_UP} != C(2) * floor({_UP} * C(0.5)) else "
    f"({_UP} - C(1) if {_UP} - abs(a) > C(0.5) else {_UP}))"
)
ROUND = elementwise(
    "round",
    np.round,
    _no_slope,
    f"a if abs(a) >= C(4194304) and abs(a) - floor(abs(a)) == C(0) or a != a or a == C(0) else "
    f"(-{_NEAREST} if a < C(0) else {_NEAREST})",
    flops=6.0,
)
ISNAN = elementwise("isnan", np.isnan, None, Formula("a != a", truth=True), out=np.dtype(np.bool_))


def round(x: Any, *, decimals: int = 0) -> Any:
    """The nearest whole number, ties to the even one; integers stay.

    Args:
        x: any shape.
        decimals: digits after the point that are kept; before it, if negative.

    Raises:
        ArgumentError: `decimals` is no whole number.
    """
    (x,) = promote(x)
    try:
        digits = operator.index(decimals)
    except TypeError:
        raise ArgumentError(
            f"round: decimals is {shown(decimals)}, expected a whole number."
        ) from None
    if x.dtype.kind != "f":
        return x
    if digits == 0:
        return bind(ROUND, x)
    scale = 10.0 ** builtin_abs(digits)
    if digits > 0:
        return divide(bind(ROUND, multiply(x, scale)), scale)
    return multiply(bind(ROUND, divide(x, scale)), scale)


builtin_abs = math.fabs


def ceil(x: Any) -> Any:
    """The smallest whole number not below `x`; integers stay."""
    (x,) = promote(x)
    return x if x.dtype.kind != "f" else negative(floor(negative(x)))


def trunc(x: Any) -> Any:
    """`x` without its fraction; integers stay."""
    (x,) = promote(x)
    return x if x.dtype.kind != "f" else where(less(x, 0.0), ceil(x), floor(x))


def frac(x: Any) -> Any:
    """The fraction of `x`, with its sign."""
    return subtract(x, trunc(x))


def isnan(x: Any) -> Any:
    """True where `x` is NaN."""
    return bind(ISNAN, *promote(x, floating=True))


def isinf(x: Any) -> Any:
    """True where `x` is infinite."""
    return logical_not(logical_or(isfinite(x), isnan(x)))


def isposinf(x: Any) -> Any:
    """True where `x` is infinity."""
    return equal(x, math.inf)


def isneginf(x: Any) -> Any:
    """True where `x` is -infinity."""
    return equal(x, -math.inf)


def signbit(x: Any) -> Any:
    """True where `x` is negative, or the zero that is."""
    (x,) = promote(x)
    if x.dtype.kind != "f":
        return less(x, 0)
    zero = equal(x, 0.0)
    inverse = divide(1.0, where(zero, x, 1.0))
    return logical_or(less(x, 0.0), logical_and(zero, less(inverse, 0.0)))


def copysign(x: Any, y: Any) -> Any:
    """|x| with the sign of `y`."""
    x, y = promote(x, y, floating=True)
    size = absolute(x)
    return where(signbit(y), negative(size), size)


def heaviside(x: Any, values: Any) -> Any:
    """0 below 0, `values` at 0, 1 above it; NaN stays."""
    x, values = promote(x, values)
    zero, one = (np.asarray(n, x.dtype) for n in (0, 1))
    found = where(equal(x, zero), values, where(greater(x, zero), one, zero))
    return where(isnan(x), x, found) if x.dtype.kind == "f" else found


def nan_to_num(
    x: Any, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Any:
    """Numbers instead of NaN and infinities; the largest of the dtype where none is given."""
    (x,) = promote(x)
    if x.dtype.kind != "f":
        return x
    largest = float(float_limits(x).max)
    x = where(isnan(x), 0.0 if nan is None else nan, x)
    x = where(equal(x, math.inf), largest if posinf is None else posinf, x)
    return where(equal(x, -math.inf), -largest if neginf is None else neginf, x)


def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """`x`, not below `min` and not above `max`, each a number, an array or None.

    Raises:
        ArgumentError: both are None.
    """
    from gpubp.ops.elementwise import clip

    if min is None and max is None:
        raise ArgumentError("clamp: give min or max, or both.")
    numbers = (int, float, type(None))
    if isinstance(min, numbers) and isinstance(max, numbers):
        (array,) = promote(x)
        if array.dtype.kind == "f":
            return clip(x, min, max)
    if min is not None:
        x, low = promote(x, min)
        x = where(less(x, low), low, x)
    if max is not None:
        x, high = promote(x, max)
        x = where(greater_equal(x, high), high, x)
    return x
