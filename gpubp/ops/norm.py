"""Normalisation of channels to mean 0 and variance 1, then scaled and moved; composites.

Variances are biased, the mean of squared distances. Distances are taken from a pivot, which is the
mean without its gradient: with r = mean - pivot (which is 0) the variance is
mean((x - pivot)^2) - r^2 and the result (x - pivot - r) / sqrt(var + eps). That holds for any
pivot, so gradients of all orders are right, and nothing large has to be summed in the backward pass
but dy and dy (x - pivot): the sum of the distances, which the plain formula needs as well, is 0.
"""

from __future__ import annotations

import math
from typing import Any

from gpubp.arguments import is_number, shown, truth
from gpubp.core import bind, describe
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.ops import update
from gpubp.ops.across import across_batch
from gpubp.ops.elementwise import (
    add,
    divide,
    finite,
    maximum,
    multiply,
    negative,
    sqrt,
    subtract,
)  # fmt: skip
from gpubp.ops.moments import SCALED_DIFFERENCE, Moments, beside_channels, moments
from gpubp.ops.reduce import mean
from gpubp.ops.shape import as_shape, stop_gradient
from gpubp.ops.spec import beside, promote
from gpubp.ops.state import assign


def _finished(found: Moments, weight: Any, bias: Any, eps: float) -> Any:
    """(x - pivot - rest) / sqrt(var + eps) * weight + bias; small arrays meet first."""
    scale = inverse_root(found.var, eps)
    if weight is not None:
        scale = multiply(scale, weight)
    shift = negative(multiply(found.rest, scale))
    if bias is not None:
        shift = add(shift, bias)
    (x, scale, shift, pivot) = promote(found.x, scale, shift, found.pivot)
    return add(
        bind(SCALED_DIFFERENCE, beside_channels(scale, x), x, pivot), beside_channels(shift, x)
    )


def inverse_root(size: Any, eps: float) -> Any:
    """1 / sqrt(size + eps)."""
    return divide(1.0, sqrt(add(size, eps)))


def _per_channel(op: str, name: str, value: Any, x: Any) -> Any:
    """(C,) where x (N, C, ...) is; None stays."""
    if value is None:
        return None
    (value,) = promote(value, floating=True)
    if tuple(value.shape) != (x.shape[1],):
        raise ShapeError(f"{op}: expected {name} ({x.shape[1]},), got {describe(value)}.")
    return beside(value, x)


def _floats(op: str, x: Any, least: int) -> Any:
    (x,) = promote(x, floating=True)
    if len(x.shape) < least:
        raise ShapeError(f"{op}: expected x (N, C, ...), got {describe(x)}.")
    return x


def checked_eps(op: str, eps: Any) -> float:
    """`eps` as a float. Raises DataError unless it is finite and not negative."""
    found = float(eps) if is_number(eps) else math.nan
    if not 0 <= found < math.inf:
        raise DataError(f"{op}: eps must be finite and not negative, got {eps!r}.")
    return found


def require_several(op: str, x: Any, axes: tuple[int, ...]) -> int:
    """How many values each variance over `axes` is of.

    Raises:
        ShapeError: there is one, or none.
    """
    count: int = math.prod(x.shape[a] for a in axes)
    if count < 2:
        raise ShapeError(
            f"{op}: got x {describe(x)}, and the variance of a batch needs more than one value a "
            "channel. Use larger batches, drop_last=True, or eval()."
        )
    return count


def _track(op: str, running: Any, batch: Any, momentum: Any) -> None:
    """Move running statistics on: (1 - momentum) running + momentum batch."""
    if running is None:
        return
    if not isinstance(running, Slot):
        raise ArgumentError(
            f"{op}: running statistics that move must be kept in an nn.Buffer, got "
            f"{shown(running)}."
        )
    new = stop_gradient(batch)
    if is_number(momentum):
        assign(running, update.ema(running, new, 1.0 - finite(op, "momentum", momentum)))
    else:
        assign(running, add(running, multiply(subtract(new, running), momentum)))


