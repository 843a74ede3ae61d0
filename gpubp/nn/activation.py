"""Activations as modules; the arithmetic is in `gpubp.ops`."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.errors import unknown_name
from gpubp.nn.module import Module


class ReLU(Module):
    """max(x, 0), elementwise."""

    def forward(self, x: Any) -> Any:
        """Apply to x of any shape."""
        return ops.relu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise."""

    def forward(self, x: Any) -> Any:
        """Apply to x of any shape."""
        return ops.sigmoid(x)


class Tanh(Module):
    """tanh(x), elementwise."""

    def forward(self, x: Any) -> Any:
        """Apply to x of any shape."""
        return ops.tanh(x)


class GELU(Module):
    """x Phi(x), elementwise (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    Args:
        approximate: "none" for the exact form with erf, "tanh" for the paper's approximation.

    Raises:
        UnknownNameError: any other `approximate`.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise unknown_name("approximation", approximate, ("none", "tanh"))
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        """Apply to x of any shape."""
        return ops.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        """The form in use."""
        return f"approximate={self.approximate!r}"
