"""Activations that are more than a function of each number: PReLU has weights, GLU halves x."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.errors import ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.init import filled
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter


class PReLU(Module):
    """x where positive, else weight * x, with a learnt weight (He et al. 2015, arXiv:1502.01852).

    Args:
        num_parameters: 1, or the number of channels (the second axis of x).
        init: the first value of the weight.
        dtype: float32 or float64.

    Attributes:
        weight: shape (num_parameters,).

    Raises:
        ShapeError: num_parameters is below 1.
    """

    @checked
    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype: Any = "float32") -> None:
        super().__init__()
        if num_parameters < 1:
            raise ShapeError(f"PReLU needs num_parameters of at least 1, got {num_parameters}.")
        self.num_parameters = num_parameters
        self.weight = Parameter(filled(num_parameters, init, dtype))

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Apply to x of shape (N, num_parameters, ...), or of any shape with one parameter."""
        return ops.prelu(x, self.weight)

    def extra_repr(self) -> str:
        """The number of weights."""
        return f"num_parameters={self.num_parameters}"


class GLU(Module):
    """a * sigmoid(b), where a and b are the halves of x along `dim` (Dauphin et al. 2016)."""

    @checked
    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Halve the axis `dim`, whose size must be even."""
        return ops.glu(x, self.dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"
