"""The affine layer."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.errors import ShapeError
from gpubp.nn.init import fan_in_bound, uniform
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
