"""Running results along an axis: cumsum, cumprod, cummax, cummin, logcumsumexp, diff.

Each is made in log2(n) rounds of elementwise ops (Hillis and Steele, 1986): after round r an
element stands for the last 2**r of them. So every backend runs them, whoever shares the work gets
the same bits, and gradients are those of the parts: that of a product is right where factors are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ArgumentError, DTypeError, ShapeError
from gpubp.ops import logic
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import add, exp, log, maximum, multiply, subtract
from gpubp.ops.index import concat
from gpubp.ops.places import gather_along
from gpubp.ops.shape import broadcast_to, reshape, stop_gradient
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import normalized_axis, promote


def _cut(x: Any, axis: int, part: slice) -> Any:
    return strided_slice(x, [part if i == axis else slice(None) for i in range(len(x.shape))])


def _rounds(values: list[Any], axis: int, join: Callable[..., list[Any]]) -> list[Any]:
    """`join(earlier, later)` over growing distances; each is a list of arrays."""
    n, step = values[0].shape[axis], 1
    while step < n:
        later = [_cut(v, axis, slice(step, None)) for v in values]
        earlier = [_cut(v, axis, slice(0, n - step)) for v in values]
        first = [_cut(v, axis, slice(0, step)) for v in values]
        joined = join(earlier, later)
        values = [concat(pair, axis) for pair in zip(first, joined, strict=True)]
        step *= 2
    return values


def _running(name: str, x: Any, dim: int, dtype: Any, op: Callable[..., Any]) -> Any:
    (x,) = promote(x)
    if not len(x.shape):
        normalized_axis(dim, 1, name)
        return reshape(_running(name, reshape(x, (1,)), 0, dtype, op), ())
    axis = normalized_axis(dim, len(x.shape), name)
    if dtype is not None:
        x = logic.astype(x, dtype)
    out = x.dtype if dtype is not None or x.dtype.kind == "f" else np.dtype(np.int64)
    x = logic.astype(x, "float64" if out.kind == "f" else "int64")
    (total,) = _rounds([x], axis, lambda a, b: [op(a[0], b[0])])
    return logic.astype(total, out)


def cumsum(x: Any, dim: int, dtype: Any = None) -> Any:
    """Sums of the elements up to each, along `dim`; in float64 inside, int64 of whole numbers."""
    return _running("cumsum", x, dim, dtype, add)


def cumprod(x: Any, dim: int, dtype: Any = None) -> Any:
    """Products of the elements up to each, along `dim`; in float64 inside, int64 of whole ones."""
    return _running("cumprod", x, dim, dtype, multiply)


def logcumsumexp(x: Any, dim: int) -> Any:
    """`log(cumsum(exp(x)))` without overflow. The gradient is NaN where all so far are -inf."""
    (x,) = promote(x, floating=True)
    return _running("logcumsumexp", x, dim, None, _log_add)


def _log_add(a: Any, b: Any) -> Any:
    top = stop_gradient(maximum(a, b))
    top = logic.where(logic.isfinite(top), top, 0.0)
    return add(log(add(exp(subtract(a, top)), exp(subtract(b, top)))), top)


def cummax(x: Any, dim: int) -> tuple[Any, Any]:
    """The largest element up to each, and its place: the last one of equals; NaN stays."""
    return _extremes("cummax", x, dim, logic.greater_equal)


def cummin(x: Any, dim: int) -> tuple[Any, Any]:
    """The smallest element up to each, and its place: the last one of equals; NaN stays."""
    return _extremes("cummin", x, dim, logic.less_equal)


def _extremes(name: str, x: Any, dim: int, beats: Callable[..., Any]) -> tuple[Any, Any]:
    (x,) = promote(x)
    if not len(x.shape):
        values, places = _extremes(name, reshape(x, (1,)), dim, beats)
        return reshape(values, ()), reshape(places, ())
    if x.dtype.kind == "b":
        raise DTypeError(f"{name}: expected numbers, got {describe(x)}.")
    axis = normalized_axis(dim, len(x.shape), name)
    line = np.arange(x.shape[axis], dtype=np.int64)
    line = line.reshape([-1 if i == axis else 1 for i in range(len(x.shape))])
    places = broadcast_to(constant(line, x), x.shape)

    def join(a: list[Any], b: list[Any]) -> list[Any]:
        later = logic.logical_or(beats(b[0], a[0]), logic.not_equal(b[0], b[0]))
        return [logic.where(later, q, p) for p, q in zip(a, b, strict=True)]

    _, places = _rounds([stop_gradient(x), places], axis, join)
    return gather_along(x, axis, places), places


@checked
def diff(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """Differences of neighbours along `dim`, `n` times; between booleans whether they differ.

    Raises:
        ArgumentError: n is negative.
        ShapeError: `x` has no axis.
    """
    parts = promote(*[p for p in (prepend, x, append) if p is x or p is not None])
    if not len(parts[0].shape):
        raise ShapeError("diff: expected an array of one dimension or more.")
    if n < 0:
        raise ArgumentError(f"diff: n is {n}, expected at least 0.")
    axis = normalized_axis(dim, len(parts[0].shape), "diff")
    x = concat(parts, axis) if n and len(parts) > 1 else parts[prepend is not None]
    for _ in range(min(n, x.shape[axis])):
        later, earlier = _cut(x, axis, slice(1, None)), _cut(x, axis, slice(0, -1))
        op = logic.not_equal if x.dtype.kind == "b" else subtract
        x = op(later, earlier)
    return x
