"""The first two moments of channels, as small arrays, and the ops that keep the distances from the
mean out of memory: each pass over x takes them anew. `norm.py` says why a pivot is used.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gpubp.core import Array, bind
from gpubp.ops.across import Across
from gpubp.ops.elementwise import multiply, square, subtract
from gpubp.ops.reduce import mean
from gpubp.ops.shape import broadcast_to, reshape, stop_gradient
from gpubp.ops.spec import elementwise


def _half_squared_vjp(g: Array, y: Array, x: Array, m: Array) -> list[Array | None]:
    to_x = bind(SCALED_DIFFERENCE, g, x, m)
    return [to_x, -to_x]


def _scaled_vjp(g: Array, y: Array, s: Array, x: Array, m: Array) -> list[Array | None]:
    to_x = g * s
    return [bind(SCALED_DIFFERENCE, g, x, m), to_x, -to_x]


def _weighted_vjp(g: Array, y: Array, s: Array, x: Array, m: Array, w: Array) -> list[Array | None]:
    to_difference, to_x = g * w, g * w * s
    return [
        bind(SCALED_DIFFERENCE, to_difference, x, m),
        to_x,
        -to_x,
        bind(SCALED_DIFFERENCE, g * s, x, m),
    ]


# Half, so that its gradient is the difference times the cotangent and nothing else.
HALF_SQUARED_DIFFERENCE = elementwise(
    "half_squared_difference", None, _half_squared_vjp, "C(0.5) * ((a - b) * (a - b))", flops=3.0
)
SCALED_DIFFERENCE = elementwise("scaled_difference", None, _scaled_vjp, "a * (b - c)", flops=2.0)
WEIGHTED_DIFFERENCE = elementwise(
    "weighted_difference", None, _weighted_vjp, "d * (a * (b - c))", flops=3.0
)


class Moments(NamedTuple):
    """The first two moments, as small as they are, beside what they are of.

    Attributes:
        x: the large array.
        pivot: the mean without its gradient, shaped to stand beside x.
        rest: mean - pivot: 0, with the gradient of the mean.
        mean, var: over the axes.
        count: of how many values; None for those of x.
    """

    x: Any
    pivot: Any
    rest: Any
    mean: Any
    var: Any
    count: Any = None


def moments(
    x: Any, axes: tuple[int, ...], groups: int = 0, across: Across | None = None
) -> Moments:
    """Means over `axes`; with `groups`, over the channels (axis 1) of each group as well; with
    `across`, over the parts of the batch that are elsewhere."""
    count: Any = None

    def over(values: Any) -> Any:
        nonlocal count
        each = mean(values, axes) if axes else values
        if across is not None:
            each, count = across(each, math.prod(x.shape[a] for a in axes))
        return _over_groups(each, groups) if groups else each

    centre = over(x)
    pivot = stop_gradient(centre)
    beside_x = beside_channels(pivot, x)
    rest = subtract(centre, pivot)
    half = over(bind(HALF_SQUARED_DIFFERENCE, x, beside_x))
    var = subtract(multiply(half, 2.0), square(rest))
    return Moments(x, beside_x, rest, centre, var, count)


def moments_of_rows(x: Any, axes: tuple[int, ...]) -> Moments:
    """Over the last axes; all but x keep them with size 1."""
    centre = mean(x, axes, keepdims=True)
    pivot = stop_gradient(centre)
    rest = subtract(centre, pivot)
    half = mean(bind(HALF_SQUARED_DIFFERENCE, x, pivot), axes, keepdims=True)
    var = subtract(multiply(half, 2.0), square(rest))
    return Moments(x, pivot, rest, centre, var)


def beside_channels(value: Any, x: Any) -> Any:
    """(C,) as (1, C, 1...), (N, C) as (N, C, 1...), for x (N, C, ...)."""
    batch = (1,) * (2 - len(value.shape))
    return reshape(value, (*batch, *value.shape, *[1] * (len(x.shape) - 2)))


def _over_groups(each: Any, groups: int) -> Any:
    """Means of channels (N, C) averaged over each group, beside every channel of it.

    So the large array is never seen in groups, and need not be in memory channel after channel.
    """
    batch, channels = each.shape
    parts = reshape(each, (batch, groups, channels // groups))
    whole = broadcast_to(mean(parts, 2, keepdims=True), parts.shape)
    return reshape(whole, each.shape)
