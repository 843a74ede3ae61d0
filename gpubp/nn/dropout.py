"""Dropout (Srivastava et al., JMLR 15, 2014), inverted as in torch."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.errors import DataError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module


class Dropout(Module):
    """In train mode zero each element with probability p and scale the rest by 1/(1-p).

    In eval mode it is the identity. Random numbers come from the default generator (see
    `gp.manual_seed`) unless one is given.

    Args:
        p: the probability, in [0, 1].
        generator: a `gp.ops.random.Generator`, or None for the default one.

    Raises:
        DataError: p is outside [0, 1].
    """

    @checked
    def __init__(self, p: float = 0.5, generator: Any = None) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise DataError(f"dropout probability must be in [0, 1], got {p}.")
        self.p = p
        self.generator = generator

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Apply to x of any shape."""
        return ops.dropout(x, p=self.p, training=self.training, generator=self.generator)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"
