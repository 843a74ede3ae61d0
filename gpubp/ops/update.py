"""Update rules of optimisers, each one elementwise op, so that an update is one fused kernel.

Arguments that change from step to step (the learning rate, bias corrections) are scalar arrays of
shape () and of the parameter's dtype; the ones that do not are attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpubp.core import Array, bind
from gpubp.core.formula import Formula
from gpubp.ops.elementwise import finite, sqrt, square
from gpubp.ops.spec import elementwise, promote

_Cotangents = tuple[Array | None, ...]


def _ema_square_vjp(c: Array, y: Array, v: Array, g: Array, *, decay: float) -> _Cotangents:
    return c * decay, c * (2.0 * (1.0 - decay)) * g


def _momentum_vjp(
    c: Array, y: Array, buf: Array, g: Array, *, momentum: float, dampening: float
) -> _Cotangents:
    return c * momentum, c * (1.0 - dampening)


def _adam_reference(w: Any, m: Any, v: Any, step_size: Any, bias2_sqrt: Any, *, eps: float) -> Any:
    return w - step_size * m / (np.sqrt(v) / bias2_sqrt + eps)


def _adam_vjp(
    c: Array,
    y: Array,
    w: Array,
    m: Array,
    v: Array,
    step_size: Array,
    bias2_sqrt: Array,
    *,
    eps: float,
) -> _Cotangents:
    """With r = sqrt(v) and d = r / b + eps: y = w - s m / d, so dy/dd = s m / d^2."""
    root = sqrt(v)
    d = root / bias2_sqrt + eps
    to_d = c * step_size * m / square(d)
    to_v = to_d * 0.5 / (root * bias2_sqrt)
    to_bias = -(to_d * root / square(bias2_sqrt))
    return c, -(c * step_size / d), to_v, -(c * m / d), to_bias


def _decay(attrs: Mapping[str, Any]) -> tuple[float, float]:
    return attrs["decay"], 1 - attrs["decay"]


EMA = elementwise(
    "ema",
    None,
    lambda c, y, m, g, decay: (c * decay, c * (1.0 - decay)),
    Formula("p * a + q * b", attrs=_decay),
    flops=3.0,
)
EMA_SQUARE = elementwise(
    "ema_square",
    lambda v, g, decay: v * decay + g * g * (1 - decay),
    _ema_square_vjp,
    Formula("p * a + q * b * b", attrs=_decay),
    flops=4.0,
)
MOMENTUM_UPDATE = elementwise(
    "momentum_update",
    None,
    _momentum_vjp,
    Formula("p * a + q * b", attrs=lambda x: (x["momentum"], 1 - x["dampening"])),
    flops=3.0,
)
SGD_UPDATE = elementwise(
    "sgd_update",
    None,
    lambda c, y, w, g, lr: (c, -(c * lr), -(c * g)),
    "a - c * b",
    flops=2.0,
)
# The reference divides twice, as torch does; backends once.
ADAM_UPDATE = elementwise(
    "adam_update",
    _adam_reference,
    _adam_vjp,
    Formula("a - d * e * b / (sqrt(c) + p * e)", attrs=lambda x: (x["eps"],)),
    flops=6.0,
)


def ema(m: Any, g: Any, decay: float) -> Any:
    """`decay * m + (1 - decay) * g`: the exponential moving average.

    The first moment of Adam (Kingma & Ba, 2015, algorithm 1).
    """
    return bind(EMA, *promote(m, g, floating=True), decay=finite("ema", "decay", decay))


def ema_square(v: Any, g: Any, decay: float) -> Any:
    """`decay * v + (1 - decay) * g^2`: the moving average of squares.

    The second moment of Adam (Kingma & Ba, 2015, algorithm 1).
    """
    decay = finite("ema_square", "decay", decay)
    return bind(EMA_SQUARE, *promote(v, g, floating=True), decay=decay)


def momentum(buf: Any, g: Any, momentum: float, dampening: float = 0.0) -> Any:
    """`momentum * buf + (1 - dampening) * g`, as torch.optim.SGD keeps its buffer.

    Polyak (1964) in the form of Sutskever et al., "On the importance of initialization and momentum
    in deep learning" (2013), with the learning rate outside the buffer.
    """
    return bind(
        MOMENTUM_UPDATE,
        *promote(buf, g, floating=True),
        momentum=finite("momentum_update", "momentum", momentum),
        dampening=finite("momentum_update", "dampening", dampening),
    )


def sgd(w: Any, g: Any, lr: Any) -> Any:
    """`w - lr * g`: gradient descent (Robbins & Monro, 1951).

    Args:
        w: the parameter.
        g: the gradient, or the momentum buffer; the shape of `w`.
        lr: the learning rate, a scalar.
    """
    return bind(SGD_UPDATE, *promote(w, g, lr, floating=True))


def adam(w: Any, m: Any, v: Any, step_size: Any, bias2_sqrt: Any, eps: float = 1e-8) -> Any:
    """`w - step_size * m / (sqrt(v) / bias2_sqrt + eps)`.

    Adam (Kingma & Ba, 2015) in the order of arithmetic of torch.optim.Adam.

    Args:
        w: the parameter.
        m: the first moment, the shape of `w`.
        v: the second moment, the shape of `w`, not negative.
        step_size: scalar, lr / (1 - beta1^t).
        bias2_sqrt: scalar, sqrt(1 - beta2^t).
        eps: keeps the denominator away from 0.
    """
    arrays = promote(w, m, v, step_size, bias2_sqrt, floating=True)
    return bind(ADAM_UPDATE, *arrays, eps=finite("adam_update", "eps", eps))
