"""Activation functions made of other ops; fusion makes each one kernel.

Names and definitions are those of torch.nn.functional, gradients at kinks and ends included.
"""

from __future__ import annotations

from typing import Any

from gpubp.core import describe
from gpubp.errors import DataError, ShapeError
from gpubp.ops.activation import elu, sigmoid, softplus, tanh
from gpubp.ops.elementwise import abs, clip, divide, finite, multiply, negative, sign, subtract
from gpubp.ops.getitem import getitem
from gpubp.ops.logic import greater, less, less_equal, logical_and, where
from gpubp.ops.shape import reshape, stop_gradient
from gpubp.ops.spec import beside, normalized_axis, promote

# Klambauer et al., "Self-Normalizing Neural Networks" (2017), equation 14.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
# Above every float32 that squares without overflow: softplus is exact there and needs no limit.
_NO_LIMIT = 1e30


def _clamped(x: Any, low: float, high: float) -> Any:
    """`x` limited to [low, high]; the gradient is 0 at the ends (that of `clip` is 1)."""
    inside = logical_and(greater(x, low), less(x, high))
    return where(inside, x, stop_gradient(clip(x, low, high)))


def hardtanh(x: Any, low: float = -1.0, high: float = 1.0) -> Any:
    """`x` limited to [low, high].

    Raises:
        DataError: a limit is not finite, or `low` is not below `high`.
    """
    low, high = finite("hardtanh", "low", low), finite("hardtanh", "high", high)
    if not low < high:
        raise DataError(f"hardtanh: low must be below high, got {low} and {high}.")
    (x,) = promote(x, floating=True)
    return _clamped(x, low, high)


def relu6(x: Any) -> Any:
    """`x` limited to [0, 6] (Krizhevsky, 2010)."""
    return hardtanh(x, 0.0, 6.0)


def hardsigmoid(x: Any) -> Any:
    """`x / 6 + 1 / 2` limited to [0, 1]."""
    return multiply(hardtanh(x, -3.0, 3.0), 1.0 / 6.0) + 0.5


def hardswish(x: Any) -> Any:
    """`x * hardsigmoid(x)` (Howard et al., "Searching for MobileNetV3", 2019)."""
    return multiply(x, hardsigmoid(x))


def hardshrink(x: Any, lambd: float = 0.5) -> Any:
    """`x`, but 0 where |x| is at most `lambd`.

    Raises:
        DataError: `lambd` is negative or not finite.
    """
    (x,) = promote(x, floating=True)
    return where(less_equal(abs(x), _not_negative("hardshrink", lambd)), 0.0, x)


def softshrink(x: Any, lambd: float = 0.5) -> Any:
    """`x` moved towards 0 by `lambd`, and 0 where |x| is at most `lambd`.

    Raises:
        DataError: `lambd` is negative or not finite.
    """
    (x,) = promote(x, floating=True)
    limit = _not_negative("softshrink", lambd)
    return subtract(x, clip(x, -limit, limit))


def _not_negative(op: str, lambd: float) -> float:
    found = finite(op, "lambd", lambd)
    if found < 0:
        raise DataError(f"{op}: lambd must not be negative, got {lambd}.")
    return found


def threshold(x: Any, threshold: float, value: float) -> Any:
    """`x` where it is above `threshold`, else `value`."""
    (x,) = promote(x, floating=True)
    limit = finite("threshold", "threshold", threshold)
    return where(less_equal(x, limit), finite("threshold", "value", value), x)


def prelu(x: Any, weight: Any) -> Any:
    """`x` where positive, else `weight * x` (He et al., 2015, arXiv:1502.01852).

    Args:
        x: (N, C, ...), or any shape with a single weight.
        weight: (1,) or (C,).

    Raises:
        ShapeError: there is neither one weight nor one for each channel.
    """
    x, weight = promote(x, weight, floating=True)
    channels = x.shape[1] if len(x.shape) > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        raise ShapeError(
            f"prelu: got x {describe(x)} and weight {describe(weight)}, expected a weight of shape "
            f"(1,) or ({channels},)."
        )
    shape = () if weight.shape == (1,) else (channels, *[1] * (len(x.shape) - 2))
    return where(greater(x, 0.0), x, multiply(x, reshape(beside(weight, x), shape)))


def selu(x: Any) -> Any:
    """`scale * elu(x, alpha)` with constants that keep mean 0 and variance 1.

    Klambauer et al., "Self-Normalizing Neural Networks" (2017).
    """
    return multiply(elu(x, SELU_ALPHA), SELU_SCALE)


def celu(x: Any, alpha: float = 1.0) -> Any:
    """`x` where positive, else `alpha * (exp(x / alpha) - 1)` (Barron, 2017, arXiv:1704.07483).

    Raises:
        DataError: `alpha` is not positive.
    """
    alpha = finite("celu", "alpha", alpha)
    if alpha <= 0:
        raise DataError(f"celu: alpha must be positive, got {alpha}.")
    if alpha == 1.0:
        return elu(x)
    (x,) = promote(x, floating=True)  # x / alpha * alpha is not always x
    return where(greater(x, 0.0), x, multiply(elu(divide(x, alpha)), alpha))


def mish(x: Any) -> Any:
    """`x * tanh(softplus(x))` (Misra, 2019, arXiv:1908.08681)."""
    return multiply(x, tanh(softplus(x)))


def logsigmoid(x: Any) -> Any:
    """`log(sigmoid(x))`, without overflow or cancellation."""
    return negative(softplus(negative(*promote(x, floating=True)), threshold=_NO_LIMIT))


def softsign(x: Any) -> Any:
    """`x / (1 + |x|)` (Bergstra et al., 2009)."""
    (x,) = promote(x, floating=True)
    # From 1 on as 1 - r: the derivative is then r^2, and no difference of nearly equal numbers.
    size, side = abs(x), sign(x)
    r = divide(1.0, size + 1.0)
    return where(less(size, 1.0), multiply(x, r), subtract(side, multiply(side, r)))


def glu(x: Any, axis: int = -1) -> Any:
    """`a * sigmoid(b)`, a and b the two halves of `x` along `axis` (Dauphin et al., 2016).

    Raises:
        ShapeError: the axis is out of range or its size odd.
    """
    (x,) = promote(x, floating=True)
    at = normalized_axis(axis, len(x.shape), "glu")
    half, odd = divmod(x.shape[at], 2)
    if odd:
        raise ShapeError(f"glu: {describe(x)} cannot be halved along axis {axis}.")
    before = (slice(None),) * at
    gate = getitem(x, (*before, slice(half, None)))
    return multiply(getitem(x, (*before, slice(half))), sigmoid(gate))


def log1p_exp(x: Any) -> Any:
    """`log(1 + exp(x))` for any `x`: `softplus` without its linear part."""
    return softplus(x, threshold=_NO_LIMIT)
