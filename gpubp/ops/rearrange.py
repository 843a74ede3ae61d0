"""Channels to places and back: pixel shuffles and channel shuffles, which are views and a copy."""

from __future__ import annotations

from typing import Any

from gpubp.core import describe
from gpubp.errors import ShapeError
from gpubp.ops.shape import reshape, swapaxes, transpose
from gpubp.ops.spatial import positive
from gpubp.ops.spec import promote


def pixel_shuffle(x: Any, upscale_factor: int) -> Any:
    """(..., C r^2, H, W) as (..., C, H r, W r), as torch.nn.functional.pixel_shuffle.

    Shi et al., "Real-time single image and video super-resolution" (2016, arXiv:1609.05158).

    Raises:
        ArgumentError: the factor is no whole number of at least 1.
        ShapeError: `x` has less than 3 dimensions, or channels that r^2 does not divide.
    """
    r = positive("pixel_shuffle", "upscale_factor", upscale_factor)
    (x,) = promote(x)
    if len(x.shape) < 3 or x.shape[-3] % (r * r):
        raise ShapeError(
            f"pixel_shuffle: expected (..., C, H, W) with C divisible by {r * r}, got "
            f"{describe(x)}."
        )
    *batch, c, h, w = x.shape
    b = len(batch)
    parts = reshape(x, (*batch, c // (r * r), r, r, h, w))
    turned = transpose(parts, (*range(b), b, b + 3, b + 1, b + 4, b + 2))
    return reshape(turned, (*batch, c // (r * r), h * r, w * r))


def pixel_unshuffle(x: Any, downscale_factor: int) -> Any:
    """(..., C, H r, W r) as (..., C r^2, H, W): `pixel_shuffle` undone.

    Raises:
        ArgumentError: the factor is no whole number of at least 1.
        ShapeError: `x` has less than 3 dimensions, or sizes that r does not divide.
    """
    r = positive("pixel_unshuffle", "downscale_factor", downscale_factor)
    (x,) = promote(x)
    if len(x.shape) < 3 or x.shape[-1] % r or x.shape[-2] % r:
        raise ShapeError(
            f"pixel_unshuffle: expected (..., C, H, W) with H and W divisible by {r}, got "
            f"{describe(x)}."
        )
    *batch, c, h, w = x.shape
    b = len(batch)
    parts = reshape(x, (*batch, c, h // r, r, w // r, r))
    turned = transpose(parts, (*range(b), b, b + 2, b + 4, b + 1, b + 3))
    return reshape(turned, (*batch, c * r * r, h // r, w // r))


def channel_shuffle(x: Any, groups: int) -> Any:
    """Channels (groups, C / groups) in the order (C / groups, groups).

    Zhang et al., "ShuffleNet" (2017, arXiv:1707.01083).

    Args:
        x: (N, C, ...).
        groups: that C is divisible by.

    Raises:
        ArgumentError: `groups` is no whole number of at least 1.
        ShapeError: `x` has less than 3 dimensions, or channels that `groups` does not divide.
    """
    groups = positive("channel_shuffle", "groups", groups)
    (x,) = promote(x)
    if len(x.shape) < 3 or x.shape[1] % groups:
        raise ShapeError(
            f"channel_shuffle: expected (N, C, ...) with C divisible by {groups}, got "
            f"{describe(x)}."
        )
    n, c, *sizes = x.shape
    parts = reshape(x, (n, groups, c // groups, *sizes))
    return reshape(swapaxes(parts, 1, 2), x.shape)
