"""Specs of convolutions of one to three axes.

Three ops make each other's gradients, so that all orders are defined. Images are channels last,
(N, *sizes, C), weights (O, C / groups, *kernel) as in PyTorch:

- conv: y[n, p, o] = the sum over taps t and channels c of
  x[n, p stride + t dilation - padding, c] w[o, c, t]
- conv_input: its transpose in x (the gradient by x, and the transposed convolution)
- conv_weight: its transpose in w, as (chunks, *kernel, C / groups, O): sums over `chunk` images
  each, which are added up after it. A worker sums what it has, and the order of the additions does
  not depend on the number of workers.

Formulas: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning" (2016,
arXiv:1603.07285).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpubp.core import Array, ArrayType, Kind, OpSpec, Shape, Typed, bind, describe
from gpubp.errors import ShapeError
from gpubp.ops.conv_batched import own_gradients, own_weights
from gpubp.ops.index import concat
from gpubp.ops.shape import reshape, transpose
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spatial import (
    Padding,
    sizes_of,
    windows_along,
)
from gpubp.ops.spec import register, require_float

CHUNKS = 8  # sums of weight gradients: so many at most
_Cotangents = tuple[Array | None, ...]


def _infer(
    x: Typed, w: Typed, *, stride: Shape, padding: Padding, dilation: Shape, groups: int
) -> ArrayType:
    require_float("conv", x, w)
    if x.shape[-1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(
            f"conv: images of {x.shape[-1]} channels do not fit weight {describe(w)} "
            f"in {groups} groups."
        )
    found = windows_along("conv", sizes_of(x), tuple(w.shape[2:]), stride, padding, dilation)
    return ArrayType((x.shape[0], *found, w.shape[0]), x.dtype)


def _input_infer(
    dy: Typed,
    w: Typed,
    *,
    stride: Shape,
    padding: Padding,
    dilation: Shape,
    groups: int,
    sizes: Shape,
) -> ArrayType:
    require_float("conv_input", dy, w)
    x = ArrayType((dy.shape[0], *sizes, w.shape[1] * groups), dy.dtype)
    y = _infer(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if y.shape != dy.shape:
        raise ShapeError(f"conv_input: {describe(dy)} is no result of images of sizes {sizes}.")
    return x


def _weight_infer(
    x: Typed,
    dy: Typed,
    *,
    stride: Shape,
    padding: Padding,
    dilation: Shape,
    groups: int,
    kernel: Shape,
    chunk: int,
) -> ArrayType:
    require_float("conv_weight", x, dy)
    w = ArrayType((dy.shape[-1], x.shape[-1] // groups, *kernel), x.dtype)
    y = _infer(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if y.shape != dy.shape:
        raise ShapeError(f"conv_weight: {describe(dy)} is no result of {describe(x)}.")
    chunks = -(-x.shape[0] // chunk) if x.shape[0] else 1
    return ArrayType((chunks, *kernel, w.shape[1], w.shape[0]), x.dtype)


def _taps(kernel: Shape, stride: Shape, dilation: Shape, found: Shape) -> Iterator[Any]:
    """(tap, key): the elements of padded images that meet this tap of the kernel."""
    for tap in itertools.product(*map(range, kernel)):
        key = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilation, found, stride, strict=True)
        )
        yield tap, (slice(None), *key, slice(None))


def _padded(x: Any, padding: Padding) -> Any:
    """Zeros around images; a negative number after them leaves so many elements out."""
    inner = (slice(0, n + min(hi, 0)) for n, (_, hi) in zip(sizes_of(x), padding, strict=True))
    wide = ((lo, max(hi, 0)) for lo, hi in padding)
    return np.pad(x[(slice(None), *inner)], ((0, 0), *wide, (0, 0)))


def _by_groups(x: Any, groups: int) -> Any:
    """(..., C) as (groups, rows, C / groups)."""
    return x.reshape(-1, groups, x.shape[-1] // groups).swapaxes(0, 1)


def _conv_reference(
    x: Any, w: Any, *, stride: Shape, padding: Padding, dilation: Shape, groups: int
) -> Any:
    y = _infer(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    wide = _padded(x, padding)
    by_group = w.reshape(groups, -1, *w.shape[1:])
    total = np.zeros((groups, math.prod(y.shape[:-1]), w.shape[0] // groups), x.dtype)
    for tap, key in _taps(w.shape[2:], stride, dilation, y.shape[1:-1]):
        weights = by_group[(..., *tap)].swapaxes(1, 2)
        total += _by_groups(wide[key], groups) @ weights
    return np.ascontiguousarray(total.swapaxes(0, 1)).reshape(y.shape)


def _input_reference(
    dy: Any,
    w: Any,
    *,
    stride: Shape,
    padding: Padding,
    dilation: Shape,
    groups: int,
    sizes: Shape,
) -> Any:
    grown = tuple(n + lo + max(hi, 0) for n, (lo, hi) in zip(sizes, padding, strict=True))
    wide = np.zeros((dy.shape[0], *grown, w.shape[1] * groups), dy.dtype)
    by_group = w.reshape(groups, -1, *w.shape[1:])
    rows = _by_groups(dy, groups)
    for tap, key in _taps(w.shape[2:], stride, dilation, dy.shape[1:-1]):
        part = rows @ by_group[(..., *tap)]
        wide[key] += part.swapaxes(0, 1).reshape(wide[key].shape)
    inner = (slice(lo, lo + n) for n, (lo, _) in zip(sizes, padding, strict=True))
    return np.ascontiguousarray(wide[(slice(None), *inner)])


def _weight_reference(
    x: Any,
    dy: Any,
    *,
    stride: Shape,
    padding: Padding,
    dilation: Shape,
    groups: int,
    kernel: Shape,
    chunk: int,
) -> Any:
    count = -(-x.shape[0] // chunk) if x.shape[0] else 1
    channels, filters = x.shape[-1] // groups, dy.shape[-1]
    out = np.zeros((count, *kernel, channels, filters), x.dtype)
    for i in range(count):
        part = slice(i * chunk, (i + 1) * chunk)
        wide, rows = _padded(x[part], padding), _by_groups(dy[part], groups)
        for tap, key in _taps(kernel, stride, dilation, dy.shape[1:-1]):
            sums = _by_groups(wide[key], groups).swapaxes(1, 2) @ rows
            out[(i, *tap)] = sums.swapaxes(0, 1).reshape(channels, filters)
    return out


def weight_gradient(x: Array, dy: Array, kernel: Shape, **attrs: Any) -> Array:
    """The gradient by the weights: sums over chunks of images, added up."""
    chunk = max(-(-x.shape[0] // CHUNKS), 1)
    parts = bind(CONV_WEIGHT, x, dy, kernel=kernel, chunk=chunk, **attrs)
    return _as_weight(parts.sum(axis=0))


def _as_weight(sums: Array) -> Array:
    """(*kernel, C / groups, O) as (O, C / groups, *kernel): a view."""
    last = sums.ndim - 1
    found: Array = transpose(sums, (last, last - 1, *range(last - 1)))
    return found


def _conv_vjp(g: Array, y: Array, x: Array, w: Array, **attrs: Any) -> _Cotangents:
    dx = bind(CONV_INPUT, g, w, sizes=sizes_of(x), **attrs)
    return dx, weight_gradient(x, g, tuple(w.shape[2:]), **attrs)


def _input_vjp(
    g: Array, y: Array, dy: Array, w: Array, *, sizes: Shape, **attrs: Any
) -> _Cotangents:
    return bind(CONV, g, w, **attrs), weight_gradient(g, dy, tuple(w.shape[2:]), **attrs)


def _weight_vjp(
    g: Array, y: Array, x: Array, dy: Array, *, kernel: Shape, chunk: int, **attrs: Any
) -> _Cotangents:
    """Chunk by chunk: each has weights of its own."""
    dx, ddy = [], []
    for i in range(y.shape[0]):
        whole = [slice(None)] * x.ndim
        whole[0] = slice(i * chunk, min((i + 1) * chunk, x.shape[0]))
        mine = [slice(i, i + 1), *[slice(None)] * (g.ndim - 1)]
        w = _as_weight(reshape(strided_slice(g, mine), tuple(g.shape[1:])))
        some, rows = strided_slice(x, whole), strided_slice(dy, whole)
        dx.append(bind(CONV_INPUT, rows, w, sizes=sizes_of(x), **attrs))
        ddy.append(bind(CONV, some, w, **attrs))
    return concat(dx, 0), concat(ddy, 0)


def _conv_flops(out: Typed, x: Typed, w: Typed, **_: Any) -> float:
    return 2.0 * math.prod(out.shape[:-1]) * math.prod(w.shape)


def _input_flops(out: Typed, dy: Typed, w: Typed, **_: Any) -> float:
    return 2.0 * math.prod(dy.shape[:-1]) * math.prod(w.shape)


def _weight_flops(out: Typed, x: Typed, dy: Typed, **_: Any) -> float:
    return 2.0 * math.prod(dy.shape[:-1]) * math.prod(out.shape[1:])


CONV = register(
    OpSpec(
        "conv",
        Kind.CONV,
        _infer,
        _conv_reference,
        _conv_vjp,
        flops=_conv_flops,
        row_inputs=lambda inputs, **_: (0,),
        followed=True,
        batched=own_weights,
    )
)
CONV_INPUT = register(
    OpSpec(
        "conv_input",
        Kind.CONV,
        _input_infer,
        _input_reference,
        _input_vjp,
        flops=_input_flops,
        row_inputs=lambda inputs, **_: (0,),
        followed=True,
        batched=own_weights,
    )
)
CONV_WEIGHT = register(
    OpSpec(
        "conv_weight",
        Kind.CONV,
        _weight_infer,
        _weight_reference,
        _weight_vjp,
        flops=_weight_flops,
        row_inputs=lambda inputs, **_: (),
        batched=own_gradients,
    )
)
