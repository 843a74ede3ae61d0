"""Convolutions of one to three axes as modules; the arithmetic is in ops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import Shape
from gpubp.errors import ShapeError, unknown_name
from gpubp.nn.arrays import as_array, of_arrays
from gpubp.nn.init import fan_in_bound, uniform
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter
from gpubp.ops.pad import padded
from gpubp.ops.spatial import each_axis, paddings

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class Convolution(Module):
    """Base: arguments, initial weights, `repr`.

    Attributes:
        axes: of an image.
        function: the op.
        transposed: whether sizes grow by the stride.
    """

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Any]]
    transposed: ClassVar[bool] = False

    def _set(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        _check_mode(padding_mode)
        _check_channels(name, in_channels, out_channels, groups)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = each_axis(name, "kernel_size", kernel_size, self.axes)
        self.stride = each_axis(name, "stride", stride, self.axes)
        self.dilation = each_axis(name, "dilation", dilation, self.axes)
        around = paddings(name, padding, self.kernel_size, self.dilation, self.stride)
        self.padding: Any = padding if isinstance(padding, str) else tuple(p for p, _ in around)
        self.output_padding = each_axis(name, "output_padding", output_padding, self.axes, 0)
        self.groups = groups
        self.padding_mode = padding_mode
        pair = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (pair[0], pair[1] // groups, *self.kernel_size)
        bound = fan_in_bound(math.prod(shape[1:]))
        self.weight = Parameter(uniform(shape, bound, dtype))
        self.bias: Parameter | None = (
            Parameter(uniform((out_channels,), bound, dtype)) if bias else None
        )

    def channels_of(self, x: Any) -> int:
        """How many channels x has. Raises ShapeError if it is no image, nor a batch of some."""
        ndim = len(x.shape)
        if ndim not in (self.axes + 1, self.axes + 2):
            raise ShapeError(
                f"{type(self).__name__}: got x of shape {tuple(x.shape)}, expected {self.axes + 2} "
                f"axes, or {self.axes + 1} without a batch."
            )
        return int(x.shape[ndim - self.axes - 1])

    def check(self, x: Any) -> None:
        """Raise ShapeError unless x has the channels of this layer."""
        if self.channels_of(x) != self.in_channels:
            raise ShapeError(
                f"{self.weight.name}: got x of shape {tuple(x.shape)}, expected "
                f"{self.in_channels} channels."
            )

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts.append(f"stride={self.stride}")
        usual = {"padding": 0, "dilation": 1, "output_padding": 0}
        for name, number in usual.items():
            value = getattr(self, name)
            if isinstance(value, str) or any(n != number for n in value):
                parts.append(f"{name}={value}")
        parts += [f"groups={self.groups}"] if self.groups != 1 else []
        parts += ["bias=False"] if self.bias is None else []
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


def _check_mode(mode: str) -> None:
    if mode not in PADDING_MODES:
        raise unknown_name("padding mode", mode, PADDING_MODES)


def _check_channels(name: str, in_channels: int, out_channels: int, groups: int) -> None:
    if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
        raise ShapeError(
            f"{name}: expected in_channels and out_channels of at least 1, divisible by groups; "
            f"got in_channels={in_channels}, out_channels={out_channels}, groups={groups}."
        )


class _PlainConv(Convolution):
    """Base of Conv1d to Conv3d."""

    @checked
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, 0)
        self._set(*sizes, groups, bias, padding_mode, dtype)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, in_channels, *sizes), or one image without N, to (N, out_channels, *found).

        Raises:
            ShapeError: another number of axes or channels, or an image smaller than the kernel.
        """
        self.check(x)
        padding = self.padding
        if self.padding_mode != "zeros":
            x = self._surrounded(x)
            padding = 0
        given = (self.stride, padding, self.dilation, self.groups)
        return self.function(x, self.weight, self.bias, *given)

    def _surrounded(self, x: Any) -> Any:
        """x with what stands around it by the padding mode."""
        kernel: Shape = tuple(as_array(self, self.weight).shape[2:])
        args = (self.padding, kernel, self.dilation, self.stride)
        around = paddings(type(self).__name__, *args)
        first = len(x.shape) - self.axes
        return padded(x, dict(enumerate(around, first)), self.padding_mode)


class Conv1d(_PlainConv):
    """Convolution (cross-correlation, as everywhere) of signals (N, C, L); see Conv2d."""

    axes = 1
    function = staticmethod(ops.conv1d)


class Conv2d(_PlainConv):
    """Convolution (cross-correlation, as everywhere) of images (N, C, H, W).

    y[n, o, p] = bias[o] + the sum over channels c and taps t of
    weight[o, c, t] x[n, c, p stride + t dilation - padding]. Weight and bias start uniform in
    +-1/sqrt(fan_in), fan_in = in_channels / groups * taps, as in torch.

    Args:
        in_channels, out_channels: C of x and of y; at least 1, divisible by groups.
        kernel_size: taps an axis; one number or one an axis, as the next three.
        stride: from window to window.
        padding: rows and columns around the image, or "same" (as many results as elements; for
            stride 1) or "valid" (none).
        dilation: from tap to tap.
        groups: channels are divided into so many groups, each with filters of its own.
        bias: whether to add a bias.
        padding_mode: what stands in the padding: "zeros", "reflect", "replicate" or "circular".
        dtype: float32 or float64.

    Attributes:
        weight: shape (out_channels, in_channels / groups, *kernel_size).
        bias: shape (out_channels,), or None.

    Raises:
        ShapeError: channels below 1, or not divisible by groups.
        ArgumentError: a size that cannot be, or "same" with a stride.
        UnknownNameError: an unknown padding mode.
    """

    axes = 2
    function = staticmethod(ops.conv2d)


class Conv3d(_PlainConv):
    """Convolution of volumes (N, C, D, H, W); see Conv2d."""

    axes = 3
    function = staticmethod(ops.conv3d)
