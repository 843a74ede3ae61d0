"""Convolutions whose taps are moved by learnt offsets.

Dai et al., "Deformable convolutional networks" (2017, arXiv:1703.06211), with the mask of Zhu et
al., "Deformable ConvNets v2" (2018, arXiv:1811.11168). Names are those of torchvision.ops.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from gpubp.core import Shape, describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.constant import constant
from gpubp.ops.getitem import getitem
from gpubp.ops.linalg import matmul
from gpubp.ops.sample import linear_taps, weighted
from gpubp.ops.shape import expand_dims, reshape, transpose
from gpubp.ops.spatial import Padding, channels_first, channels_last, each_axis, windows_along
from gpubp.ops.spec import promote


def deform_conv2d(
    x: Any,
    offset: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    mask: Any = None,
) -> Any:
    """A convolution that reads each tap at its place plus an offset, as torchvision.ops has it.

    Args:
        x: (N, C, H, W).
        offset: (N, 2 * groups * taps, H', W'): down, right, for each tap of each group of channels.
        weight: (O, C / weight groups, kH, kW).
        bias: (O,) or None.
        stride, padding, dilation: a whole number, or one for each axis.
        mask: (N, groups * taps, H', W'), what each tap is multiplied by, or None.

    Returns:
        (N, O, H', W').

    Raises:
        ArgumentError: what is no whole number, or none of its range.
        ShapeError: shapes do not fit.
    """
    sides = tuple((p, p) for p in each_axis("deform_conv2d", "padding", padding, 2, least=0))
    return deformed(x, offset, weight, bias, stride, sides, dilation, mask)


def deformed(
    x: Any,
    offset: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    sides: Padding,
    dilation: Any,
    mask: Any,
) -> Any:
    """`deform_conv2d` with (before, after) for each axis."""
    for name, value in (("x", x), ("offset", offset), ("weight", weight)):
        if value is None:
            raise ArgumentError(f"deform_conv2d: {name} is None, expected an array.")
    given = [v for v in (x, offset, weight, bias, mask) if v is not None]
    given = promote(*given, floating=True)
    x, offset, weight = given[:3]
    bias = given[3] if bias is not None else None
    mask = given[-1] if mask is not None else None
    _check_images(x, weight, bias)
    kernel = tuple(weight.shape[2:])
    by = each_axis("deform_conv2d", "stride", stride, 2)
    spread = each_axis("deform_conv2d", "dilation", dilation, 2)
    found = windows_along("deform_conv2d", tuple(x.shape[2:]), kernel, by, sides, spread)
    groups = _offset_groups(x, offset, mask, kernel, found)
    starts = [
        np.arange(m)[:, None] * s - low for m, s, (low, _) in zip(found, by, sides, strict=True)
    ]
    taps = np.array(list(itertools.product(*map(range, kernel)))) * spread
    places = [starts[i] + taps[:, i] for i in range(2)]  # (H' or W', taps)
    columns = _columns(x, offset, places, groups)
    if mask is not None:
        share = reshape(mask, (x.shape[0], groups, -1, *found))
        columns = columns * expand_dims(transpose(share, (0, 3, 4, 1, 2)), -1)
    y = _multiplied(columns, x.shape[1], weight)
    return channels_first(y if bias is None else y + bias)


def _check_images(x: Any, weight: Any, bias: Any) -> None:
    fits = len(x.shape) == 4 and len(weight.shape) == 4 and weight.shape[1] > 0
    groups = x.shape[1] // weight.shape[1] if fits else 0
    if (
        not groups
        or x.shape[1] % weight.shape[1]
        or weight.shape[0] % groups
        or (bias is not None and tuple(bias.shape) != (weight.shape[0],))
    ):
        what = "" if bias is None else f" and bias {describe(bias)}"
        raise ShapeError(
            "deform_conv2d: expected x (N, C, H, W), weight (O, C / groups, kH, kW) and bias (O,), "
            f"got {describe(x)}, {describe(weight)}{what}."
        )


def _offset_groups(x: Any, offset: Any, mask: Any, kernel: Shape, found: Shape) -> int:
    """Into how many groups of channels the offsets are divided."""
    taps = kernel[0] * kernel[1]
    n, c = x.shape[:2]
    groups = offset.shape[1] // (2 * taps) if len(offset.shape) == 4 else 0
    fits = groups and tuple(offset.shape) == (n, 2 * groups * taps, *found) and c % groups == 0
    if not fits or (mask is not None and tuple(mask.shape) != (n, groups * taps, *found)):
        what = "" if mask is None else f" and mask {describe(mask)}"
        raise ShapeError(
            f"deform_conv2d: expected offset (N, 2 * groups * {taps}, {found[0]}, {found[1]}) and "
            f"mask (N, groups * {taps}, {found[0]}, {found[1]}) for x {describe(x)}, got "
            f"{describe(offset)}{what}."
        )
    return groups


def _columns(x: Any, offset: Any, places: list[Any], groups: int) -> Any:
    """What the taps read: (N, H', W', groups, taps, C / groups)."""
    n, c, h, w = x.shape
    taps = places[0].shape[1]
    high, wide = len(places[0]), len(places[1])
    moved = transpose(reshape(offset, (n, groups, taps, 2, high, wide)), (3, 0, 4, 5, 1, 2))
    axes = []
    for i, size in enumerate((h, w)):
        shape = (high, 1, 1, taps) if i == 0 else (1, wide, 1, taps)
        start = constant(places[i].reshape(shape).astype(x.dtype), x)
        axes.append(linear_taps(getitem(moved, i) + start, size))
    rows = reshape(channels_last(x), (n * h * w * groups, c // groups))
    first = np.arange(n, dtype=np.int64)[:, None] * (h * w * groups) + np.arange(groups)
    base = constant(first.reshape(n, 1, 1, groups, 1), x)
    return weighted(rows, base, axes, (w * groups, groups))


def _multiplied(columns: Any, channels: int, weight: Any) -> Any:
    """The product of columns and weights by groups of weights: (N, H', W', O)."""
    n, high, wide, _, taps, _ = columns.shape
    out, each = weight.shape[:2]
    parts = channels // each
    lined = reshape(transpose(columns, (0, 1, 2, 3, 5, 4)), (n * high * wide, parts, each * taps))
    factors = reshape(weight, (parts, out // parts, each * taps))
    y = matmul(transpose(lined, (1, 0, 2)), transpose(factors, (0, 2, 1)))
    return reshape(transpose(y, (1, 0, 2)), (n, high, wide, out))
