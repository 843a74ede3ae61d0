"""Windows of images as columns, and columns added back to images, by constant indices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core import Shape, describe
from gpubp.errors import ShapeError
from gpubp.ops.constant import constant
from gpubp.ops.index import gather, scatter_add
from gpubp.ops.pad import padded
from gpubp.ops.shape import reshape
from gpubp.ops.spatial import Padding, batched, each_axis, unbatched, windows_along
from gpubp.ops.spec import promote, require_possible


def _places(
    sizes: Shape, kernel: Shape, stride: Shape, dilation: Shape, found: Shape
) -> NDArray[np.int64]:
    """(taps, windows): where the elements of windows stand among those of padded images."""
    at = np.zeros((1, 1), np.int64)
    for n, k, s, d, m in zip(sizes, kernel, stride, dilation, found, strict=True):
        here = np.arange(k)[:, None] * d + np.arange(m) * s
        both = at[:, None, :, None] * n + here[None, :, None, :]
        at = both.reshape(at.shape[0] * k, at.shape[1] * m)
    return at


class _Windows:
    """The geometry that `fold` and `unfold` share: arguments as they take them."""

    def __init__(
        self,
        op: str,
        sizes: Shape,
        kernel_size: Any,
        dilation: Any,
        padding: Any,
        stride: Any,
    ) -> None:
        axes = len(sizes)
        self.kernel = each_axis(op, "kernel_size", kernel_size, axes)
        self.dilation = each_axis(op, "dilation", dilation, axes)
        self.stride = each_axis(op, "stride", stride, axes)
        self.sides: Padding = tuple(
            (p, p) for p in each_axis(op, "padding", padding, axes, least=0)
        )
        self.found = windows_along(op, sizes, self.kernel, self.stride, self.sides, self.dilation)
        require_possible(op, (*self.kernel, *self.found), np.int64)
        self.wide = tuple(n + low + high for n, (low, high) in zip(sizes, self.sides, strict=True))

    def places(self) -> NDArray[np.int64]:
        """(taps, windows)."""
        return _places(self.wide, self.kernel, self.stride, self.dilation, self.found)


def unfold(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """The windows of images as columns, as torch.nn.functional.unfold (im2col).

    Args:
        x: (N, C, *sizes) or (C, *sizes) with two sizes.
        kernel_size, dilation, padding, stride: a whole number, or one for each axis.

    Returns:
        (N, C * taps, windows), taps and windows in the order of their axes.

    Raises:
        ArgumentError: what is no whole number, or none of its range.
        ShapeError: `x` has other dimensions, or no window fits.
    """
    (x,) = promote(x)
    x, added = batched("unfold", x, 2)
    sizes = tuple(x.shape[2:])
    windows = _Windows("unfold", sizes, kernel_size, dilation, padding, stride)
    wide = padded(x, dict(enumerate(windows.sides, 2)))
    n, c = x.shape[:2]
    at = windows.places()
    columns = gather(reshape(wide, (n, c, math.prod(windows.wide))), constant(at, x), 2)
    return unbatched(reshape(columns, (n, c * at.shape[0], at.shape[1])), added)


def fold(
    x: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Columns added where their windows stand, as torch.nn.functional.fold (col2im).

    Args:
        x: (N, C * taps, windows) or (C * taps, windows).
        output_size: the sizes of the images, for as many axes as are given (a number: two).
        kernel_size, dilation, padding, stride: a whole number, or one for each axis.

    Returns:
        (N, C, *output_size).

    Raises:
        ArgumentError: what is no whole number, or none of its range.
        ShapeError: `x` is not of as many taps and windows.
    """
    (x,) = promote(x)
    axes = len(output_size) if isinstance(output_size, (tuple, list)) else 2
    sizes = each_axis("fold", "output_size", output_size, axes)
    x, added = batched("fold", x, 1)
    windows = _Windows("fold", sizes, kernel_size, dilation, padding, stride)
    at = windows.places()
    n, rows, columns = x.shape
    if rows % at.shape[0] or columns != at.shape[1]:
        raise ShapeError(
            f"fold: expected x (N, C * {at.shape[0]}, {at.shape[1]}) for images of {sizes}, got "
            f"{describe(x)}."
        )
    c = rows // at.shape[0]
    parts = reshape(x, (n, c, *at.shape))
    flat = scatter_add(parts, constant(at, x), math.prod(windows.wide), 2)
    inner = {a: (-low, -high) for a, (low, high) in enumerate(windows.sides, 2)}
    return unbatched(padded(reshape(flat, (n, c, *windows.wide)), inner), added)
