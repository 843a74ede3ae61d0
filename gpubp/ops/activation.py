"""Activation functions and their gradients, each one op, so that each is one fused kernel.

An activation's vjp emits its `*_grad` op, which takes the cotangent and either the activation's
output y (relu, elu, sigmoid, tanh: the input need not be kept) or its input x. Every `*_grad` op
has a vjp of its own, so second derivatives work.

Definitions are those of torch.nn.functional. References do not overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpubp.core import Array, OpSpec, bind
from gpubp.core.formula import Formula
from gpubp.errors import DataError
from gpubp.ops.elementwise import finite, square
from gpubp.ops.logic import greater, where
from gpubp.ops.spec import elementwise, promote

_Cotangents = tuple[Array | None, ...]


RELU_GRAD: OpSpec = elementwise(
    "relu_grad",
    None,
    lambda g, out, dy, y: (bind(RELU_GRAD, g, y), None),
    "a if b > C(0) else C(0)",
)
RELU = elementwise(
    "relu",
    lambda x: np.maximum(x, 0),
    lambda g, y, x: (bind(RELU_GRAD, g, y),),
    "a if a > C(0) or a != a else C(0)",
)


def relu(x: Any) -> Any:
    """`max(x, 0)`; the gradient at 0 is 0."""
    return bind(RELU, *promote(x, floating=True))


def _slope(attrs: Mapping[str, Any]) -> tuple[float, ...]:
    return (attrs["slope"],)


LEAKY_RELU_GRAD: OpSpec = elementwise(
    "leaky_relu_grad",
    None,
    lambda g, out, dy, x, slope: (bind(LEAKY_RELU_GRAD, g, x, slope=slope), None),
    Formula("a if b > C(0) else a * p", attrs=_slope),
    flops=2.0,
)
LEAKY_RELU = elementwise(
    "leaky_relu",
    None,
    lambda g, y, x, slope: (bind(LEAKY_RELU_GRAD, g, x, slope=slope),),
    Formula("a if a > C(0) else a * p", attrs=_slope),
    flops=2.0,
)


def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """`x` where positive, else `slope * x`."""
    return bind(LEAKY_RELU, *promote(x, floating=True), slope=finite("leaky_relu", "slope", slope))


def _alpha(attrs: Mapping[str, Any]) -> tuple[float, ...]:
    return (attrs["alpha"],)


def _elu_reference(x: Any, *, alpha: float) -> Any:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * alpha)


def _elu_grad_reference(dy: Any, x: Any, *, alpha: float) -> Any:
    return np.where(x > 0, dy, dy * (np.exp(np.minimum(x, 0)) * alpha))


def _elu_grad_vjp(g: Array, out: Array, dy: Array, x: Array, *, alpha: float) -> _Cotangents:
    return bind(ELU_GRAD, g, x, alpha=alpha), where(greater(x, 0.0), 0.0, g * out)


# By the input: where the output is near -alpha, alpha + y has lost the digits of alpha e^x.
ELU_GRAD = elementwise(
    "elu_grad",
    _elu_grad_reference,
    _elu_grad_vjp,
    Formula("a if b > C(0) else a * (p * exp_below(b))", attrs=_alpha),
    flops=3.0,
)
ELU = elementwise(
    "elu",
    _elu_reference,
    lambda g, y, x, alpha: (bind(ELU_GRAD, g, x, alpha=alpha),),
    Formula("a if a > C(0) else p * expm1(a)", attrs=_alpha),
    flops=3.0,
)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """`x` where positive, else `alpha * (exp(x) - 1)`.

    Clevert et al., "Fast and Accurate Deep Network Learning by Exponential Linear Units" (2015).

    Raises:
        DataError: `alpha` is negative or not finite.
    """
    alpha = finite("elu", "alpha", alpha)
    if alpha < 0:
        raise DataError(f"elu: alpha must not be negative, got {alpha}.")
    return bind(ELU, *promote(x, floating=True), alpha=alpha)


def sigmoid_reference(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _sigmoid_grad_vjp(g: Array, out: Array, dy: Array, y: Array) -> _Cotangents:
    return bind(SIGMOID_GRAD, g, y), g * dy * (1.0 - 2.0 * y)


SIGMOID_GRAD = elementwise(
    "sigmoid_grad",
    lambda dy, y: dy * (y * (1 - y)),
    _sigmoid_grad_vjp,
    "a * b * (C(1) - b)",
    flops=3.0,
)
SIGMOID = elementwise(
    "sigmoid",
    sigmoid_reference,
    lambda g, y, x: (bind(SIGMOID_GRAD, g, y),),
    "sigmoid(a)",
    flops=4.0,
)


def sigmoid(x: Any) -> Any:
    """`1 / (1 + exp(-x))`."""
    return bind(SIGMOID, *promote(x, floating=True))


def _silu_grad_reference(dy: Any, x: Any) -> Any:
    s = sigmoid_reference(x)
    return dy * (s * (1 + x * (1 - s)))


def _silu_grad_vjp(g: Array, out: Array, dy: Array, x: Array) -> _Cotangents:
    """silu = x s, silu'' = 2 s' + x s'' with s' = s (1 - s), s'' = s' (1 - 2 s)."""
    s = sigmoid(x)
    second = s * (1.0 - s) * (2.0 + x * (1.0 - 2.0 * s))
    return bind(SILU_GRAD, g, x), g * dy * second


