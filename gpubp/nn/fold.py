"""Windows of images as columns, and back."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module


def _kept(value: Any) -> Any:
    """Sizes as torch keeps them; a list, which nothing announces the changes of, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


class Unfold(Module):
    """The windows of images as columns (im2col).

    Args:
        kernel_size, dilation, padding, stride: a whole number, or one for each of two axes.
    """

    @checked
    def __init__(
        self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        super().__init__()
        self.kernel_size = _kept(kernel_size)
        self.dilation = _kept(dilation)
        self.padding = _kept(padding)
        self.stride = _kept(stride)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, H, W) to (N, C * taps, windows)."""
        return ops.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Fold(Unfold):
    """Columns added where their windows stand (col2im).

    Args:
        output_size: the sizes of the images.
        kernel_size, dilation, padding, stride: a whole number, or one for each of two axes.
    """

    @checked
    def __init__(
        self,
        output_size: Any,
        kernel_size: Any,
        dilation: Any = 1,
        padding: Any = 0,
        stride: Any = 1,
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = _kept(output_size)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C * taps, windows) to (N, C, H, W)."""
        return ops.fold(
            x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        """The arguments."""
        return f"output_size={self.output_size}, {super().extra_repr()}"
