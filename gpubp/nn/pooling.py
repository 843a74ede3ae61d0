"""Pools over one to three axes; formulas in `gpubp.ops.pooling`."""

from __future__ import annotations

import math
from typing import Any

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.errors import ArgumentError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module
from gpubp.ops.spatial import each_axis


def kept(value: Any) -> Any:
    """An argument as it is kept: a list becomes a tuple."""
    return tuple(value) if isinstance(value, list) else value


class Pool(Module):
    """What pools over `_axes` axes share; their functions in `ops` begin with `_function`."""

    _axes, _function = 0, ""

    def _checked(self, name: str, value: Any, least: int = 1) -> Any:
        each_axis(type(self).__name__, name, kept(value), self._axes, least)
        return kept(value)

    def _windows(self, kernel_size: Any, stride: Any, padding: Any) -> None:
        self.kernel_size = self._checked("kernel_size", kernel_size)
        self.stride = self._checked("stride", kernel_size if stride is None else stride)
        self.padding = self._checked("padding", padding, 0)

    def _tuples(self) -> None:
        """Each argument as one number an axis, as torch shows it."""
        owner = type(self).__name__
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            setattr(self, name, each_axis(owner, name, getattr(self, name), self._axes, least))

    def _call(self, x: Any, *args: Any) -> Any:
        return getattr(ops, f"{self._function}{self._axes}d")(x, *args)


class _MaxPool(Pool):
    """The largest of each window; see `gp.ops.max_pool2d`.

    Args:
        kernel_size: of a window; one number or one an axis, as the three that follow.
        stride: from window to window; default is kernel_size.
        padding: places at both ends that windows may cover; at most half of kernel_size.
        dilation: from element to element of a window.
        return_indices: also return where each one stands, as a flat index over the sizes.
        ceil_mode: a last window may reach beyond the end, if it begins before it.

    Raises:
        ArgumentError: a number that cannot be.
    """

    _function = "max_pool"

    @checked
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self._windows(kernel_size, stride, padding)
        self.dilation = self._checked("dilation", dilation)
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, *sizes) or (C, *sizes) to the pooled sizes; with their indices, if asked."""
        given = self.kernel_size, self.stride, self.padding, self.dilation
        return self._call(x, *given, self.ceil_mode, self.return_indices)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest of each window along one axis; arguments as for `MaxPool2d`."""

    _axes = 1


class MaxPool2d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    _axes = 2


class MaxPool3d(_MaxPool):
    """The largest of each window over three axes; arguments as for `MaxPool2d`."""

    _axes = 3


class _AvgPool(Pool):
    """The average of each window; see `gp.ops.avg_pool2d`.

    Args:
        kernel_size: of a window; one number or one an axis, as the two that follow.
        stride: from window to window; default is kernel_size.
        padding: zeros at both ends; at most half of kernel_size.
        ceil_mode: a last window may reach beyond the end, if it begins before it.
        count_include_pad: whether padding counts among what the sum is divided by.
        divisor_override: divide by this, whatever a window covers.

    Raises:
        ArgumentError: a number that cannot be.
    """

    _function = "avg_pool"

    @checked
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self._windows(kernel_size, stride, padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        if divisor_override == 0:
            raise ArgumentError(
                f"{type(self).__name__}: divisor_override is 0: nothing to divide by."
            )
        self.divisor_override = divisor_override

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, *sizes) or (C, *sizes) to the pooled sizes."""
        given = self.kernel_size, self.stride, self.padding
        return self._call(x, *given, self.ceil_mode, self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The average of each window along one axis; arguments as for `AvgPool2d`, but the last."""

    _axes = 1

    @checked
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        del self.divisor_override
        self._tuples()

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, W) or (C, W) to the pooled size."""
        given = self.kernel_size, self.stride, self.padding
        return self._call(x, *given, self.ceil_mode, self.count_include_pad)


class AvgPool2d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    _axes = 2


class AvgPool3d(_AvgPool):
    """The average of each window over three axes; arguments as for `AvgPool2d`."""

    _axes = 3


class _LPPool(Pool):
    """(sum of x^p)^(1/p) over each window; see `gp.ops.lp_pool2d`.

    Args:
        norm_type: p, any number but 0; infinity is the largest size.
        kernel_size: of a window; one number or one an axis.
        stride: from window to window; None: kernel_size.
        ceil_mode: a last window may reach beyond the end, if it begins before it.

    Raises:
        ArgumentError: a number that cannot be.
    """

    _function = "lp_pool"

    @checked
    def __init__(
        self, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        real = isinstance(norm_type, (int, float)) and not isinstance(norm_type, bool)
        if not real or math.isnan(norm_type) or norm_type == 0:
            raise ArgumentError(
                f"{type(self).__name__}: norm_type is {shown(norm_type)}, expected a number but 0."
            )
        self.norm_type = norm_type
        self.kernel_size = self._checked("kernel_size", kernel_size)
        self.stride = None if stride is None else self._checked("stride", stride)
        self.ceil_mode = ceil_mode

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, *sizes) or (C, *sizes) to the pooled sizes."""
        return self._call(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The p-norm of each window along one axis; arguments as for `LPPool2d`."""

    _axes = 1


class LPPool2d(_LPPool):
    __doc__ = _LPPool.__doc__
    _axes = 2


class LPPool3d(_LPPool):
    """The p-norm of each window over three axes; arguments as for `LPPool2d`."""

    _axes = 3
