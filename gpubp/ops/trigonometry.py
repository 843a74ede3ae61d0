"""Trigonometric and hyperbolic functions and their inverses, and the inverse of erf.

Formulas as usual, kept from overflowing early and from losing digits near 0: A&S = Abramowitz &
Stegun, "Handbook of Mathematical Functions" (1964), chapter 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.core import Array, bind
from gpubp.ops.elementwise import abs as absolute
from gpubp.ops.elementwise import (
    cos,
    divide,
    exp,
    maximum,
    minimum,
    multiply,
    sin,
    sqrt,
    square,
)
from gpubp.ops.logic import equal, logical_or, where
from gpubp.ops.spec import elementwise, promote

_SIGN = "(C(1) if a > C(0) else C(-1))"
_HALVES = "exp(C(0.5) * abs(a))"  # whose square overflows where the result does
_LN2 = math.log(2.0)

ATAN = elementwise(
    "atan", np.arctan, lambda g, y, x: (g / (square(x) + 1.0),), "atan(a)", flops=20.0
)
ASIN = elementwise(
    "asin",
    np.arcsin,
    lambda g, y, x: (g / sqrt((1.0 - x) * (x + 1.0)),),
    "atan(a / sqrt((C(1) - a) * (C(1) + a)))",
    flops=25.0,
)
ACOS = elementwise(
    "acos",
    np.arccos,
    lambda g, y, x: (-(g / sqrt((1.0 - x) * (x + 1.0))),),
    "C(2) * atan(sqrt((C(1) - a) / (C(1) + a)))",
    flops=25.0,
)
SINH = elementwise(
    "sinh",
    np.sinh,
    lambda g, y, x: (g * cosh(x),),
    "C(0.5) * (expm1(a) - expm1(-a)) if abs(a) < C(20) else "
    f"(a if a != a else {_SIGN} * (C(0.5) * {_HALVES}) * {_HALVES})",
    flops=20.0,
)
COSH = elementwise(
    "cosh",
    np.cosh,
    lambda g, y, x: (g * sinh(x),),
    f"C(0.5) * (exp(a) + exp(-a)) if abs(a) < C(20) else (C(0.5) * {_HALVES}) * {_HALVES}",
    flops=20.0,
)
ASINH = elementwise(
    "asinh",
    np.arcsinh,
    lambda g, y, x: (g / sqrt(square(x) + 1.0),),
    "a if a == C(0) or a != a else "
    f"{_SIGN} * (log1p(abs(a) + a * a / (C(1) + sqrt(a * a + C(1)))) if abs(a) < C(1e8) else "
    f"log(abs(a)) + C({_LN2!r}))",
    flops=20.0,
)
ACOSH = elementwise(
    "acosh",
    np.arccosh,
    lambda g, y, x: (g / sqrt((x - 1.0) * (x + 1.0)),),
    f"log1p((a - C(1)) + sqrt(a - C(1)) * sqrt(a + C(1))) if a < C(1e8) else log(a) + C({_LN2!r})",
    flops=20.0,
)
ATANH = elementwise(
    "atanh",
    np.arctanh,
    lambda g, y, x: (g / ((1.0 - x) * (x + 1.0)),),
    f"a if a == C(0) else {_SIGN} * C(0.5) * log1p(C(2) * abs(a) / (C(1) - abs(a)))",
    flops=20.0,
)


def _horner(variable: str, coefficients: tuple[float, ...]) -> str:
    """A polynomial as a formula; the constant term first."""
    total = f"C({coefficients[-1]!r})"
    for c in coefficients[-2::-1]:
        total = f"({total} * {variable} + C({c!r}))"
    return total


def _table(*texts: str) -> tuple[tuple[float, ...], ...]:
    return tuple([tuple(map(float, text.split())) for text in texts])


# Wichura, "Algorithm AS 241: the percentage points of the normal distribution" (1988), PPND16: of
# p = (1 + x) / 2, so that its q is x / 2, and of the smaller tail (1 - |x|) / 2.
_NEAR = _table(
    "3.3871328727963666080e0 1.3314166789178437745e2 1.9715909503065514427e3 "
    "1.3731693765509461125e4 4.5921953931549871457e4 6.7265770927008700853e4 "
    "3.3430575583588128105e4 2.5090809287301226727e3",
    "1.0 4.2313330701600911252e1 6.8718700749205790830e2 "
    "5.3941960214247511077e3 2.1213794301586595867e4 3.9307895800092710610e4 "
    "2.8729085735721942674e4 5.2264952788528545610e3",
)
_MIDDLE = _table(
    "1.42343711074968357734e0 4.63033784615654529590e0 5.76949722146069140550e0 "
    "3.64784832476320460504e0 1.27045825245236838258e0 2.41780725177450611770e-1 "
    "2.27238449892691845833e-2 7.74545014278341407640e-4",
    "1.0 2.05319162663775882187e0 1.67638483018380384940e0 "
    "6.89767334985100004550e-1 1.48103976427480074590e-1 1.51986665636164571966e-2 "
    "5.47593808499534494600e-4 1.05075007164441684324e-9",
)
_FAR = _table(
    "6.65790464350110377720e0 5.46378491116411436990e0 1.78482653991729133580e0 "
    "2.96560571828504891230e-1 2.65321895265761230930e-2 1.24266094738807843860e-3 "
    "2.71155556874348757815e-5 2.01033439929228813265e-7",
    "1.0 5.99832206555887937690e-1 1.36929880922735805310e-1 "
    "1.48753612908506148525e-2 7.86869131145613259100e-4 1.84631831751005468180e-5 "
    "1.42151175831644588870e-7 2.04426310338993978564e-15",
)


def _quotient(variable: str, numbers: tuple[tuple[float, ...], ...]) -> str:
    return f"{_horner(variable, numbers[0])} / {_horner(variable, numbers[1])}"


_ROOT_HALF = repr(math.sqrt(0.5))
_TAIL = "sqrt(-log((C(1) - abs(a)) * C(0.5)))"
_ERFINV = (
    f"a * (C({math.sqrt(0.125)!r}) * {_quotient('(C(0.180625) - C(0.25) * a * a)', _NEAR)}) "
    "if abs(a) <= C(0.85) else "
    "((a / (C(1) - abs(a)) if abs(a) == C(1) else C(0) / (a - a)) if abs(a) >= C(1) else "
    f"({_SIGN} * C({_ROOT_HALF})) * "
    f"({_quotient(f'({_TAIL} - C(1.6))', _MIDDLE)} if {_TAIL} <= C(5) else "
    f"{_quotient(f'({_TAIL} - C(5))', _FAR)}))"
)


def _erfinv_reference(x: Any) -> Any:
    from scipy.special import erfinv as reference

    return reference(x)


def _erfinv_vjp(g: Array, y: Array, x: Array) -> list[Array | None]:
    return [g * (0.5 * math.sqrt(math.pi)) * exp(square(y))]


def tan(x: Any) -> Any:
    """The tangent: sin(x) / cos(x)."""
    return divide(sin(x), cos(x))


def asin(x: Any) -> Any:
    """The angle from -pi/2 to pi/2 whose sine is `x`; NaN outside of [-1, 1]."""
    return bind(ASIN, *promote(x, floating=True))


def acos(x: Any) -> Any:
    """The angle from 0 to pi whose cosine is `x`; NaN outside of [-1, 1]."""
    return bind(ACOS, *promote(x, floating=True))


def atan(x: Any) -> Any:
    """The angle from -pi/2 to pi/2 whose tangent is `x`."""
    return bind(ATAN, *promote(x, floating=True))


def sinh(x: Any) -> Any:
    """The hyperbolic sine."""
    return bind(SINH, *promote(x, floating=True))


def cosh(x: Any) -> Any:
    """The hyperbolic cosine."""
    return bind(COSH, *promote(x, floating=True))


def asinh(x: Any) -> Any:
    """The inverse hyperbolic sine (A&S 4.6.20)."""
    return bind(ASINH, *promote(x, floating=True))


def acosh(x: Any) -> Any:
    """The inverse hyperbolic cosine (A&S 4.6.21); NaN below 1."""
    return bind(ACOSH, *promote(x, floating=True))


def atanh(x: Any) -> Any:
    """The inverse hyperbolic tangent (A&S 4.6.22); NaN outside of [-1, 1]."""
    return bind(ATANH, *promote(x, floating=True))


def atan2(y: Any, x: Any) -> Any:
    """The angle from -pi to pi of the point (x, y); by the signs of zeros, as in C.

    Gradient: x / (x^2 + y^2) by y, -y / (x^2 + y^2) by x; 0 at the origin, as in torch.
    """
    y, x = promote(y, x, floating=True)
    return bind(ATAN2, y, x)


_QUARTER, _PI = repr(math.pi / 4), repr(math.pi)
_NEGATIVE_Y = "(a < C(0) or (a == C(0) and C(1) / a < C(0)))"
_NEGATIVE_X = "(b < C(0) or (b == C(0) and C(1) / b < C(0)))"
# Of |y| / |x|, where inf / inf is 1 and 0 / 0 is 0; then reflected by the signs.
_FIRST = (
    f"(C({_QUARTER}) if abs(a) == abs(b) and a != C(0) else "
    "(C(0) if a == C(0) and b == C(0) else atan(abs(a) / abs(b))))"
)
_UPPER = f"(C({_PI}) - {_FIRST} if {_NEGATIVE_X} else {_FIRST})"


def _atan2_vjp(g: Array, z: Array, y: Array, x: Array) -> list[Array | None]:
    squares = square(x) + square(y)
    scale = g / where(equal(squares, 0.0), math.inf, squares)
    return [multiply(scale, x), -multiply(scale, y)]


ATAN2 = elementwise(
    "atan2",
    np.arctan2,
    _atan2_vjp,
    f"(a + b if a != a or b != b else (-{_UPPER} if {_NEGATIVE_Y} else {_UPPER}))",
    flops=25.0,
)
ERFINV = elementwise("erfinv", _erfinv_reference, _erfinv_vjp, _ERFINV, flops=40.0)


def erfinv(x: Any) -> Any:
    """The number whose error function is `x`: infinite at -1 and 1, NaN beyond."""
    return bind(ERFINV, *promote(x, floating=True))


def hypot(x: Any, y: Any) -> Any:
    """`sqrt(x^2 + y^2)` without overflow; gradient 0 at the origin."""
    a, b = promote(x, y, floating=True)
    a, b = absolute(a), absolute(b)
    endless = logical_or(equal(a, math.inf), equal(b, math.inf))
    a, b = where(endless, 1.0, a), where(endless, 1.0, b)
    large, small = maximum(a, b), minimum(a, b)
    plain = equal(large, 0.0)
    ratio = divide(small, where(plain, 1.0, large))
    root = multiply(large, sqrt(square(ratio) + 1.0))
    return where(endless, math.inf, where(plain, 0.0, root))
