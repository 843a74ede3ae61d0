"""Max and average pools of one to three axes, with the names and arguments of torch.

An average is a sum divided by a constant for each window: what the window covers is known when a
program is made. See `pool` for the sums and the largest, `pool_adaptive` for pools by the size of
their result.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from gpubp.arguments import shown, truth
from gpubp.core import Shape, bind
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.elementwise import divide
from gpubp.ops.pool import MAX_POOL, MAX_POOL_INDICES, SUM_POOL
from gpubp.ops.spatial import (
    Padding,
    batched,
    channels_first,
    channels_last,
    each_axis,
    sizes_of,
    unbatched,
    windows_along,
)
from gpubp.ops.spec import promote, require_numeric

Window = dict[str, Any]


def steps_of(op: str, stride: Any, kernel: Shape) -> Shape:
    """From window to window; None and nothing at all: as long as a window."""
    if stride is None or (isinstance(stride, (tuple, list)) and not stride):
        return kernel
    return each_axis(op, "stride", stride, len(kernel))


def window_of(
    op: str,
    sizes: Shape,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple[Window, Padding]:
    """The attributes of a pool over these sizes, and the padding as it was given.

    `padding`: a number, one an axis, or (before, after) an axis. With `ceil_mode` a last window may
    reach beyond the end, if it begins inside of the image or of the padding before it.

    Raises:
        ArgumentError: a number that cannot be, or padding of more than half a kernel_size.
        ShapeError: no window fits.
    """
    axes = len(sizes)
    kernel = each_axis(op, "kernel_size", kernel_size, axes)
    steps = steps_of(op, stride, kernel)
    spread = each_axis(op, "dilation", dilation, axes)
    if isinstance(padding, tuple) and all(isinstance(p, tuple) for p in padding):
        around = padding
    else:
        around = tuple((p, p) for p in each_axis(op, "padding", padding, axes, least=0))
        if any(p > k // 2 for (p, _), k in zip(around, kernel, strict=True)):
            raise ArgumentError(
                f"{op}: padding is {shown(padding)}, expected at most half of kernel_size {kernel}."
            )
    more = tuple(s - 1 if ceil_mode else 0 for s in steps)
    wide = tuple((lo, hi + m) for (lo, hi), m in zip(around, more, strict=True))
    counts = windows_along(op, sizes, kernel, steps, wide, spread)
    exact = []
    for n, count, k, s, (lo, _), d in zip(
        sizes, counts, kernel, steps, around, spread, strict=True
    ):
        found = count - 1 if ceil_mode and (count - 1) * s >= n + lo else count
        if found < 1:
            raise ShapeError(f"{op}: no window begins inside of {sizes} with padding {around}.")
        exact.append((lo, (found - 1) * s + (k - 1) * d + 1 - n - lo))
    window = {"kernel": kernel, "stride": steps, "padding": tuple(exact), "dilation": spread}
    return window, around


def _counted(sizes: Shape, found: Shape, window: Window, around: Padding, pads: bool) -> Any:
    """What each window covers: elements, or elements and padding; (*found, 1)."""
    total = np.ones((1,) * len(sizes), np.int64)
    each = zip(sizes, found, window["kernel"], window["stride"], window["dilation"], around)
    for axis, (n, count, k, s, d, (lo, hi)) in enumerate(each):
        at = np.arange(count)[:, None] * s - lo + np.arange(k) * d
        inside = at < n + hi if pads else (at >= 0) & (at < n)
        total = total * inside.sum(axis=1).reshape(-1, *[1] * (len(sizes) - 1 - axis))
    return total[..., None]


def averaged(
    x: Any, window: Window, around: Padding, pads: bool = True, divisor: int | None = None
) -> Any:
    """The average of each window of x (N, *sizes, C)."""
    y = bind(SUM_POOL, x, **window)
    if divisor is not None:
        return divide(y, float(divisor))
    counts = _counted(sizes_of(x), sizes_of(y), window, around, pads)
    if (counts == counts.flat[0]).all():
        return divide(y, float(counts.flat[0]))
    return divide(y, counts.astype(y.dtype))


def max_pooled(
    op: str,
    axes: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: Any,
    return_indices: Any,
) -> Any:
    """`max_pool1d` to `max_pool3d`."""
    (x,) = promote(x)
    require_numeric(op, x)
    x, added = batched(op, x, axes)
    ceil, both = truth(op, "ceil_mode", ceil_mode), truth(op, "return_indices", return_indices)
    window, _ = window_of(op, tuple(x.shape[2:]), kernel_size, stride, padding, dilation, ceil)
    images = channels_last(x)
    y = unbatched(channels_first(bind(MAX_POOL, images, **window)), added)
    if not both:
        return y
    return y, unbatched(channels_first(bind(MAX_POOL_INDICES, images, **window)), added)


def max_pool1d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest of each window; see `max_pool2d`. x (N, C, W) or (C, W)."""
    given = kernel_size, stride, padding, dilation, ceil_mode, return_indices
    return max_pooled("max_pool1d", 1, x, *given)


