"""Powers, logarithms and blends of numbers, made of other ops."""

from __future__ import annotations

import math
from typing import Any

from gpubp.arguments import checked
from gpubp.ops.elementwise import abs as absolute
from gpubp.ops.elementwise import (
    add,
    divide,
    exp,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    power,
    sin,
    sqrt,
    subtract,
)
from gpubp.ops.logic import (
    equal,
    greater,
    less,
    logical_and,
    logical_not,
    logical_or,
    where,
)
from gpubp.ops.rounding import isnan
from gpubp.ops.spec import promote

# From 2^23 (2^52 in float64) on all numbers are whole; below, adding and taking away that much
# rounds to the nearest whole number, ties to the even one.


def exp2(x: Any) -> Any:
    """2^x."""
    return power(2.0, x)


def log2(x: Any) -> Any:
    """The logarithm to base 2."""
    return multiply(log(x), 1.0 / math.log(2.0))


def log10(x: Any) -> Any:
    """The logarithm to base 10."""
    return multiply(log(x), 1.0 / math.log(10.0))


def logaddexp(x: Any, y: Any) -> Any:
    """`log(e^x + e^y)` without overflow; -inf for two of -inf."""
    x, y = promote(x, y, floating=True)
    large, small = maximum(x, y), minimum(x, y)
    same = equal(large, small)  # also where both are infinite
    gap = where(same, 0.0, subtract(small, where(same, 0.0, large)))
    return large + log1p(exp(gap))


def logaddexp2(x: Any, y: Any) -> Any:
    """`log2(2^x + 2^y)` without overflow."""
    ln2 = math.log(2.0)
    return multiply(logaddexp(multiply(x, ln2), multiply(y, ln2)), 1.0 / ln2)


@checked
def logit(x: Any, eps: float | None = None) -> Any:
    """`log(x / (1 - x))`; with `eps`, of `x` clipped to [eps, 1 - eps]."""
    from gpubp.ops.elementwise import clip

    (x,) = promote(x, floating=True)
    if eps is not None:
        x = clip(x, eps, 1.0 - eps)
    return log(divide(x, subtract(1.0, x)))


def xlogy(x: Any, y: Any) -> Any:
    """`x log(y)`, 0 where x is 0 (and y is not NaN).

    Gradient: log(y) by x, x / y by y; 0 where x is 0 and y is not positive and finite.
    """
    x, y = promote(x, y, floating=True)
    usual = logical_and(greater(y, 0.0), less(y, math.inf))
    nothing = logical_and(equal(x, 0.0), logical_not(logical_or(usual, isnan(y))))
    return where(nothing, 0.0, multiply(x, log(where(nothing, 1.0, y))))


def sinc(x: Any) -> Any:
    """`sin(pi x) / (pi x)`, 1 at 0."""
    (x,) = promote(x, floating=True)
    zero = equal(x, 0.0)
    angle = multiply(where(zero, 1.0, x), math.pi)
    return where(zero, 1.0, divide(sin(angle), angle))


def reciprocal(x: Any) -> Any:
    """`1 / x`."""
    return divide(1.0, x)


def rsqrt(x: Any) -> Any:
    """`1 / sqrt(x)`."""
    return divide(1.0, sqrt(x))


def lerp(start: Any, end: Any, weight: Any) -> Any:
    """`start + weight (end - start)`, exact at both ends."""
    start, end, weight = promote(start, end, weight, floating=True)
    gap = subtract(end, start)
    near = less(absolute(weight), 0.5)
    first = add(start, multiply(weight, gap))
    return where(near, first, subtract(end, multiply(gap, subtract(1.0, weight))))


@checked
def addcmul(x: Any, a: Any, b: Any, *, value: float = 1.0) -> Any:
    """`x + value a b`."""
    product = multiply(a, b)
    return add(x, product if value == 1 else multiply(product, value))


@checked
def addcdiv(x: Any, a: Any, b: Any, *, value: float = 1.0) -> Any:
    """`x + value a / b`."""
    return add(x, multiply(value, divide(a, b)))


def deg2rad(x: Any) -> Any:
    """Degrees as radians."""
    return multiply(x, math.pi / 180.0)


def rad2deg(x: Any) -> Any:
    """Radians as degrees."""
    return multiply(x, 180.0 / math.pi)
