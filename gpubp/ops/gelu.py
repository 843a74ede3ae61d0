"""GELU in both forms, its gradient and second derivative; see `activation`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.core import Array, bind
from gpubp.core.formula import Formula, Variants
from gpubp.errors import unknown_name
from gpubp.ops.activation import sigmoid, sigmoid_reference
from gpubp.ops.elementwise import clip, exp, square
from gpubp.ops.spec import elementwise, promote

_Cotangents = tuple[Array | None, ...]
_PDF_SCALE = 1.0 / math.sqrt(2.0 * math.pi)
_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBE = 0.044715
# Beyond this both forms of GELU are saturated in float64, and x^3 would overflow far out.
_GELU_SATURATED = 40.0


def _gelu_parts(x: Any, approximate: str) -> tuple[Any, Any]:
    """The factor c(x) in gelu = x c(x), and its derivative."""
    from scipy.special import ndtr

    near = np.clip(x, -_GELU_SATURATED, _GELU_SATURATED)
    if approximate == "none":
        return ndtr(near), np.exp(near * near * -0.5) * _PDF_SCALE
    # (1 + tanh(u)) / 2 is the sigmoid of 2 u, which keeps its digits where tanh(u) is near -1.
    s = sigmoid_reference(2 * _TANH_SCALE * (near + _TANH_CUBE * near * near * near))
    slope = 2 * _TANH_SCALE * (1 + 3 * _TANH_CUBE * near * near)
    return s, s * (1 - s) * slope


def _gelu_reference(x: Any, *, approximate: str) -> Any:
    return x * _gelu_parts(x, approximate)[0]


def _gelu_grad_reference(dy: Any, x: Any, *, approximate: str) -> Any:
    factor, slope = _gelu_parts(x, approximate)
    near = np.clip(x, -_GELU_SATURATED, _GELU_SATURATED)
    return dy * (factor + near * slope)


def _gelu_second(x: Array, approximate: str) -> Array:
    """The second derivative of GELU, made of ops.

    Exact: phi(x) (2 - x^2), since phi' = -x phi. Tanh form, with u = a (x + b x^3), t = tanh(u):
    (1 - t^2) (u' + x u'' / 2 - x t u'^2), where 1 - t^2 = 4 s (1 - s), s the sigmoid of 2 u.
    """
    x = clip(x, -_GELU_SATURATED, _GELU_SATURATED)
    if approximate == "none":
        pdf: Array = exp(square(x) * -0.5) * _PDF_SCALE
        exact: Array = pdf * (2.0 - square(x))
        return exact
    s = sigmoid((2.0 * _TANH_SCALE) * (x + _TANH_CUBE * x * square(x)))
    t = 2.0 * s - 1.0
    first = _TANH_SCALE * (1.0 + 3.0 * _TANH_CUBE * square(x))
    half_second = (3.0 * _TANH_SCALE * _TANH_CUBE) * x
    out: Array = 4.0 * s * (1.0 - s) * (first + x * half_second - x * t * square(first))
    return out


def _gelu_grad_vjp(g: Array, out: Array, dy: Array, x: Array, *, approximate: str) -> _Cotangents:
    to_dy = bind(GELU_GRAD, g, x, approximate=approximate)
    return to_dy, g * dy * _gelu_second(x, approximate)


GELU_GRAD = elementwise(
    "gelu_grad",
    _gelu_grad_reference,
    _gelu_grad_vjp,
    Variants(
        "approximate",
        {"none": Formula("a * gelu_slope(b)"), "tanh": Formula("a * gelu_tanh_slope(b)")},
    ),
    flops=10.0,
)
GELU = elementwise(
    "gelu",
    _gelu_reference,
    lambda g, y, x, approximate: (bind(GELU_GRAD, g, x, approximate=approximate),),
    Variants("approximate", {"none": Formula("gelu(a)"), "tanh": Formula("gelu_tanh(a)")}),
    flops=6.0,
)


def gelu(x: Any, approximate: str = "none") -> Any:
    """`x * Phi(x)`, Phi the normal distribution function (Hendrycks & Gimpel, 2016).

    Args:
        x: any shape.
        approximate: "none", or "tanh" for 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    Raises:
        UnknownNameError: another value of `approximate`.
    """
    if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
        raise unknown_name("approximation of gelu", approximate, ("none", "tanh"))
    return bind(GELU, *promote(x, floating=True), approximate=approximate)