def max_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window. NaN is larger than all.

    The gradient goes to the first of equal elements.

    Args:
        x: (N, C, H, W) or (C, H, W), of any numbers.
        kernel_size: of a window; one number or one an axis, as the three that follow.
        stride: from window to window; None: kernel_size.
        padding: places at both ends that windows may cover; at most half of kernel_size.
        dilation: from element to element of a window.
        ceil_mode: a last window may reach beyond the end, if it begins before it.
        return_indices: also return where each one stands, as a flat index into (H, W), int64.

    Returns:
        (N, C, H', W') or (C, H', W'), or a pair of such.

    Raises:
        ShapeError: another number of dimensions, or no window fits.
        ArgumentError: a number that cannot be.
    """
    given = kernel_size, stride, padding, dilation, ceil_mode, return_indices
    return max_pooled("max_pool2d", 2, x, *given)


def max_pool3d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest of each window; see `max_pool2d`. x (N, C, D, H, W) or (C, D, H, W)."""
    given = kernel_size, stride, padding, dilation, ceil_mode, return_indices
    return max_pooled("max_pool3d", 3, x, *given)


def _divisor(op: str, value: Any) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        found = 0
    if found == 0:
        raise ArgumentError(
            f"{op}: divisor_override is {shown(value)}, expected a whole number but 0."
        )
    return found


def avg_pooled(
    op: str,
    axes: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    count_include_pad: Any,
    divisor_override: Any = None,
) -> Any:
    """`avg_pool1d` to `avg_pool3d`."""
    (x,) = promote(x, floating=True)
    x, added = batched(op, x, axes)
    ceil, pads = (
        truth(op, "ceil_mode", ceil_mode),
        truth(op, "count_include_pad", count_include_pad),
    )
    divisor = None if divisor_override is None else _divisor(op, divisor_override)
    window, around = window_of(op, tuple(x.shape[2:]), kernel_size, stride, padding, 1, ceil)
    y = averaged(channels_last(x), window, around, pads, divisor)
    return unbatched(channels_first(y), added)


def avg_pool1d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The average of each window; see `avg_pool2d`. x (N, C, W) or (C, W)."""
    given = kernel_size, stride, padding, ceil_mode, count_include_pad
    return avg_pooled("avg_pool1d", 1, x, *given)


def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The average of each window.

    Args:
        x: (N, C, H, W) or (C, H, W).
        kernel_size: of a window; one number or one an axis, as the two that follow.
        stride: from window to window; None: kernel_size.
        padding: zeros at both ends; at most half of kernel_size.
        ceil_mode: a last window may reach beyond the end, if it begins before it. What lies beyond
            the padding does not count.
        count_include_pad: whether padding counts among what the sum is divided by.
        divisor_override: divide by this number (not 0), whatever a window covers.

    Returns:
        (N, C, H', W') or (C, H', W').

    Raises:
        ShapeError: another number of dimensions, or no window fits.
        ArgumentError: a number that cannot be.
    """
    given = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return avg_pooled("avg_pool2d", 2, x, *given)


def avg_pool3d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The average of each window; see `avg_pool2d`. x (N, C, D, H, W) or (C, D, H, W)."""
    given = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return avg_pooled("avg_pool3d", 3, x, *given)