SILU_GRAD = elementwise(
    "silu_grad", _silu_grad_reference, _silu_grad_vjp, "a * silu_slope(b)", flops=8.0
)
SILU = elementwise(
    "silu",
    lambda x: x * sigmoid_reference(x),
    lambda g, y, x: (bind(SILU_GRAD, g, x),),
    "a * sigmoid(a)",
    flops=5.0,
)


def silu(x: Any) -> Any:
    """`x * sigmoid(x)`, also called swish (Elfwing et al., 2017)."""
    return bind(SILU, *promote(x, floating=True))


def _tanh_grad_vjp(g: Array, out: Array, dy: Array, y: Array) -> _Cotangents:
    return bind(TANH_GRAD, g, y), g * dy * (-2.0 * y)


TANH_GRAD = elementwise("tanh_grad", None, _tanh_grad_vjp, "a * (C(1) - b * b)", flops=3.0)
TANH = elementwise("tanh", np.tanh, lambda g, y, x: (bind(TANH_GRAD, g, y),), "tanh(a)")


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return bind(TANH, *promote(x, floating=True))


# The rule is of the derivative itself: through the parts it would be a difference of nearly equal
# numbers.
TANHSHRINK = elementwise(
    "tanhshrink", None, lambda g, y, x: (g * square(tanh(x)),), "a - tanh(a)", flops=2.0
)


def tanhshrink(x: Any) -> Any:
    """`x - tanh(x)`."""
    return bind(TANHSHRINK, *promote(x, floating=True))


def _beta_and_threshold(attrs: Mapping[str, Any]) -> tuple[float, ...]:
    return attrs["beta"], attrs["threshold"]


def _softplus_reference(x: Any, *, beta: float, threshold: float) -> Any:
    z = x * beta
    soft = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta
    return np.where(z > threshold, x, soft)


def _softplus_grad_reference(dy: Any, x: Any, *, beta: float, threshold: float) -> Any:
    z = x * beta
    return np.where(z > threshold, dy, dy * sigmoid_reference(z))


def _softplus_grad_vjp(
    g: Array, out: Array, dy: Array, x: Array, *, beta: float, threshold: float
) -> _Cotangents:
    s = sigmoid(x * beta)
    curved = g * dy * (beta * (s * (1.0 - s)))
    to_dy = bind(SOFTPLUS_GRAD, g, x, beta=beta, threshold=threshold)
    return to_dy, where(greater(x * beta, threshold), 0.0, curved)


SOFTPLUS_GRAD = elementwise(
    "softplus_grad",
    _softplus_grad_reference,
    _softplus_grad_vjp,
    Formula("a if b * p > q else a * sigmoid(b * p)", attrs=_beta_and_threshold),
    flops=6.0,
)
SOFTPLUS = elementwise(
    "softplus",
    _softplus_reference,
    lambda g, y, x, beta, threshold: (bind(SOFTPLUS_GRAD, g, x, beta=beta, threshold=threshold),),
    Formula("softplus(a, p, q)", attrs=_beta_and_threshold),
    flops=7.0,
)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """`log(1 + exp(beta x)) / beta`, or `x` itself where `beta x > threshold`.

    Raises:
        DataError: `beta` is not positive, or an argument is not finite.
    """
    beta = finite("softplus", "beta", beta)
    threshold = finite("softplus", "threshold", threshold)
    if beta <= 0:
        raise DataError(f"softplus: beta must be positive, got {beta}.")
    return bind(SOFTPLUS, *promote(x, floating=True), beta=beta, threshold=threshold)
