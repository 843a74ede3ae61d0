"""Layers that multiply by a weight."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.init import fan_in_bound, uniform
from gpubp.nn.layer_functions import bilinear
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter


class Linear(Module):
    """y = x W^T + b.

    Weight and bias start uniform in +-1/sqrt(in_features), as in torch.

    Args:
        in_features: size of the last axis of x; at least 1.
        out_features: size of the last axis of y; at least 1.
        bias: whether to add b.
        dtype: float32 or float64.

    Attributes:
        weight: shape (out_features, in_features).
        bias: shape (out_features,), or None.

    Raises:
        ShapeError: a size is below 1.
    """

    @checked
    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: Any = "float32"
    ) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ShapeError(
                f"Linear needs sizes of at least 1, got in_features={in_features}, "
                f"out_features={out_features}."
            )
        self.in_features = in_features
        self.out_features = out_features
        bound = fan_in_bound(in_features)
        self.weight = Parameter(uniform((out_features, in_features), bound, dtype))
        self.bias: Parameter | None = (
            Parameter(uniform((out_features,), bound, dtype)) if bias else None
        )

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map x of shape (..., in_features) to (..., out_features)."""
        if x.shape[-1:] != (self.in_features,):
            raise ShapeError(
                f"{self.weight.name}: got x of shape {tuple(x.shape)}, expected "
                f"(..., {self.in_features})."
            )
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes, as torch shows them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Bilinear(Module):
    """y_k = x1^T W_k x2 + b_k.

    Weight and bias start uniform in +-1/sqrt(in1_features), as in torch.

    Args:
        in1_features: size of the last axis of x1; at least 1.
        in2_features: size of the last axis of x2; at least 1.
        out_features: size of the last axis of y; at least 1.
        bias: whether to add b.
        dtype: float32 or float64.

    Attributes:
        weight: shape (out_features, in1_features, in2_features).
        bias: shape (out_features,), or None.

    Raises:
        ShapeError: a size is below 1.
    """

    @checked
    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        shape = (out_features, in1_features, in2_features)
        if min(shape) < 1:
            raise ShapeError(f"Bilinear needs sizes of at least 1, got (out, in1, in2) {shape}.")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        bound = fan_in_bound(in1_features)
        self.weight = Parameter(uniform(shape, bound, dtype))
        self.bias: Parameter | None = (
            Parameter(uniform((out_features,), bound, dtype)) if bias else None
        )

    @of_arrays
    def forward(self, x1: Any, x2: Any) -> Any:
        """Map (..., in1_features) and (..., in2_features) to (..., out_features).

        Raises:
            ShapeError: other sizes, or leading axes that differ.
        """
        wanted = (self.in1_features, self.in2_features)
        if (*x1.shape[-1:], *x2.shape[-1:]) != wanted or x1.shape[:-1] != x2.shape[:-1]:
            raise ShapeError(
                f"{self.weight.name}: got x1 {describe(x1)} and x2 {describe(x2)}, expected "
                f"(..., {wanted[0]}) and (..., {wanted[1]}) with equal leading axes."
            )
        return bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes, as torch shows them."""
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
