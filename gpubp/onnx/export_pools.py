"""Pools as operators of ONNX."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.onnx.export_products import cut, to_channels_first, to_channels_last
from gpubp.onnx.export_shapes import padded
from gpubp.onnx.rules import Op, rule
from gpubp.onnx.sizes import whole
from gpubp.onnx.writer import Writer


def _prepared(w: Writer, op: Op, filler: float) -> tuple[str, dict[str, Any]]:
    """Images channels first, and the options of a window.

    Pads as large as the kernel, which ONNX Runtime refuses, are put around before.
    """
    (x,) = op.inputs
    ndim, kernel = len(x.shape), list(op.attrs["kernel"])
    name = to_channels_first(w, x.name, ndim)
    name, pads = cut(w, name, op.attrs["padding"], x.shape[1:-1], 2)
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        half = len(kernel)
        before, after = [0, 0, *pads[:half]], [0, 0, *pads[half:]]
        name = padded(w, name, before, after, w.constant(filler, op.dtype))
        pads = [0] * len(pads)
    options = {
        "kernel_shape": kernel,
        "strides": list(op.attrs["stride"]),
        "dilations": list(op.attrs["dilation"]),
        "pads": pads,
    }
    return name, options


@rule("max_pool")
def _max_pool(w: Writer, op: Op) -> str:
    name, options = _prepared(w, op, -math.inf)
    return to_channels_last(w, w.node("MaxPool", name, **options), len(op.shape))


@rule("sum_pool")
def _sum_pool(w: Writer, op: Op) -> str:
    """An average that counts what stands around, times the size of the kernel."""
    name, options = _prepared(w, op, 0.0)
    average = w.node("AveragePool", name, count_include_pad=1, **options)
    size = w.constant(math.prod(op.attrs["kernel"]), op.dtype)
    return to_channels_last(w, w.node("Mul", average, size), len(op.shape))


@rule("max_pool_indices")
def _indices(w: Writer, op: Op) -> str:
    """ONNX counts through all images and channels, in the sizes that they have."""
    (x,) = op.inputs
    ndim = len(x.shape)
    name = to_channels_first(w, x.name, ndim)
    padding, sizes = op.attrs["padding"], whole(x.shape[1:-1], "the size of an image")
    options = {
        "kernel_shape": list(op.attrs["kernel"]),
        "strides": list(op.attrs["stride"]),
        "dilations": list(op.attrs["dilation"]),
        "pads": [*(lo for lo, _ in padding), *(max(hi, 0) for _, hi in padding)],
    }
    best = w.several("MaxPool", [name], 2, **options)[1]
    place = w.node("Mod", best, w.constant(np.int64(math.prod(sizes))))
    return to_channels_last(w, place, ndim)
