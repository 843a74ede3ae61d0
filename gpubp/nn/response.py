"""Responses normalised by those of the channels beside them."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DataError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module
from gpubp.ops.response import normalized_response


class LocalResponseNorm(Module):
    """x / (k + alpha * mean(squares of `size` channels around it)) ^ beta.

    Krizhevsky, Sutskever, Hinton (2012). An even size has one more channel before than after.

    Args:
        size: how many channels.
        alpha, beta, k: see above.
    """

    @checked
    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, ...) to the same shape."""
        return ops.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(LocalResponseNorm):
    """As LocalResponseNorm, for images, in the manner of Torch7.

    An even size takes one channel less, so that as many stand before as after; alpha is divided by
    the size all the same. (PyTorch 2.13 keeps the first channel in the window of every later one,
    but not in its gradient; here the window moves, as in Torch7.)

    Args:
        size: how many channels.
        alpha, beta, k: as of LocalResponseNorm.
    """

    @checked
    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__(size, alpha, beta, k)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C, H, W) to the same shape.

        Raises:
            DataError: the size is below 1.
            ShapeError: x has other dimensions.
        """
        if len(x.shape) != 4:
            raise ShapeError(f"CrossMapLRN2d: expected x (N, C, H, W), got {describe(x)}.")
        if self.size < 1:
            raise DataError(f"CrossMapLRN2d: size is {self.size}, expected at least 1.")
        reach = (self.size - 1) // 2
        return normalized_response(x, reach, reach, self.alpha / self.size, self.beta, self.k)
