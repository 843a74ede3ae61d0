"""ONNX's operators of images written in gpubp: padding, sizes, grids, columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import ops
from gpubp.onnx.import_common import ints, refuse
from gpubp.ops.deform import deformed
from gpubp.ops.fold import fold
from gpubp.ops.pad import padded
from gpubp.ops.response import normalized_response

_MODES = {"edge": "replicate", "wrap": "circular"}


def pad(x: Any, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    """Starts, then ends."""
    sizes = ints(pads)
    chosen = range(x.ndim) if axes is None else ints(axes)
    half = len(sizes) // 2
    sides = {a % x.ndim: (sizes[i], sizes[half + i]) for i, a in enumerate(chosen)}
    filler = 0 if value is None or not np.size(value) else np.ravel(value)[0]
    return padded(x, sides, _MODES.get(mode, mode), filler)


def _given(values: Any) -> Any:
    return None if values is None or not np.size(values) else np.ravel(values)


def resize(x: Any, roi: Any = None, scales: Any = None, sizes: Any = None, **options: Any) -> Any:
    names = ("exclude_outside", "antialias")
    flags: dict[str, Any] = {k: bool(options.pop(k)) for k in names if k in options}
    return ops.resize(x, _given(sizes), _given(scales), roi=_given(roi), **flags, **options)


def upsample(x: Any, scales: Any, *, mode: str = "nearest") -> Any:
    how = "linear" if mode == "bilinear" else mode
    return ops.resize(
        x,
        scales=ints(scales),
        mode=how,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def grid_sample(
    x: Any, grid: Any, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0
) -> Any:
    names = {"linear": "bilinear", "cubic": "bicubic"}
    if mode == "cubic" and x.ndim != 4:
        refuse("cubic samples of other than two axes")
    return ops.grid_sample(x, grid, names.get(mode, mode), padding_mode, bool(align_corners))


def affine_grid(theta: Any, size: Any, *, align_corners: int = 0) -> Any:
    return ops.affine_grid(theta, ints(size), bool(align_corners))


def col2im(
    x: Any, image: Any, block: Any, *, dilations: Any = None, pads: Any = None, strides: Any = None
) -> Any:
    """Starts, then ends; gpubp's have one number for both."""
    axes = len(ints(image))
    sides = ints(pads) if pads is not None else (0,) * (2 * axes)
    if sides[:axes] != sides[axes:]:
        refuse("columns with other padding before than after")
    return fold(
        x, ints(image), ints(block), dilations or (1,) * axes, sides[:axes], strides or (1,) * axes
    )


def center_crop_pad(x: Any, shape: Any, *, axes: Any = None) -> Any:
    return ops.center_crop_pad(x, ints(shape), axes)


def deform_conv(
    x: Any,
    weight: Any,
    offset: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    dilations: Any = (1, 1),
    group: int = 1,
    kernel_shape: Any = None,
    offset_group: int = 1,
    pads: Any = (0, 0, 0, 0),
    strides: Any = (1, 1),
) -> Any:
    """Groups follow from the shapes."""
    sides = ((pads[0], pads[2]), (pads[1], pads[3]))
    return deformed(x, offset, weight, bias, tuple(strides), sides, tuple(dilations), mask)


def lrn(x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Any:
    """An even size has one more channel after than before."""
    return normalized_response(x, (size - 1) // 2, size // 2, alpha / size, beta, bias)
