"""Dropout (Srivastava et al., JMLR 15, 2014), inverted as in torch; of elements or of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from gpubp import ops
from gpubp.arguments import checked
from gpubp.errors import DataError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module
from gpubp.nn.parameter import Buffer


class Dropout(Module):
    """In train mode zero each element with probability p and scale the rest by 1/(1-p).

    In eval mode it is the identity. Random numbers come from the default generator (see
    `gp.manual_seed`) unless one is given.

    Args:
        p: the probability, in [0, 1]; or a `Buffer` of one float, read at every step (not by
            AlphaDropout), so that it may change, and differ between members of a population.
        generator: a `gp.ops.random.Generator`, or None for the default one.

    Raises:
        DataError: p is outside [0, 1].
    """

    function: ClassVar[Callable[..., Any]] = staticmethod(ops.dropout)

    @checked
    def __init__(self, p: float | Buffer = 0.5, generator: Any = None) -> None:
        super().__init__()
        now = float(p.value) if isinstance(p, Buffer) and p.shape == () else p
        if not isinstance(now, (int, float)) or not 0.0 <= now <= 1.0:
            raise DataError(f"dropout probability must be in [0, 1], got {p}.")
        self.p = p
        self.generator = generator

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Apply to x of any shape."""
        return self.function(x, p=self.p, training=self.training, generator=self.generator)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class Dropout1d(Dropout):
    """Dropout of whole channels of (N, C, L) or (C, L); arguments as for Dropout."""

    function = staticmethod(ops.dropout1d)


class Dropout2d(Dropout):
    """Dropout of whole channels of (N, C, H, W) or (N, C, L); arguments as for Dropout."""

    function = staticmethod(ops.dropout2d)


class Dropout3d(Dropout):
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W); arguments as for Dropout."""

    function = staticmethod(ops.dropout3d)


class AlphaDropout(Dropout):
    """Dropout that keeps mean 0 and variance 1, for models of SELUs; arguments as for Dropout."""

    function = staticmethod(ops.alpha_dropout)


class FeatureAlphaDropout(Dropout):
    """AlphaDropout of whole channels of (N, C, ...); arguments as for Dropout."""

    function = staticmethod(ops.feature_alpha_dropout)
