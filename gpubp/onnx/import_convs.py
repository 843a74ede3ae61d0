"""ONNX's convolutions in gpubp: its ways of saying where zeros stand, as pads and cuts."""

from __future__ import annotations

import math
from typing import Any

from gpubp import ops
from gpubp.onnx.import_common import refuse


def _sizes(given: Any, count: int) -> tuple[int, ...]:
    return tuple(int(n) for n in given) if given else (1,) * count


def convolution(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """Conv: zeros are put around x first, as they may differ before and after."""
    axes = len(w.shape) - 2
    stride, spread = _sizes(strides, axes), _sizes(dilations, axes)
    before, after = [0] * axes, [0] * axes
    if auto_pad.startswith("SAME"):
        for i in range(axes):
            reach = spread[i] * (w.shape[2 + i] - 1) + 1
            missing = (math.ceil(x.shape[2 + i] / stride[i]) - 1) * stride[i] + reach
            missing = max(missing - x.shape[2 + i], 0)
            few, many = missing // 2, missing - missing // 2
            before[i], after[i] = (few, many) if auto_pad == "SAME_UPPER" else (many, few)
    elif pads is not None:
        before, after = list(pads[:axes]), list(pads[axes:])
    around = [n for i in reversed(range(axes)) for n in (before[i], after[i])]
    wide = ops.pad(x, around) if any(around) else x
    function = (ops.conv1d, ops.conv2d, ops.conv3d)[axes - 1]
    return function(wide, w, b, stride, 0, spread, group)


def transposed(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    output_padding: Any = None,
    output_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """ConvTranspose: the whole result, of which what pads say is cut off (or put around)."""
    axes = len(w.shape) - 2
    stride, spread = _sizes(strides, axes), _sizes(dilations, axes)
    extra = [int(n) for n in output_padding] if output_padding else [0] * axes
    before, after = [0] * axes, [0] * axes
    whole = [
        (x.shape[2 + i] - 1) * stride[i] + extra[i] + spread[i] * (w.shape[2 + i] - 1) + 1
        for i in range(axes)
    ]
    if output_shape or auto_pad.startswith("SAME"):
        wanted = output_shape or [x.shape[2 + i] * stride[i] for i in range(axes)]
        for i in range(axes):
            cut = whole[i] - int(wanted[-axes:][i])
            few, many = cut // 2, cut - cut // 2
            before[i], after[i] = (few, many) if auto_pad == "SAME_UPPER" else (many, few)
    elif pads is not None:
        before, after = list(pads[:axes]), list(pads[axes:])
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, spread, strict=True)):
        refuse("output_padding as large as stride and dilation")
    names = (ops.conv_transpose1d, ops.conv_transpose2d, ops.conv_transpose3d)
    y = names[axes - 1](x, w, b, stride, 0, extra, group, spread)
    around = [-n for i in reversed(range(axes)) for n in (before[i], after[i])]
    return ops.pad(y, around)
