"""Transposed convolutions of one to three axes as modules; the arithmetic is in ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import Shape
from gpubp.errors import ArgumentError, ShapeError
from gpubp.nn.arrays import as_array
from gpubp.nn.conv import Convolution
from gpubp.ops.spatial import each_axis


class _TransposedConv(Convolution):
    """Base of ConvTranspose1d to ConvTranspose3d."""

    transposed = True

    @checked
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        if padding_mode != "zeros":
            raise ArgumentError(
                f'{type(self).__name__}: padding_mode is {padding_mode!r}, expected "zeros": a '
                "transposed convolution reads no padding."
            )
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding)
        self._set(*sizes, groups, bias, padding_mode, dtype)

    def forward(self, x: Any, output_size: Sequence[int] | None = None) -> Any:
        """Map (N, in_channels, *sizes), or one image without N, to (N, out_channels, *found).

        Args:
            x: the images.
            output_size: the sizes of the result, if not those that output_padding gives: up to
                stride - 1 larger than the least. It may name N and out_channels first.

        Raises:
            ShapeError: another number of axes or channels, or an output size that cannot be.
        """
        x = as_array(self, x)
        self.check(x)
        extra = self.output_padding if output_size is None else self._extra(x, output_size)
        given = (self.stride, self.padding, extra, self.groups, self.dilation)
        return self.function(x, self.weight, self.bias, *given)

    def _extra(self, x: Any, output_size: Sequence[int]) -> Shape:
        """The output padding that gives `output_size`."""
        name, axes = type(self).__name__, self.axes
        given = tuple(output_size)
        wanted = each_axis(name, "output_size", given[-axes:], axes)
        least = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                x.shape[-axes:],
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[2:],
                strict=True,
            )
        )
        extra = tuple(w - n for w, n in zip(wanted, least, strict=True))
        if len(given) not in (axes, len(x.shape)) or any(
            not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)
        ):
            most = tuple(n + s - 1 for n, s in zip(least, self.stride, strict=True))
            raise ShapeError(
                f"{name}: output_size is {given}, expected sizes from {least} to {most} for x of "
                f"shape {tuple(x.shape)}."
            )
        return extra


class ConvTranspose1d(_TransposedConv):
    """Transposed convolution of signals (N, C, L); see ConvTranspose2d."""

    axes = 1
    function = staticmethod(ops.conv_transpose1d)


class ConvTranspose2d(_TransposedConv):
    """The transpose of a convolution with the same arguments: sizes grow by the stride.

    H' = (H - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1. Weight and
    bias start uniform in +-1/sqrt(out_channels / groups * taps), as in torch.

    Args:
        in_channels, out_channels: C of x and of y; at least 1, divisible by groups.
        kernel_size: taps an axis; one number or one an axis, as the next three and dilation.
        stride, padding, dilation: of the convolution that is transposed.
        output_padding: cells added at the end of each axis, smaller than stride or dilation. They
            hold what belongs there, not zeros.
        groups: channels are divided into so many groups, each with filters of its own.
        bias: whether to add a bias.
        padding_mode: "zeros".
        dtype: float32 or float64.

    Attributes:
        weight: shape (in_channels, out_channels / groups, *kernel_size).
        bias: shape (out_channels,), or None.

    Raises:
        ShapeError: channels below 1, or not divisible by groups.
        ArgumentError: a size that cannot be, or another padding mode.
    """

    axes = 2
    function = staticmethod(ops.conv_transpose2d)


class ConvTranspose3d(_TransposedConv):
    """Transposed convolution of volumes (N, C, D, H, W); see ConvTranspose2d."""

    axes = 3
    function = staticmethod(ops.conv_transpose3d)
