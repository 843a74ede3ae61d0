"""Calls of the ops of images, for the tests that try every op on arrays of a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import ops

Call = Callable[[dict[str, Any]], Any]
_SIZES = {1: (7,), 2: (6, 5), 3: (4, 5, 3)}


def image_operands() -> dict[str, NDArray[Any]]:
    """Images, filters and grids, for one to three axes."""
    rng = np.random.default_rng(1)
    found = {"channel": rng.normal(size=4).astype(np.float32)}
    for axes, sizes in _SIZES.items():
        kernel = (2,) * axes
        found[f"x{axes}"] = rng.normal(size=(2, 4, *sizes)).astype(np.float32)
        found[f"w{axes}"] = rng.normal(size=(4, 2, *kernel)).astype(np.float32)
    found["columns"] = rng.normal(size=(2, 8, 6)).astype(np.float32)
    found["theta"] = rng.normal(size=(2, 2, 3)).astype(np.float32)
    found["grid"] = rng.uniform(-1.1, 1.1, (2, 3, 2, 2)).astype(np.float32)
    found["offset"] = rng.normal(size=(2, 8, 5, 4)).astype(np.float32)
    found["full"] = rng.normal(size=(3, 4, 2, 2)).astype(np.float32)
    return found


def _each(name: str, call: Callable[[Any, Any, int], Any]) -> dict[str, Call]:
    """`name1d` to `name3d`; the call takes the function, the operands and the number of axes."""

    def of(axes: int) -> Call:
        return lambda a: call(getattr(ops, f"{name}{axes}d"), a, axes)

    return {f"{name}{axes}d": of(axes) for axes in _SIZES}


def _unpooled(f: Any, a: Any, axes: int) -> Any:
    pool = getattr(ops, f"max_pool{axes}d")
    values, indices = pool(a[f"x{axes}"], 2, return_indices=True)
    return f(values, indices, 2, output_size=_SIZES[axes])


IMAGE_CALLS: dict[str, Call] = {
    **_each("adaptive_avg_pool", lambda f, a, n: f(a[f"x{n}"], 2)),
    **_each("adaptive_max_pool", lambda f, a, n: f(a[f"x{n}"], 2)),
    **_each("avg_pool", lambda f, a, n: f(a[f"x{n}"], 2, padding=1)),
    **_each("conv", lambda f, a, n: f(a[f"x{n}"], a[f"w{n}"], a["channel"], 2, 1, 1, 2)),
    **_each("conv_transpose", lambda f, a, n: f(a[f"x{n}"], a[f"w{n}"], None, 2, 1)),
    **_each("dropout", lambda f, a, n: f(a[f"x{n}"])),
    **_each("lp_pool", lambda f, a, n: f(a[f"x{n}"], 2.0, 2)),
    **_each("max_pool", lambda f, a, n: f(a[f"x{n}"], 3, 2, 1)),
    **_each("max_unpool", _unpooled),
    "affine_grid": lambda a: ops.affine_grid(a["theta"], (2, 4, 3, 2), False),
    "alpha_dropout": lambda a: ops.alpha_dropout(a["x2"], training=True),
    "batch_norm": lambda a: ops.batch_norm(a["x2"], weight=a["channel"], training=True),
    "center_crop_pad": lambda a: ops.center_crop_pad(a["x2"], (4, 7), (2, 3)),
    "channel_shuffle": lambda a: ops.channel_shuffle(a["x2"], 2),
    "deform_conv2d": lambda a: ops.deform_conv2d(a["x2"], a["offset"], a["full"]),
    "feature_alpha_dropout": lambda a: ops.feature_alpha_dropout(a["x2"], training=True),
    "fold": lambda a: ops.fold(a["columns"], (3, 4), 2),
    "fractional_max_pool2d": lambda a: ops.fractional_max_pool2d(a["x2"], 2, (3, 2)),
    "fractional_max_pool3d": lambda a: ops.fractional_max_pool3d(a["x3"], 2, (2, 3, 2)),
    "grid_sample": lambda a: ops.grid_sample(a["x2"], a["grid"], align_corners=False),
    "group_norm": lambda a: ops.group_norm(a["x2"], 2, a["channel"], a["channel"]),
    "instance_norm": lambda a: ops.instance_norm(a["x2"], weight=a["channel"]),
    "interpolate": lambda a: ops.interpolate(a["x2"], (4, 8), mode="bicubic"),
    "layer_norm": lambda a: ops.layer_norm(a["x2"], (6, 5)),
    "local_response_norm": lambda a: ops.local_response_norm(a["x2"], 3),
    "pad": lambda a: ops.pad(a["x2"], (1, 2, 2, 1), "reflect"),
    "pad with zeros": lambda a: ops.pad(a["x2"], (1, 2, -1, 0)),
    "pixel_shuffle": lambda a: ops.pixel_shuffle(a["x2"], 2),
    "pixel_unshuffle": lambda a: ops.pixel_unshuffle(a["x2"][:, :, :, :4], 2),
    "resize": lambda a: ops.resize(a["x2"], (5, 3), axes=(2, 3), mode="linear"),
    "rms_norm": lambda a: ops.rms_norm(a["x2"], 5),
    "unfold": lambda a: ops.unfold(a["x2"], 2),
    "upsample": lambda a: ops.upsample(a["x2"], scale_factor=2),
    "upsample_bilinear": lambda a: ops.upsample_bilinear(a["x2"], scale_factor=2),
    "upsample_nearest": lambda a: ops.upsample_nearest(a["x2"], (9, 10)),
}
