"""Composites that draw random numbers: samples of classes with a gradient, random slopes."""

from __future__ import annotations

from typing import Any

from gpubp.arguments import truth
from gpubp.errors import DataError
from gpubp.ops.activation import leaky_relu
from gpubp.ops.elementwise import add, divide, finite, log, maximum, multiply, negative, subtract
from gpubp.ops.index import one_hot
from gpubp.ops.logic import greater, where
from gpubp.ops.loss import softmax
from gpubp.ops.random import UNIFORM, Generator, draw
from gpubp.ops.reduce import argmax
from gpubp.ops.shape import stop_gradient, swapaxes
from gpubp.ops.spec import float_limits, normalized_axis, promote


def gumbel_softmax(
    logits: Any,
    tau: float = 1.0,
    hard: bool = False,
    dim: int = -1,
    generator: Generator | None = None,
) -> Any:
    """Samples of classes, softened: softmax((logits + Gumbel noise) / tau).

    Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax" (2017, arXiv:1611.01144).

    Args:
        logits: any shape.
        tau: the temperature, above 0.
        hard: one-hot samples, with the gradient of the soft ones.
        dim: the axis of classes.
        generator: default is the one that `manual_seed` seeds.

    Raises:
        DataError: tau is not positive.
    """
    (x,) = promote(logits, floating=True)
    if not finite("gumbel_softmax", "tau", tau) > 0:
        raise DataError(f"gumbel_softmax: tau is {tau}, expected above 0.")
    axis = normalized_axis(dim, len(x.shape), "gumbel_softmax")
    u = draw(UNIFORM, x.shape, x.dtype, generator, x)
    waits = negative(log(maximum(u, float(float_limits(x).tiny))))  # exponentially distributed
    noisy = divide(subtract(x, log(waits)), tau)
    soft = softmax(noisy, axis)
    if not truth("gumbel_softmax", "hard", hard):
        return soft
    chosen = one_hot(argmax(soft, axis), x.shape[axis], x.dtype)
    for i in range(len(x.shape) - 1, axis, -1):  # the last axis comes to its place
        chosen = swapaxes(chosen, i, i - 1)
    return add(subtract(chosen, stop_gradient(soft)), soft)


def rrelu(
    x: Any,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Generator | None = None,
) -> Any:
    """x where positive, else a multiple of it that is drawn evenly from lower to upper.

    Xu et al., "Empirical evaluation of rectified activations" (2015, arXiv:1505.00853).

    Args:
        x: any shape.
        lower, upper: of the slopes.
        training: if False, the slope is their mean.
        generator: default is the one that `manual_seed` seeds.

    Raises:
        DataError: lower is above upper, or one is not finite.
    """
    low, high = finite("rrelu", "lower", lower), finite("rrelu", "upper", upper)
    if low > high:
        raise DataError(f"rrelu: lower is {lower}, which is above upper, {upper}.")
    (x,) = promote(x, floating=True)
    if not truth("rrelu", "training", training):
        return leaky_relu(x, (low + high) / 2)
    u = draw(UNIFORM, x.shape, x.dtype, generator, x)
    slopes = add(multiply(u, high - low), low)
    return multiply(x, where(greater(x, 0.0), 1.0, slopes))
