"""Softmax and its relatives as modules: numbers along one axis to shares that sum to 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DataError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module


class Softmax(Module):
    """exp(x) / sum(exp(x)) along `dim`.

    Args:
        dim: the axis of the classes. (torch guesses one where none is given; here it is required.)

    Raises:
        DataError: no `dim`.
    """

    function: ClassVar[Callable[..., Any]] = staticmethod(ops.softmax)

    @checked
    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        if dim is None:
            raise DataError(f"{type(self).__name__} needs an axis: pass dim=-1 for the last one.")
        self.dim = dim

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Normalise along `dim`; a scalar has the one axis 0 (or -1)."""
        if x.shape == () and self.dim in (0, -1):
            return ops.reshape(self.function(ops.reshape(x, (1,)), self.dim), ())
        if not -len(x.shape) <= self.dim < len(x.shape):
            raise ShapeError(
                f"{type(self).__name__}: got x {describe(x)}, which has no axis dim={self.dim}."
            )
        return self.function(x, self.dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """x - log(sum(exp(x))) along `dim`; arguments as for Softmax."""

    function = staticmethod(ops.log_softmax)


class Softmin(Softmax):
    """exp(-x) / sum(exp(-x)) along `dim`; arguments as for Softmax."""

    function = staticmethod(lambda x, dim: ops.softmax(ops.negative(x), dim))


class Softmax2d(Module):
    """Softmax over the channels of every place of an image."""

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, H, W) or (C, H, W) to the same shape.

        Raises:
            ShapeError: x has other dimensions.
        """
        if len(x.shape) not in (3, 4):
            raise ShapeError(f"Softmax2d: expected x (N, C, H, W) or (C, H, W), got {describe(x)}.")
        return ops.softmax(x, -3)
