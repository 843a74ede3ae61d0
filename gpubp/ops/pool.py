"""Pools: the largest and the sum of each window, and their gradients.

Images are channels last, (N, *sizes, C). A window at p has the elements p stride + t dilation -
padding for taps t of the kernel; `padding` is exact: with it, as many windows fit as there are
results (its second number may be negative, where elements at the end are in no window). What is
outside an image is in no window.

- max_pool: the largest of each window. The first of equal ones wins, and of NaN the last.
- max_pool_indices: where it stands, as a flat index over the sizes.
- max_pool_grad: its transpose: each element gets the sum of dy over the windows that it wins.
- max_pool_pick: g at the winners of x, the transpose of that.
- sum_pool, sum_pool_grad: the sum of each window, and its transpose.

The sums of gradients run over windows in their order, so every backend gives the same bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp.core import Array, ArrayType, Kind, OpSpec, Shape, Typed, bind, describe
from gpubp.errors import ShapeError
from gpubp.ops.spatial import Padding, sizes_of, windows_along
from gpubp.ops.spec import INT64, register, require_float, require_numeric

_Cotangents = tuple[Array | None, ...]


def _found(op: str, x: Typed, kernel: Shape, **window: Any) -> Shape:
    """(N, *windows, C)."""
    if len(x.shape) != len(kernel) + 2:
        raise ShapeError(f"{op}: windows {kernel} do not fit {describe(x)}.")
    sizes = windows_along(op, sizes_of(x), kernel, **window)
    return (x.shape[0], *sizes, x.shape[-1])


def _positions(
    sizes: Shape, found: Shape, stride: Shape, padding: Padding, dilation: Shape, tap: Shape
) -> list[Any]:
    """For each axis where this tap of each window stands; below 0 or too large: outside."""
    return [
        np.arange(n) * s - lo + t * d
        for n, s, (lo, _), d, t in zip(found, stride, padding, dilation, tap, strict=True)
    ]


def _max_infer(x: Typed, *, kernel: Shape, **window: Any) -> ArrayType:
    require_numeric("max_pool", x)
    shape = _found("max_pool", x, kernel, **window)
    for n, count, k, s, (lo, _), d in zip(
        sizes_of(x), shape[1:-1], kernel, window["stride"], window["padding"], window["dilation"]
    ):
        at = np.arange(count)[:, None] * s - lo + np.arange(k) * d
        if not ((at >= 0) & (at < n)).any(axis=1).all():
            raise ShapeError(f"max_pool: a window {kernel} lies outside {describe(x)}: {window}.")
    return ArrayType(shape, x.dtype)


def _indices_infer(x: Typed, **window: Any) -> ArrayType:
    return ArrayType(_max_infer(x, **window).shape, INT64)


def _max_grad_infer(x: Typed, dy: Typed, **window: Any) -> ArrayType:
    require_float("max_pool_grad", x, dy)
    if _max_infer(x, **window).shape != dy.shape:
        raise ShapeError(f"max_pool_grad: {describe(dy)} is no result of {describe(x)}.")
    return ArrayType(x.shape, x.dtype)


def _pick_infer(x: Typed, g: Typed, **window: Any) -> ArrayType:
    require_float("max_pool_pick", x, g)
    if x.shape != g.shape:
        raise ShapeError(f"max_pool_pick: {describe(g)} is not like {describe(x)}.")
    return ArrayType(_max_infer(x, **window).shape, x.dtype)


def _winners(x: Any, *, kernel: Shape, **window: Any) -> tuple[Any, Any]:
    """The largest of each window, and its flat index."""
    shape, sizes = _max_infer(x, kernel=kernel, **window).shape, sizes_of(x)
    top = np.zeros(shape, x.dtype)
    best = np.full(shape, -1, np.int64)
    for tap in itertools.product(*map(range, kernel)):
        at = _positions(sizes, shape[1:-1], tap=tap, **window)
        valid, place = np.True_, np.int64(0)
        for axis, (where, n) in enumerate(zip(at, sizes, strict=True)):
            wide = where.reshape(-1, *[1] * (len(sizes) - axis))
            valid = valid & (wide >= 0) & (wide < n)
            place = place * n + wide
        inside = [np.clip(where, 0, n - 1) for where, n in zip(at, sizes, strict=True)]
        v = x[(slice(None), *np.ix_(*inside))]
        wins = valid & ((v > top) | (v != v) | (best < 0))
        top, best = np.where(wins, v, top), np.where(wins, place, best)
    return top, best


def _flat(x: Any) -> Any:
    """(N, *sizes, C) as (N, places, C)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _max_reference(x: Any, **window: Any) -> Any:
    return _winners(x, **window)[0]


def _indices_reference(x: Any, **window: Any) -> Any:
    return _winners(x, **window)[1]


