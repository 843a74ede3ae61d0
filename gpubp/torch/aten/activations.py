"""Rules of activations, softmax and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpubp import ops
from gpubp.torch.rules import rule, same

same(
    {
        "relu": ops.relu,
        "relu6": ops.relu6,
        "sigmoid": ops.sigmoid,
        "special_expit": ops.sigmoid,
        "tanh": ops.tanh,
        "silu": ops.silu,
        "mish": ops.mish,
        "selu": ops.selu,
        "celu": ops.celu,
        "hardsigmoid": ops.hardsigmoid,
        "hardswish": ops.hardswish,
        "hardtanh": ops.hardtanh,
        "leaky_relu": ops.leaky_relu,
        "log_sigmoid": ops.logsigmoid,
        "softplus": ops.softplus,
        "hardshrink": ops.hardshrink,
        "softshrink": ops.softshrink,
        "threshold": ops.threshold,
        "prelu": ops.prelu,
        "glu": ops.glu,
    }
)


@rule("gelu")
def gelu(x: Any, approximate: str = "none") -> Any:
    """By erf, or by tanh."""
    return ops.gelu(x, approximate)


@rule("elu")
def elu(x: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Any:
    """alpha (exp(x) - 1) below 0; both sides scaled."""
    y = ops.elu(x if input_scale == 1 else ops.multiply(x, input_scale), float(alpha))
    return y if scale == 1 else ops.multiply(y, scale)


@rule("softmax.int", "_softmax", "special_softmax")
def softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """exp(x) over its sum along an axis."""
    return _along(ops.softmax, _floats(x, dtype), dim)


@rule("log_softmax.int", "_log_softmax", "special_log_softmax")
def log_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """The logarithm of softmax."""
    return _along(ops.log_softmax, _floats(x, dtype), dim)


def _along(fn: Callable[..., Any], x: Any, dim: int) -> Any:
    """Along an axis; dim=0 and -1 of a scalar are axes in torch."""
    return fn(x, dim) if len(x.shape) else ops.reshape(fn(ops.reshape(x, (1,)), 0), ())


def _floats(x: Any, dtype: Any) -> Any:
    return ops.astype(x, dtype) if isinstance(dtype, str) else x


@rule("dropout")
def dropout(x: Any, p: float, train: bool) -> Any:
    """Zeros with probability p; drawn from gpubp's generator."""
    return ops.dropout(x, p, bool(train))


@rule("feature_dropout")
def feature_dropout(x: Any, p: float, train: bool) -> Any:
    """Whole channels of (N, C, ...)."""
    if not train or p == 0.0:
        return x
    ones = ops.ones((*tuple(x.shape)[:2], *[1] * (len(x.shape) - 2)), x.dtype)
    return ops.multiply(x, ops.dropout(ones, p))


@rule("alpha_dropout")
def alpha_dropout(x: Any, p: float, train: bool) -> Any:
    """For SELU's networks."""
    return ops.alpha_dropout(x, p, bool(train))


@rule("feature_alpha_dropout")
def feature_alpha_dropout(x: Any, p: float, train: bool) -> Any:
    """Whole channels, for SELU's networks."""
    return ops.feature_alpha_dropout(x, p, bool(train))


@rule("rrelu")
def rrelu(
    x: Any,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Any:
    """A random slope below 0; drawn from gpubp's generator."""
    return ops.rrelu(x, lower, upper, bool(training))
