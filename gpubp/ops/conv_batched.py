"""Convolutions once a sample, each with weights of its own: the rules of `gp.vmap`.

Samples become groups of channels, so all of them are one convolution. See `OpSpec.batched` for what
a rule takes and returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp.core import OpSpec, bind
from gpubp.ops.batched import moved, once_each
from gpubp.ops.shape import reshape


def _joined(x: Any) -> Any:
    """(samples, ..., channels) as (..., samples * channels)."""
    last = len(x.shape) - 1
    x = moved(x, 0, last - 1)
    return reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))


def _parted(y: Any, samples: int) -> Any:
    """The reverse."""
    y = reshape(y, (*y.shape[:-1], samples, y.shape[-1] // samples))
    return moved(y, len(y.shape) - 2, 0)


def own_weights(
    spec: OpSpec, samples: int, given: Sequence[bool], inputs: Sequence[Any], attrs: Any
) -> Any:
    """A convolution, or its transpose in x; with the same weights its rows are images like others.

    Images that all samples share, in one group, meet the filters of all samples as they are.
    """
    if not given[1] or not samples:
        return None
    images, weight = inputs
    weight = reshape(weight, (samples * weight.shape[1], *weight.shape[2:]))
    if not given[0] and spec.name == "conv" and attrs["groups"] == 1:
        return _parted(bind(spec, images, weight, **attrs), samples)
    images = _joined(images if given[0] else once_each(images, samples))
    groups = samples * attrs["groups"]
    return _parted(bind(spec, images, weight, **{**attrs, "groups": groups}), samples)


def own_gradients(
    spec: OpSpec, samples: int, given: Sequence[bool], inputs: Sequence[Any], attrs: Any
) -> Any:
    """The gradient of each sample's weights, or of what each makes of weights that are shared."""
    if not samples:
        return None
    x, dy = inputs
    dy = _joined(dy if given[1] else once_each(dy, samples))
    groups = attrs["groups"]
    if given[0] or groups > 1:
        x, groups = _joined(x if given[0] else once_each(x, samples)), samples * groups
    return _parted(bind(spec, x, dy, **{**attrs, "groups": groups}), samples)
