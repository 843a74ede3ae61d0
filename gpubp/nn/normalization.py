"""Normalisation of each sample by itself: over its last axes, or over groups of its channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DataError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.init import filled
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias, with statistics over the last axes.

    Ba, Kiros & Hinton, "Layer Normalization" (2016, arXiv:1607.06450).

    Args:
        normalized_shape: the sizes of the last axes of x, or the size of the last one.
        eps: added to the variance.
        elementwise_affine: whether to scale by `weight` and add `bias`.
        bias: whether to add `bias`, where elementwise_affine.
        dtype: float32 or float64.

    Attributes:
        weight, bias: parameters of shape normalized_shape, first 1 and 0; or None.

    Raises:
        ShapeError: a size is below 1.
        DataError: eps is negative or not finite.
    """

    @checked
    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.normalized_shape = _checked_shape("LayerNorm", normalized_shape)
        self.eps = checked_eps("LayerNorm", eps)
        self.elementwise_affine = elementwise_affine
        ones = filled(self.normalized_shape, 1.0, dtype)
        self.weight: Parameter | None = Parameter(ones) if elementwise_affine else None
        self.bias: Parameter | None = Parameter(0 * ones) if elementwise_affine and bias else None

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (..., *normalized_shape) to the same shape.

        Raises:
            ShapeError: the last axes of x are others.
        """
        _check_last_axes("LayerNorm", x, self.normalized_shape)
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight, with the mean over the last axes.

    Zhang & Sennrich, "Root Mean Square Layer Normalization" (2019, arXiv:1910.07467).

    Args:
        normalized_shape: the sizes of the last axes of x, or the size of the last one.
        eps: added to the mean of squares; None: the machine epsilon of x's dtype.
        elementwise_affine: whether to scale by `weight`.
        dtype: float32 or float64.

    Attributes:
        weight: a parameter of shape normalized_shape, first 1; or None.

    Raises:
        ShapeError: a size is below 1.
        DataError: eps is negative or not finite.
    """

    @checked
    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.normalized_shape = _checked_shape("RMSNorm", normalized_shape)
        self.eps = None if eps is None else checked_eps("RMSNorm", eps)
        self.elementwise_affine = elementwise_affine
        ones = filled(self.normalized_shape, 1.0, dtype)
        self.weight: Parameter | None = Parameter(ones) if elementwise_affine else None

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (..., *normalized_shape) to the same shape.

        Raises:
            ShapeError: the last axes of x are others.
        """
        _check_last_axes("RMSNorm", x, self.normalized_shape)
        return ops.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias, with statistics over groups of channels.

    Wu & He, "Group Normalization" (2018, arXiv:1803.08494).

    Args:
        num_groups: into how many groups the channels are divided.
        num_channels: the size of axis 1 of x.
        eps: added to the variance.
        affine: whether to scale by `weight` and add `bias`.
        dtype: float32 or float64.
        bias: whether to add `bias`, where affine.

    Attributes:
        weight, bias: parameters of shape (num_channels,), first 1 and 0; or None.

    Raises:
        ShapeError: the channels cannot be divided into so many groups.
        DataError: eps is negative or not finite.
    """

    @checked
    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: Any = "float32",
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise ShapeError(
                f"GroupNorm: {num_channels} channels do not make {num_groups} equal groups."
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = checked_eps("GroupNorm", eps)
        self.affine = affine
        ones = filled(num_channels, 1.0, dtype)
        self.weight: Parameter | None = Parameter(ones) if affine else None
        self.bias: Parameter | None = Parameter(0 * ones) if affine and bias else None

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, num_channels, ...) to the same shape.

        Raises:
            ShapeError: another number of channels, or one value in all for each group.
        """
        shape = tuple(x.shape)
        if len(shape) < 2 or shape[1] != self.num_channels:
            raise ShapeError(
                f"GroupNorm: got x {describe(x)}, expected (N, {self.num_channels}, ...)."
            )
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


def checked_eps(module: str, eps: float) -> float:
    """`eps` itself. Raises DataError if it is negative or not finite."""
    if not (0 <= eps < math.inf):
        raise DataError(f"{module}: eps must be finite and not negative, got {eps}.")
    return eps


def _checked_shape(module: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    found = (shape,) if isinstance(shape, int) else tuple(shape)
    if not found or min(found) < 1:
        raise ShapeError(f"{module} needs sizes of at least 1 to normalise over, got {shape}.")
    return found


def _check_last_axes(module: str, x: Any, shape: tuple[int, ...]) -> None:
    if tuple(x.shape[-len(shape) :]) != shape:
        raise ShapeError(f"{module}: got x {describe(x)}, expected the last axes to be {shape}.")