def batch_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Each channel normalised over the batch (Ioffe & Szegedy 2015, arXiv:1502.03167).

    Args:
        x: (N, C) or (N, C, *sizes).
        running_mean, running_var: (C,): used as they are without `training`; with it they are
            nn.Buffers that move towards the batch's mean and unbiased variance, or None.
        weight, bias: (C,), or None.
        training: whether to use the batch's statistics.
        momentum: the share of the batch in the new running statistics: a number, or a scalar array.
        eps: added to the variance.

    Raises:
        ShapeError: shapes do not fit, or a channel has one value with `training`.
        ArgumentError: no running statistics without `training`, or arrays for those that move.
    """
    x, eps = _floats("batch_norm", x, 2), checked_eps("batch_norm", eps)
    weight = _per_channel("batch_norm", "weight", weight, x)
    bias = _per_channel("batch_norm", "bias", bias, x)
    if not truth("batch_norm", "training", training):
        return _by_running("batch_norm", x, running_mean, running_var, weight, bias, eps)
    axes = (0, *range(2, len(x.shape)))
    across = across_batch()
    count = 2 if across else require_several("batch_norm", x, axes)
    found = moments(x, axes, across=across)
    unbiased = count / (count - 1)
    if found.count is not None:
        unbiased = divide(found.count, maximum(subtract(found.count, 1.0), 1.0))
    _track("batch_norm", running_mean, found.mean, momentum)
    _track("batch_norm", running_var, multiply(found.var, unbiased), momentum)
    return _finished(found, weight, bias, eps)


def _by_running(
    op: str, x: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, eps: float
) -> Any:
    if running_mean is None or running_var is None:
        raise ArgumentError(f"{op}: expected running_mean and running_var where none are computed.")
    centre = _per_channel(op, "running_mean", running_mean, x)
    scale = inverse_root(_per_channel(op, "running_var", running_var, x), eps)
    if weight is not None:
        scale = multiply(scale, weight)
    x, scale, centre = promote(x, scale, centre)
    y = bind(SCALED_DIFFERENCE, beside_channels(scale, x), x, beside_channels(centre, x))
    return y if bias is None else add(y, beside_channels(bias, y))


def instance_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Each channel of each image normalised by itself (Ulyanov et al. 2016, arXiv:1607.08022).

    Args:
        x: (N, C, *sizes).
        running_mean, running_var: (C,): as for `batch_norm`; what they move towards is the mean
            over the images of their means and unbiased variances.
        weight, bias: (C,), or None.
        use_input_stats: whether to use x's own statistics, not the running ones.
        momentum: as for `batch_norm`.
        eps: added to the variance.

    Raises:
        ShapeError: shapes do not fit, or an image has one value a channel.
        ArgumentError: as for `batch_norm`.
    """
    x, eps = _floats("instance_norm", x, 2), checked_eps("instance_norm", eps)
    weight = _per_channel("instance_norm", "weight", weight, x)
    bias = _per_channel("instance_norm", "bias", bias, x)
    if not truth("instance_norm", "use_input_stats", use_input_stats):
        return _by_running("instance_norm", x, running_mean, running_var, weight, bias, eps)
    axes = tuple(range(2, len(x.shape)))
    count = require_several("instance_norm", x, axes)
    found = moments(x, axes)
    if running_mean is not None or running_var is not None:
        unbiased = multiply(found.var, count / (count - 1))
        _track("instance_norm", running_mean, mean(found.mean, 0), momentum)
        _track("instance_norm", running_var, mean(unbiased, 0), momentum)
    return _finished(found, weight, bias, eps)


def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Groups of channels of each sample normalised (Wu & He 2018, arXiv:1803.08494).

    Args:
        x: (N, C, *sizes).
        num_groups: into how many groups the channels are divided.
        weight, bias: (C,), or None.
        eps: added to the variance.

    Raises:
        ShapeError: the channels do not make so many equal groups, or there is one value in all for
            each group.
    """
    x, eps = _floats("group_norm", x, 2), checked_eps("group_norm", eps)
    groups, *more = as_shape(num_groups, "group_norm: num_groups") or (0,)
    if more or groups < 1 or x.shape[1] % groups:
        raise ShapeError(f"group_norm: {describe(x)} has no {num_groups} equal groups of channels.")
    if math.prod(x.shape) == groups:
        raise ShapeError(
            f"group_norm: got x {describe(x)}, and a variance needs more than one value a group."
        )
    weight = _per_channel("group_norm", "weight", weight, x)
    bias = _per_channel("group_norm", "bias", bias, x)
    return _finished(moments(x, tuple(range(2, len(x.shape))), groups), weight, bias, eps)
