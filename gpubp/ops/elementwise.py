"""Arithmetic and mathematical functions, element by element.

Arguments broadcast as in NumPy and are brought to one dtype (see `spec.promote`). Functions that
are not closed over the integers turn integers into float32. Where a function has a kink the
gradient is the one PyTorch takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpubp.core import CONST, Array, bind
from gpubp.core.formula import Formula
from gpubp.errors import DataError
from gpubp.ops.logic import equal, greater_equal, less, logical_and, where
from gpubp.ops.spec import elementwise, promote, require_numeric

_Cotangents = tuple[Array | None, ...]


def finite(op: str, name: str, value: Any) -> float:
    """An attribute as a float; DataError unless it is a finite number."""
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{op}: {name} must be a finite number, got {value!r}.")
    return number


def _maximum_vjp(g: Array, y: Array, a: Array, b: Array) -> _Cotangents:
    tied, half = equal(a, b), g * 0.5
    to_a = where(tied, half, where(less(a, b), 0.0, g))
    return to_a, where(tied, half, where(less(b, a), 0.0, g))


def _minimum_vjp(g: Array, y: Array, a: Array, b: Array) -> _Cotangents:
    tied, half = equal(a, b), g * 0.5
    to_a = where(tied, half, where(less(b, a), 0.0, g))
    return to_a, where(tied, half, where(less(a, b), 0.0, g))


def _divide_vjp(g: Array, y: Array, a: Array, b: Array) -> _Cotangents:
    return g / b, -(g * y) / b


def _known(x: Any) -> float | None:
    """The number, if `x` is a Python number or a scalar constant of the graph."""
    if isinstance(x, (bool, int, float)):
        return float(x)
    if isinstance(x, Array) and x.node.spec is CONST and x.shape == ():
        return float(x.node.payload)
    return None


def _power_vjp(g: Array, y: Array, x: Array, p: Array) -> _Cotangents:
    """d/dx = p x^(p-1) and d/dp = x^p ln x, finite where PyTorch's are (0 at 0^0 and at 0^p)."""
    exponent = _known(p)
    if exponent is not None:
        return (None if exponent == 0 else g * (p * power(x, p - 1.0))), None
    zero_base = equal(x, 0.0)
    base = where(logical_and(zero_base, equal(p, 0.0)), 1.0, x)
    inside_log = where(logical_and(zero_base, greater_equal(p, 0.0)), 1.0, x)
    return g * (p * power(base, p - 1.0)), g * (y * log(inside_log))


def _power_reference(x: Any, p: Any) -> Any:
    """C's pow: NumPy takes a root where all exponents are one 1/2, so NaN at -inf, and -0 at -0."""
    half = (p == 0.5) & ((x == 0.0) | (x == -math.inf))
    return np.where(half, np.abs(x), np.power(x, p))


def _erf_reference(x: Any) -> Any:
    from scipy.special import erf as reference

    return reference(x)


def _erf_vjp(g: Array, y: Array, x: Array) -> _Cotangents:
    return (g * (2.0 / math.sqrt(math.pi)) * exp(-square(x)),)


def _clip_reference(x: Any, *, low: float | None, high: float | None) -> Any:
    return np.clip(x, low, high)


def _clip_vjp(g: Array, y: Array, x: Array, *, low: Any, high: Any) -> _Cotangents:
    inside = None if low is None else greater_equal(x, low)
    if high is not None:
        below = greater_equal(high, x)
        inside = below if inside is None else logical_and(inside, below)
    return (where(inside, g, 0.0),)


def _integers(expression: str) -> Formula:
    return Formula(expression, integer=True)


def _limits(attrs: Mapping[str, Any]) -> tuple[float, float]:
    low, high = attrs["low"], attrs["high"]
    return -math.inf if low is None else low, math.inf if high is None else high


