"""Responses normalised by those of the channels beside them."""

from __future__ import annotations

import operator
from typing import Any

from gpubp.arguments import shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.elementwise import divide, finite, multiply, power, square
from gpubp.ops.pad import padded
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import promote


def across_channels(x: Any, before: int, after: int) -> Any:
    """Sums over the channels from c - before through c + after, by shifted sums."""
    wide = padded(x, {1: (before, after)})
    total = None
    for first in range(before + after + 1):
        key = [slice(None)] * len(x.shape)
        key[1] = slice(first, first + x.shape[1])
        part = strided_slice(wide, key)
        total = part if total is None else total + part
    return total


def normalized_response(
    x: Any, before: int, after: int, scale: float, beta: float, k: float
) -> Any:
    """x / (k + scale * the sum of squares over the channels beside it) ^ beta."""
    total = across_channels(square(x), before, after)
    return divide(x, power(multiply(total, scale) + k, beta))


def local_response_norm(
    x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """x / (k + alpha * mean(squares of `size` channels around it)) ^ beta.

    Channels beyond the first and last count as zeros. An even size has one more channel before than
    after. Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural
    networks" (2012).

    Args:
        x: (N, C, ...) of at least 3 dimensions.
        size: of the window.
        alpha, beta, k: see above.

    Raises:
        ArgumentError: `size` is no whole number of at least 1.
        ShapeError: `x` has less than 3 dimensions.
    """
    try:
        found = operator.index(size)
    except TypeError:
        found = 0
    if found < 1:
        raise ArgumentError(
            f"local_response_norm: size is {shown(size)}, expected a whole number of at least 1."
        )
    alpha, beta, k = (
        finite("local_response_norm", name, value)
        for name, value in (("alpha", alpha), ("beta", beta), ("k", k))
    )
    (x,) = promote(x, floating=True)
    if len(x.shape) < 3:
        raise ShapeError(f"local_response_norm: expected x (N, C, ...), got {describe(x)}.")
    return normalized_response(x, found // 2, (found - 1) // 2, alpha / found, beta, k)
