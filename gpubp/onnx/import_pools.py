"""ONNX's pools written in gpubp.

They differ from PyTorch's: padding an end, dilated averages, indices into the whole array.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.core import bind
from gpubp.onnx.import_common import ints
from gpubp.ops.pool import MAX_POOL, MAX_POOL_INDICES, SUM_POOL
from gpubp.ops.pooling import averaged, window_of
from gpubp.ops.spatial import channels_first, channels_last


def _windows(
    x: Any,
    kernel_shape: Any,
    strides: Any = None,
    pads: Any = None,
    dilations: Any = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> tuple[dict[str, Any], Any]:
    sizes, kernel = tuple(x.shape[2:]), ints(kernel_shape)
    one = (1,) * len(kernel)
    steps, spread = ints(strides or one), ints(dilations or one)
    ends = ints(pads or (0,) * 2 * len(kernel))
    around = tuple(zip(ends[: len(kernel)], ends[len(kernel) :], strict=True))
    if auto_pad.startswith("SAME"):
        around = ()
        for n, k, s, d in zip(sizes, kernel, steps, spread, strict=True):
            total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            few, many = total // 2, total - total // 2
            around += ((few, many) if auto_pad == "SAME_UPPER" else (many, few),)
    return window_of("pool", sizes, kernel, steps, around, spread, bool(ceil_mode))


def average(x: Any, *, count_include_pad: int = 0, **options: Any) -> Any:
    window, around = _windows(x, **options)
    return channels_first(averaged(channels_last(x), window, around, bool(count_include_pad)))


def largest(x: Any, *, storage_order: int = 0, outputs: int = 1, **options: Any) -> Any:
    window, _ = _windows(x, **options)
    images = channels_last(x)
    y = channels_first(bind(MAX_POOL, images, **window))
    if outputs == 1:
        return y
    best = channels_first(bind(MAX_POOL_INDICES, images, **window))
    sizes = x.shape[2:]
    if storage_order:
        order = np.arange(math.prod(sizes)).reshape(sizes[::-1]).transpose().ravel()
        best = ops.gather(order, best)
    return y, ops.add(best, _starts(x, math.prod(sizes)))


def _starts(x: Any, size: int) -> Any:
    """The first index of each image and channel."""
    n, c = x.shape[:2]
    return (np.arange(n * c) * size).reshape(n, c, *[1] * (x.ndim - 2))


def p_norm(x: Any, *, p: int = 2, **options: Any) -> Any:
    window, _ = _windows(x, **options)
    total = bind(SUM_POOL, channels_last(ops.power(ops.abs(x), float(p))), **window)
    return channels_first(ops.power(total, 1.0 / p))


def unpool(x: Any, indices: Any, shape: Any = None, *, kernel_shape: Any, **options: Any) -> Any:
    """A larger shape has zeros behind what would be made without it."""
    kernel = ints(kernel_shape)
    steps = ints(options.get("strides") or (1,) * len(kernel))
    sizes = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], steps, kernel, strict=True)]
    indices = ops.subtract(indices, _starts(x, math.prod(sizes)))
    y = getattr(ops, f"max_unpool{len(kernel)}d")(x, indices, kernel, steps)
    for axis, size in enumerate(() if shape is None else ints(shape)):
        if size > y.shape[axis]:
            rest = [size - n if i == axis else n for i, n in enumerate(y.shape)]
            y = ops.concat([y, np.zeros(rest, x.dtype)], axis)
    return y