ADD = elementwise(
    "add", np.add, lambda g, y, a, b: (g, g), _integers("a + b"), check=require_numeric
)
SUBTRACT = elementwise(
    "subtract", np.subtract, lambda g, y, a, b: (g, -g), _integers("a - b"), check=require_numeric
)
MULTIPLY = elementwise(
    "multiply",
    np.multiply,
    lambda g, y, a, b: (g * b, g * a),
    _integers("a * b"),
    check=require_numeric,
)
DIVIDE = elementwise("divide", np.divide, _divide_vjp, "a / b")
POWER = elementwise("power", _power_reference, _power_vjp, "power(a, b)")
MAXIMUM = elementwise(
    "maximum",
    np.maximum,
    _maximum_vjp,
    _integers("a if a > b or a != a else b"),
    check=require_numeric,
)
MINIMUM = elementwise(
    "minimum",
    np.minimum,
    _minimum_vjp,
    _integers("a if a < b or a != a else b"),
    check=require_numeric,
)
NEGATIVE = elementwise(
    "negative", np.negative, lambda g, y, x: (-g,), _integers("-a"), check=require_numeric
)
ABS = elementwise(
    "abs", np.abs, lambda g, y, x: (g * sign(x),), _integers("abs(a)"), check=require_numeric
)
# Constant between jumps: a rule that returns None says that the gradient is zero.
SIGN = elementwise(
    "sign",
    np.sign,
    lambda g, y, x: (None,),
    _integers("C(1) if a > C(0) else (C(-1) if a < C(0) else a)"),
    check=require_numeric,
)
FLOOR = elementwise("floor", np.floor, lambda g, y, x: (None,), "floor(a)")
SQUARE = elementwise(
    "square", np.square, lambda g, y, x: (g * 2.0 * x,), _integers("a * a"), check=require_numeric
)
EXP = elementwise("exp", np.exp, lambda g, y, x: (g * y,), "exp(a)")
LOG = elementwise("log", np.log, lambda g, y, x: (g / x,), "log(a)")
LOG1P = elementwise("log1p", np.log1p, lambda g, y, x: (g / (x + 1.0),), "log1p(a)")
EXPM1 = elementwise("expm1", np.expm1, lambda g, y, x: (g * exp(x),), "expm1(a)")
SQRT = elementwise("sqrt", np.sqrt, lambda g, y, x: (g * 0.5 / y,), "sqrt(a)")
SIN = elementwise("sin", np.sin, lambda g, y, x: (g * cos(x),), "sin(a)")
COS = elementwise("cos", np.cos, lambda g, y, x: (-(g * sin(x)),), "cos(a)")
ERF = elementwise("erf", _erf_reference, _erf_vjp, "erf(a)")
# The upper limit last: it holds where the lower one is above it.
CLIP = elementwise(
    "clip",
    _clip_reference,
    _clip_vjp,
    Formula("q if (p if a < p else a) > q else (p if a < p else a)", attrs=_limits),
    flops=2.0,
)


def add(a: Any, b: Any) -> Any:
    """`a + b`."""
    return bind(ADD, *promote(a, b))


def subtract(a: Any, b: Any) -> Any:
    """`a - b`."""
    return bind(SUBTRACT, *promote(a, b))


def multiply(a: Any, b: Any) -> Any:
    """`a * b`."""
    return bind(MULTIPLY, *promote(a, b))


def divide(a: Any, b: Any) -> Any:
    """`a / b`; integers become float32."""
    return bind(DIVIDE, *promote(a, b, floating=True))


def power(x: Any, exponent: Any) -> Any:
    """`x ** exponent`; integers become float32.

    A constant exponent of 1, 2 or 1/2 costs no power: it gives `x` itself, its square or its root
    (so NaN at -inf, as in NumPy and torch, where an array of halves gives inf).
    """
    known = _known(exponent)
    x, exponent = promote(x, exponent, floating=True)
    if known == 1.0:
        return x
    if known == 2.0:
        return square(x)
    return sqrt(x) if known == 0.5 else bind(POWER, x, exponent)


def maximum(a: Any, b: Any) -> Any:
    """The larger one, NaN if either is; the gradient of a tie is split evenly."""
    return bind(MAXIMUM, *promote(a, b))


def minimum(a: Any, b: Any) -> Any:
    """The smaller one, NaN if either is; the gradient of a tie is split evenly."""
    return bind(MINIMUM, *promote(a, b))


def negative(x: Any) -> Any:
    """`-x`."""
    return bind(NEGATIVE, *promote(x))


def abs(x: Any) -> Any:
    """`|x|`; the gradient at 0 is 0."""
    return bind(ABS, *promote(x))


def sign(x: Any) -> Any:
    """-1, 0 or 1; the gradient is 0."""
    return bind(SIGN, *promote(x))


def floor(x: Any) -> Any:
    """The largest whole number not above `x`; the gradient is 0."""
    return bind(FLOOR, *promote(x, floating=True))


def square(x: Any) -> Any:
    """`x * x`."""
    return bind(SQUARE, *promote(x))


def exp(x: Any) -> Any:
    """e to the power `x`."""
    return bind(EXP, *promote(x, floating=True))


def log(x: Any) -> Any:
    """The natural logarithm."""
    return bind(LOG, *promote(x, floating=True))


def log1p(x: Any) -> Any:
    """`log(1 + x)`, exact for small `x`."""
    return bind(LOG1P, *promote(x, floating=True))


def expm1(x: Any) -> Any:
    """`exp(x) - 1`, exact for small `x`."""
    return bind(EXPM1, *promote(x, floating=True))


def sqrt(x: Any) -> Any:
    """The square root; its gradient at 0 is infinite."""
    return bind(SQRT, *promote(x, floating=True))


def sin(x: Any) -> Any:
    """The sine of `x` in radians."""
    return bind(SIN, *promote(x, floating=True))


def cos(x: Any) -> Any:
    """The cosine of `x` in radians."""
    return bind(COS, *promote(x, floating=True))


def erf(x: Any) -> Any:
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to `x`."""
    return bind(ERF, *promote(x, floating=True))


def clip(x: Any, low: float | None = None, high: float | None = None) -> Any:
    """`x` limited to [low, high]; the gradient passes where `x` is within, the ends included.

    Args:
        x: any shape; integers become float32.
        low: a number, or None for no lower limit.
        high: a number, or None for no upper limit. Where low > high the result is high.

    Raises:
        DataError: both limits are None, or one is not a finite number.
    """
    if low is None and high is None:
        raise DataError("clip: give low, high or both.")
    low = None if low is None else finite("clip", "low", low)
    high = None if high is None else finite("clip", "high", high)
    return bind(CLIP, *promote(x, floating=True), low=low, high=high)
