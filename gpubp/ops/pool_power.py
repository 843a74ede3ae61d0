"""Power-average pools of one to three axes: the p-norm of each window."""

from __future__ import annotations

import math
from typing import Any

from gpubp.arguments import shown
from gpubp.errors import ArgumentError
from gpubp.ops.elementwise import abs, multiply, negative, power
from gpubp.ops.logic import equal, where
from gpubp.ops.pooling import avg_pooled, max_pooled
from gpubp.ops.spatial import each_axis
from gpubp.ops.spec import promote


def _exponent(op: str, norm_type: Any) -> float:
    try:
        p = float(norm_type)
    except (TypeError, ValueError):
        p = math.nan
    if math.isnan(p) or p == 0:
        raise ArgumentError(f"{op}: norm_type is {shown(norm_type)}, expected a number but 0.")
    return p


def _power_pooled(
    op: str, axes: int, x: Any, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: Any
) -> Any:
    p = _exponent(op, norm_type)
    (x,) = promote(x, floating=True)
    if math.isinf(p):
        sized = abs(x) if p > 0 else negative(abs(x))
        y = max_pooled(op, axes, sized, kernel_size, stride, 0, 1, ceil_mode, False)
        return y if p > 0 else negative(y)
    raised = x if p == 1 else power(x, p)
    mean = avg_pooled(op, axes, raised, kernel_size, stride, 0, ceil_mode, True)
    total = multiply(mean, float(math.prod(each_axis(op, "kernel_size", kernel_size, axes))))
    if p == 1:
        return total
    # At 0 the slope of a root is infinite: that of the pool is 0 there.
    nothing = equal(total, 0.0)
    return where(nothing, 0.0, power(where(nothing, 1.0, total), 1.0 / p))


def lp_pool1d(
    x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """The p-norm of each window; see `lp_pool2d`. x (N, C, W) or (C, W)."""
    return _power_pooled("lp_pool1d", 1, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^p)^(1/p) over each window: NaN where an odd p makes a negative sum.

    Where the sum is 0, so is the gradient. As in PyTorch, a window that reaches beyond the end
    (`ceil_mode`) counts as if it had the average of what it covers there.

    Args:
        x: (N, C, H, W) or (C, H, W).
        norm_type: p; infinity is the largest size, minus infinity the smallest.
        kernel_size, stride, ceil_mode: as in `avg_pool2d`.

    Raises:
        ShapeError: another number of dimensions, or no window fits.
        ArgumentError: a number that cannot be.
    """
    return _power_pooled("lp_pool2d", 2, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """The p-norm of each window; see `lp_pool2d`. x (N, C, D, H, W) or (C, D, H, W)."""
    return _power_pooled("lp_pool3d", 3, x, norm_type, kernel_size, stride, ceil_mode)
