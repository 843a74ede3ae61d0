"""Modules that change shapes, or nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module


class Identity(Module):
    """x as it is; arguments of the constructor are passed over, as in torch."""

    @checked
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Return x."""
        return x


class Flatten(Module):
    """The axes from start_dim through end_dim made one."""

    @checked
    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, A, B, ...) to (N, A * B * ...) with the default arguments."""
        return ops.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One axis made several.

    Args:
        dim: the axis.
        unflattened_size: the sizes it becomes; one of them may be -1.
    """

    @checked
    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Split the axis `dim` of x.

        Raises:
            ShapeError: x has no such axis, or the sizes do not multiply to its size.
        """
        shape, sizes = tuple(x.shape), self.unflattened_size
        if not -len(shape) <= self.dim < len(shape):
            raise ShapeError(f"Unflatten: got x {describe(x)}, which has no axis dim={self.dim}.")
        at = self.dim % len(shape)
        known = math.prod(sizes) if -1 not in sizes else -math.prod(sizes)
        fits = known == shape[at] if -1 not in sizes else known > 0 and shape[at] % known == 0
        if not fits or sizes.count(-1) > 1:
            raise ShapeError(
                f"Unflatten: axis {self.dim} of {describe(x)} cannot be split into {sizes}."
            )
        whole = tuple(shape[at] // known if n == -1 else n for n in sizes)
        return ops.reshape(x, (*shape[:at], *whole, *shape[at + 1 :]))

    def extra_repr(self) -> str:
        """The arguments."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
