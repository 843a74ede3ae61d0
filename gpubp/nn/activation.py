"""Elementwise activations as modules; the arithmetic is in `gpubp.ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from gpubp import ops
from gpubp.arguments import checked
from gpubp.errors import DataError, unknown_name
from gpubp.nn.arrays import of_arrays
from gpubp.nn.module import Module


class _Activation(Module):
    """An op, and the attributes that it takes after x.

    Attributes:
        function: the op.
        options: the names of the attributes.
    """

    function: ClassVar[Callable[..., Any]]
    options: ClassVar[tuple[str, ...]] = ()

    def _set(self, **options: Any) -> None:
        """Take the options, and let the op refuse those that it does not accept."""
        for name, value in options.items():
            setattr(self, name, value)
        self(np.zeros((1, 1), np.float32))

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Apply to x of any shape."""
        return self.function(x, *[getattr(self, name) for name in self.options])

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)


class ReLU(_Activation):
    """max(x, 0), elementwise."""

    function = staticmethod(ops.relu)


class ReLU6(_Activation):
    """min(max(x, 0), 6), elementwise."""

    function = staticmethod(ops.relu6)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)), elementwise."""

    function = staticmethod(ops.sigmoid)


class LogSigmoid(_Activation):
    """log(1 / (1 + exp(-x))), elementwise."""

    function = staticmethod(ops.logsigmoid)


class Hardsigmoid(_Activation):
    """x / 6 + 1 / 2 limited to [0, 1], elementwise."""

    function = staticmethod(ops.hardsigmoid)


class Tanh(_Activation):
    """tanh(x), elementwise."""

    function = staticmethod(ops.tanh)


class Tanhshrink(_Activation):
    """x - tanh(x), elementwise."""

    function = staticmethod(ops.tanhshrink)


class Softsign(_Activation):
    """x / (1 + |x|), elementwise."""

    function = staticmethod(ops.softsign)


class SELU(_Activation):
    """scale * elu(x, alpha), elementwise, with the constants of Klambauer et al. (2017)."""

    function = staticmethod(ops.selu)


class SiLU(_Activation):
    """x * sigmoid(x), elementwise; also called swish."""

    function = staticmethod(ops.silu)


class Mish(_Activation):
    """x * tanh(log(1 + exp(x))), elementwise (Misra 2019, arXiv:1908.08681)."""

    function = staticmethod(ops.mish)


class Hardswish(_Activation):
    """x * (x / 6 + 1 / 2 limited to [0, 1]), elementwise (Howard et al. 2019)."""

    function = staticmethod(ops.hardswish)


class LeakyReLU(_Activation):
    """x where positive, else negative_slope * x, elementwise.

    Raises:
        DataError: the slope is not finite.
    """

    function = staticmethod(ops.leaky_relu)
    options = ("negative_slope",)

    @checked
    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self._set(negative_slope=negative_slope)


class RReLU(_Activation):
    """x where positive, else a multiple: drawn from lower to upper in training, else their mean.

    Xu et al., "Empirical evaluation of rectified activations" (2015, arXiv:1505.00853).

    Raises:
        DataError: lower is above upper, or one is not finite.
    """

    options = ("lower", "upper")

    @checked
    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        if lower > upper:
            raise DataError(f"RReLU: lower is {lower}, which is above upper, {upper}.")
        self._set(lower=lower, upper=upper)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """The activation of x, any shape."""
        return ops.rrelu(x, self.lower, self.upper, self.training)


class ELU(_Activation):
    """x where positive, else alpha * (exp(x) - 1), elementwise (Clevert et al. 2015).

    Raises:
        DataError: alpha is negative.
    """

    function = staticmethod(ops.elu)
    options = ("alpha",)

    @checked
    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self._set(alpha=alpha)


class CELU(_Activation):
    """x where positive, else alpha * (exp(x / alpha) - 1), elementwise (Barron 2017).

    Raises:
        DataError: alpha is not positive.
    """

    function = staticmethod(ops.celu)
    options = ("alpha",)

    @checked
    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self._set(alpha=alpha)


class Softplus(_Activation):
    """log(1 + exp(beta x)) / beta, elementwise; x itself where beta x is above the threshold.

    Raises:
        DataError: beta is not positive.
    """

    function = staticmethod(ops.softplus)
    options = ("beta", "threshold")

    @checked
    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self._set(beta=beta, threshold=threshold)


class Hardtanh(_Activation):
    """x limited to [min_val, max_val], elementwise.

    Raises:
        DataError: min_val is not below max_val.
    """

    function = staticmethod(ops.hardtanh)
    options = ("min_val", "max_val")

    @checked
    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        self._set(min_val=min_val, max_val=max_val)


class Threshold(_Activation):
    """x where above the threshold, else a fixed value; elementwise."""

    function = staticmethod(ops.threshold)
    options = ("threshold", "value")

    @checked
    def __init__(self, threshold: float, value: float) -> None:
        super().__init__()
        self._set(threshold=threshold, value=value)


class Hardshrink(_Activation):
    """x, but 0 where |x| is at most lambd; elementwise.

    Raises:
        DataError: lambd is negative.
    """

    function = staticmethod(ops.hardshrink)
    options = ("lambd",)

    @checked
    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self._set(lambd=lambd)

    def extra_repr(self) -> str:
        """The limit, as torch shows it."""
        return f"{self.lambd}"


class Softshrink(Hardshrink):
    """x moved towards 0 by lambd, and 0 where |x| is at most lambd; elementwise.

    Raises:
        DataError: lambd is negative.
    """

    function = staticmethod(ops.softshrink)


class GELU(_Activation):
    """x Phi(x), elementwise (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    Args:
        approximate: "none" for the exact form with erf, "tanh" for the paper's approximation.

    Raises:
        UnknownNameError: any other `approximate`.
    """

    function = staticmethod(ops.gelu)
    options = ("approximate",)

    @checked
    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise unknown_name("approximation", approximate, ("none", "tanh"))
        self.approximate = approximate
