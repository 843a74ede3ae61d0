"""Layers that take the number of their inputs from the first array that they are called with.

Until then their parameters and running statistics have no shape (`UninitializedParameter`). The
first call makes an ordinary layer of the right size, takes its values over, in the slots that are
there already, and turns the lazy layer into that kind: a LazyLinear becomes a Linear. A state that
is loaded before gives shapes and values as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from gpubp.arguments import checked
from gpubp.nn.arrays import as_array
from gpubp.nn.channel_norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from gpubp.nn.conv import Conv1d, Conv2d, Conv3d
from gpubp.nn.conv_transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from gpubp.nn.linear import Linear
from gpubp.nn.module import Module
from gpubp.nn.parameter import Buffer, UninitializedBuffer, UninitializedParameter


class _Lazy(Module):
    """Base, before the ordinary layer among the bases of a class.

    Attributes:
        becomes: the ordinary layer.
        size: the argument of its constructor that is found at the first call; 0 until then.
    """

    becomes: ClassVar[Any]
    size: ClassVar[str]

    def _forget(self) -> None:
        """Take the shapes away that depend on the size."""
        self.__dict__[self.size] = 0
        for name, parameter in self._parameters.items():
            if parameter is not None:
                setattr(self, name, UninitializedParameter(parameter.dtype))
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.shape:
                setattr(self, name, UninitializedBuffer(buffer.dtype))

    def _size_of(self, x: Any) -> int:
        """The size that fits x."""
        found: int = self.channels_of(x)
        return found

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Become the ordinary layer that fits x, and apply it."""
        x, ordinary = as_array(self, x), self.becomes
        self._initialize(self._size_of(x))
        return ordinary.forward(self, x, *args, **kwargs)

    def _initialize(self, size: int) -> None:
        """Turn into the ordinary layer, which a trace sees as if it had been there before."""
        missing = {
            name: slot
            for name, slot in {**self._parameters, **self._buffers}.items()
            if isinstance(slot, (UninitializedParameter, UninitializedBuffer))
        }
        if missing:
            made = self.becomes(**{**self._arguments(), self.size: size})
            for name, slot in missing.items():
                slot.value = getattr(made, name).value
        self.__dict__[self.size] = size
        object.__setattr__(self, "__class__", self.becomes)

    def _arguments(self) -> dict[str, Any]:
        """The constructor's arguments as they are now, found as attributes of the same names."""
        slots: dict[str, Buffer | None] = {**self._parameters, **self._buffers}
        found: dict[str, Any] = {}
        for name in inspect.signature(self.becomes.__init__).parameters:
            if name in slots:
                found[name] = slots[name] is not None
            elif name in self.__dict__:
                found[name] = self.__dict__[name]
        dtypes = [slot.dtype for slot in slots.values() if slot is not None]
        return {**found, "dtype": str(dtypes[0])} if dtypes else found


class LazyLinear(_Lazy, Linear):
    """Linear, whose in_features are found at the first call; see there.

    Args:
        out_features: size of the last axis of y.
        bias: whether to add b.
        dtype: float32 or float64.
    """

    becomes, size = Linear, "in_features"

    @checked
    def __init__(self, out_features: int, bias: bool = True, dtype: Any = "float32") -> None:
        Linear.__init__(self, 1, out_features, bias, dtype)
        self._forget()

    def _size_of(self, x: Any) -> int:
        return int(x.shape[-1]) if x.shape else 0


class _LazyPlainConv(_Lazy):
    """Base of LazyConv1d to LazyConv3d."""

    size = "in_channels"

    @checked
    def __init__(
        self,
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
        sizes = (max(groups, 1), out_channels, kernel_size, stride, padding, dilation, groups)
        self.becomes.__init__(self, *sizes, bias, padding_mode, dtype)
        self._forget()


class _LazyTransposedConv(_Lazy):
    """Base of LazyConvTranspose1d to LazyConvTranspose3d."""

    size = "in_channels"

    @checked
    def __init__(
        self,
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
        sizes = (max(groups, 1), out_channels, kernel_size, stride, padding, output_padding, groups)
        self.becomes.__init__(self, *sizes, bias, dilation, padding_mode, dtype)
        self._forget()


class LazyConv1d(_LazyPlainConv, Conv1d):
    """Conv1d, whose in_channels are found at the first call; all other arguments are the same."""

    becomes = Conv1d


class LazyConv2d(_LazyPlainConv, Conv2d):
    """Conv2d, whose in_channels are found at the first call; all other arguments are the same."""

    becomes = Conv2d


class LazyConv3d(_LazyPlainConv, Conv3d):
    """Conv3d, whose in_channels are found at the first call; all other arguments are the same."""

    becomes = Conv3d


class LazyConvTranspose1d(_LazyTransposedConv, ConvTranspose1d):
    """ConvTranspose1d, whose in_channels are found at the first call."""

    becomes = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposedConv, ConvTranspose2d):
    """ConvTranspose2d, whose in_channels are found at the first call."""

    becomes = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposedConv, ConvTranspose3d):
    """ConvTranspose3d, whose in_channels are found at the first call."""

    becomes = ConvTranspose3d


class _LazyNorm(_Lazy):
    """Base of lazy normalisations."""

    size = "num_features"


class _LazyBatchNorm(_LazyNorm):
    @checked
    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = "float32",
        *,
        bias: bool = True,
    ) -> None:
        given = (1, eps, momentum, affine, track_running_stats, dtype)
        self.becomes.__init__(self, *given, bias=bias)
        self._forget()


class _LazyInstanceNorm(_LazyNorm):
    """As torch's, it has weights and statistics by default, which the ordinary layer has not."""

    @checked
    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = "float32",
        *,
        bias: bool = True,
    ) -> None:
        given = (1, eps, momentum, affine, track_running_stats, dtype)
        self.becomes.__init__(self, *given, bias=bias)
        self._forget()


class LazyBatchNorm1d(_LazyBatchNorm, BatchNorm1d):
    """BatchNorm1d, whose num_features are found at the first call."""

    becomes = BatchNorm1d


class LazyBatchNorm2d(_LazyBatchNorm, BatchNorm2d):
    """BatchNorm2d, whose num_features are found at the first call."""

    becomes = BatchNorm2d


class LazyBatchNorm3d(_LazyBatchNorm, BatchNorm3d):
    """BatchNorm3d, whose num_features are found at the first call."""

    becomes = BatchNorm3d


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):
    """InstanceNorm1d, whose num_features are found at the first call; affine, with statistics."""

    becomes = InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):
    """InstanceNorm2d, whose num_features are found at the first call; affine, with statistics."""

    becomes = InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):
    """InstanceNorm3d, whose num_features are found at the first call; affine, with statistics."""

    becomes = InstanceNorm3d