def _max_grad_reference(x: Any, dy: Any, **window: Any) -> Any:
    best = _flat(_winners(x, **window)[1])
    out = np.zeros_like(_flat(x))
    images, channels = np.arange(x.shape[0])[:, None, None], np.arange(x.shape[-1])
    np.add.at(out, (images, best, channels), _flat(dy))
    return out.reshape(x.shape)


def _pick_reference(x: Any, g: Any, **window: Any) -> Any:
    best = _winners(x, **window)[1]
    return np.take_along_axis(_flat(g), _flat(best), 1).reshape(best.shape)


def _sum_infer(x: Typed, *, kernel: Shape, **window: Any) -> ArrayType:
    require_float("sum_pool", x)
    return ArrayType(_found("sum_pool", x, kernel, **window), x.dtype)


def _sum_grad_infer(dy: Typed, *, sizes: Shape, **window: Any) -> ArrayType:
    require_float("sum_pool_grad", dy)
    x = ArrayType((dy.shape[0], *sizes, dy.shape[-1]), dy.dtype)
    if _sum_infer(x, **window).shape != dy.shape:
        raise ShapeError(f"sum_pool_grad: {describe(dy)} is no result of sizes {sizes}.")
    return x


def _meetings(
    sizes: Shape, found: Shape, kernel: Shape, backwards: bool = False, **window: Any
) -> Iterator[tuple[Any, Any]]:
    """(elements, windows) that a tap joins, as keys into (N, *, C); taps in order or backwards."""
    taps = list(itertools.product(*map(range, kernel)))
    for tap in taps[::-1] if backwards else taps:
        elements, windows = [], []
        for at, n in zip(_positions(sizes, found, tap=tap, **window), sizes, strict=True):
            (inside,) = np.nonzero((at >= 0) & (at < n))
            windows.append(inside)
            elements.append(at[inside])
        yield (slice(None), *np.ix_(*elements)), (slice(None), *np.ix_(*windows))


def _sum_reference(x: Any, **window: Any) -> Any:
    out = np.zeros(_sum_infer(x, **window).shape, x.dtype)
    for elements, windows in _meetings(sizes_of(x), out.shape[1:-1], **window):
        out[windows] += x[elements]
    return out


def _sum_grad_reference(dy: Any, *, sizes: Shape, **window: Any) -> Any:
    out = np.zeros((dy.shape[0], *sizes, dy.shape[-1]), dy.dtype)
    # The last tap first: an element meets its windows in their order.
    for elements, windows in _meetings(sizes, sizes_of(dy), backwards=True, **window):
        out[elements] += dy[windows]
    return out


def _flops(out: Typed, *inputs: Typed, kernel: Shape, **_: Any) -> float:
    """One a tap of each window."""
    least = min(math.prod(t.shape) for t in (out, *inputs))
    return float(least * math.prod(kernel))


def _max_flops(out: Typed, x: Typed, *rest: Typed, kernel: Shape, **window: Any) -> float:
    return float(math.prod(_found("max_pool", x, kernel, **window)) * math.prod(kernel))


def _max_vjp(g: Array, y: Array, x: Array, **window: Any) -> _Cotangents:
    return (bind(MAX_POOL_GRAD, x, g, **window),)


def _max_grad_vjp(g: Array, y: Array, x: Array, dy: Array, **window: Any) -> _Cotangents:
    return None, bind(MAX_POOL_PICK, x, g, **window)


def _pick_vjp(c: Array, y: Array, x: Array, g: Array, **window: Any) -> _Cotangents:
    return None, bind(MAX_POOL_GRAD, x, c, **window)


def _sum_vjp(g: Array, y: Array, x: Array, **window: Any) -> _Cotangents:
    return (bind(SUM_POOL_GRAD, g, sizes=sizes_of(x), **window),)


def _sum_grad_vjp(g: Array, y: Array, dy: Array, *, sizes: Shape, **window: Any) -> _Cotangents:
    return (bind(SUM_POOL, g, **window),)


def _spec(name: str, infer: Any, reference: Any, vjp: Any, flops: Any, **more: Any) -> OpSpec:
    return register(OpSpec(name, Kind.ROWWISE, infer, reference, vjp, flops, **more))


MAX_POOL = _spec("max_pool", _max_infer, _max_reference, _max_vjp, _max_flops, followed=True)
MAX_POOL_GRAD = _spec(
    "max_pool_grad",
    _max_grad_infer,
    _max_grad_reference,
    _max_grad_vjp,
    _max_flops,
    followed=True,
)
MAX_POOL_PICK = _spec("max_pool_pick", _pick_infer, _pick_reference, _pick_vjp, _max_flops)
MAX_POOL_INDICES = _spec("max_pool_indices", _indices_infer, _indices_reference, None, _max_flops)
SUM_POOL = _spec("sum_pool", _sum_infer, _sum_reference, _sum_vjp, _flops, followed=True)
SUM_POOL_GRAD = _spec(
    "sum_pool_grad", _sum_grad_infer, _sum_grad_reference, _sum_grad_vjp, _flops, followed=True
)
