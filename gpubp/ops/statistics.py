"""Reductions made of others: products, variances, norms, and questions about all elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.arguments import shown, truth
from gpubp.core import describe
from gpubp.errors import ArgumentError, DTypeError, ShapeError
from gpubp.ops import reduce
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import abs as absolute
from gpubp.ops.elementwise import divide, exp, log, multiply, power, sqrt, square, subtract
from gpubp.ops.logic import astype, equal, isfinite, not_equal, where
from gpubp.ops.reduce import sum as total
from gpubp.ops.rounding import isnan
from gpubp.ops.shape import reshape, stop_gradient, transpose
from gpubp.ops.spec import BOOL, INT64, normalized_axes, promote

Axis = int | tuple[int, ...] | None


def _floats(op: str, x: Any) -> Any:
    (x,) = promote(x)
    if x.dtype.kind != "f":
        raise DTypeError(f"{op}: expected floats, got {describe(x)}. Use gp.ops.astype first.")
    return x


def _count(x: Any, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


def _kept(x: Any, axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """The shape after a reduction."""
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return tuple(n for i, n in enumerate(x.shape) if i not in axes)


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The product over `axis` (None: all axes); of integers and booleans int64.

    Halves are multiplied by halves, so the gradient is right where factors are 0.

    Raises:
        ShapeError: an axis is out of range or named twice.
    """
    from gpubp.ops.index import concat

    (x,) = promote(x)
    if x.dtype.kind != "f":
        x = astype(x, INT64)
    axes = normalized_axes(axis, len(x.shape), "prod")
    shape = _kept(x, axes, truth("prod", "keepdims", keepdims))
    rest = tuple(i for i in range(len(x.shape)) if i not in axes)
    n = _count(x, axes)
    lines = reshape(transpose(x, (*axes, *rest)), (n, math.prod(x.shape[i] for i in rest)))
    one = constant(np.ones((1, lines.shape[1]), x.dtype), x)
    if n == 0:
        return reshape(multiply(total(lines, 0), 0) + one[0], shape)
    while n > 1:
        if n % 2:
            lines, n = concat([lines, one]), n + 1
        lines, n = multiply(lines[: n // 2], lines[n // 2 :]), n // 2
    return reshape(lines, shape)


def var(x: Any, axis: Axis = None, keepdims: bool = False, *, correction: float = 1) -> Any:
    """The variance over `axis`: squared distances from the mean, by n - correction.

    Raises:
        DTypeError: `x` is not of floats.
        ShapeError: an axis is out of range.
    """
    return var_mean(x, axis, keepdims, correction=correction)[0]


def var_mean(
    x: Any, axis: Axis = None, keepdims: bool = False, *, correction: float = 1
) -> tuple[Any, Any]:
    """(variance, mean), see `var`."""
    x = _floats("var", x)
    axes = normalized_axes(axis, len(x.shape), "var")
    if not isinstance(correction, (int, float)):
        raise ArgumentError(f"var: correction is {shown(correction)}, expected a number.")
    keepdims = truth("var", "keepdims", keepdims)
    n = _count(x, axes)
    if n == 0:
        raise ShapeError(f"var: {describe(x)} has no elements to average over {axes}.")
    middle = reduce.mean(x, axes, keepdims=True)
    squares = total(square(subtract(x, middle)), axes, keepdims)
    freedom = max(n - float(correction), 0.0)
    spread = divide(squares, freedom)  # without any: infinite, or NaN where nothing varies
    return spread, reshape(middle, _kept(x, axes, keepdims))


def std(x: Any, axis: Axis = None, keepdims: bool = False, *, correction: float = 1) -> Any:
    """The standard deviation, see `var`; its gradient is 0 where it is 0."""
    return _root(var(x, axis, keepdims, correction=correction))


def std_mean(
    x: Any, axis: Axis = None, keepdims: bool = False, *, correction: float = 1
) -> tuple[Any, Any]:
    """(standard deviation, mean), see `var`."""
    spread, middle = var_mean(x, axis, keepdims, correction=correction)
    return _root(spread), middle


def _root(x: Any) -> Any:
    """The square root, with gradient 0 at 0."""
    zero = equal(x, 0.0)
    return where(zero, 0.0, sqrt(where(zero, 1.0, x)))


def norm(x: Any, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Any:
    """The p-norm of vectors along `axis` (None: of all elements), as torch.linalg.vector_norm.

    Args:
        x: floats.
        ord: p: any number; 0 counts what is not 0, infinities give the largest and smallest.
        axis: an axis, several, or None.
        keepdims: leave reduced axes as size 1.

    Returns:
        Norms; the gradient at 0 is 0, and for p below 0 that of all elements beside one.

    Raises:
        ArgumentError: `ord` is no number. DTypeError: `x` is not of floats.
        ShapeError: an axis is out of range.
    """
    x = _floats("norm", x)
    if isinstance(ord, bool) or not isinstance(ord, (int, float)):
        raise ArgumentError(f"norm: ord is {shown(ord)}, expected a number.")
    axes = normalized_axes(axis, len(x.shape), "norm")
    size = absolute(x)
    if ord == math.inf:
        return reduce.max(size, axes, keepdims)
    if ord == -math.inf:
        return reduce.min(size, axes, keepdims)
    if ord == 0:
        return total(astype(not_equal(x, 0.0), x.dtype), axes, keepdims)
    if ord == 1:
        return total(size, axes, keepdims)
    if ord == 2:
        return _scaled_root(x, axes, keepdims)
    none = equal(x, 0.0)  # below 1 the power has an infinite slope at 0, which torch takes for 0
    each = where(none, 0.0, power(where(none, 1.0, size), float(ord)))
    powers = total(each, axes, keepdims)
    zero = equal(powers, 0.0)
    found = power(where(zero, 1.0, powers), 1.0 / ord)
    if ord > 0:
        return where(zero, 0.0, found)
    return where(any(none, axes, keepdims), 0.0, where(zero, math.inf, found))


def _scaled_root(x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The root of the sum of squares: of float32 in float64, which no square leaves."""
    wide = astype(x, np.float64)
    return astype(_root(total(square(wide), axes, keepdims)), x.dtype)


vector_norm = norm


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """`log(sum(e^x))` without overflow; -inf of nothing, and of nothing but -inf.

    Raises:
        ShapeError: an axis is out of range.
    """
    (x,) = promote(x, floating=True)
    axes = normalized_axes(axis, len(x.shape), "logsumexp")
    if not math.prod([x.shape[a] for a in axes]):
        return log(total(exp(x), axes, truth("logsumexp", "keepdims", keepdims)))
    largest = stop_gradient(reduce.max(x, axes, keepdims=True))
    shift = where(isfinite(largest), largest, 0.0)
    sums = log(total(exp(subtract(x, shift)), axes, keepdims=True)) + shift
    return reshape(sums, _kept(x, axes, truth("logsumexp", "keepdims", keepdims)))


def _truths(x: Any) -> Any:
    (x,) = promote(x)
    return x if x.dtype == BOOL else not_equal(x, 0)


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """True where an element along `axis` is not 0 (or is NaN)."""
    return not_equal(total(astype(_truths(x), INT64), axis, keepdims), 0)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """True where no element along `axis` is 0."""
    return equal(total(astype(equal(astype(_truths(x), INT64), 0), INT64), axis, keepdims), 0)


def count_nonzero(x: Any, axis: Axis = None) -> Any:
    """How many elements along `axis` are not 0, int64."""
    return total(astype(_truths(x), INT64), axis)


def amax(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest element over `axis`; see `max`."""
    return reduce.max(x, axis, keepdims)


def amin(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest element over `axis`; see `min`."""
    return reduce.min(x, axis, keepdims)


def aminmax(x: Any, axis: Axis = None, keepdims: bool = False) -> tuple[Any, Any]:
    """(smallest, largest) over `axis`."""
    return reduce.min(x, axis, keepdims), reduce.max(x, axis, keepdims)


def nansum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The sum of all that is not NaN."""
    (x,) = promote(x)
    return total(where(isnan(x), 0.0, x) if x.dtype.kind == "f" else x, axis, keepdims)


def nanmean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The mean of all that is not NaN; NaN of nothing."""
    x = _floats("nanmean", x)
    known = astype(equal(astype(isnan(x), INT64), 0), x.dtype)
    return divide(nansum(x, axis, keepdims), total(known, axis, keepdims))
