"""Arrays in other sizes with every option of ONNX's Resize (opset 19).

Places are computed in float64 from the scales as they are given; what ONNX's text leaves open
follows its reference implementation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpubp.arguments import one_of, shown, truth
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import finite
from gpubp.ops.logic import where
from gpubp.ops.pad import whole_numbers
from gpubp.ops.resample import Floats, Taps, along, around, cubic, picked, triangle
from gpubp.ops.spec import normalized_axis, promote, require_possible

_KERNELS = ("nearest", "linear", "cubic")
_POLICIES = ("stretch", "not_larger", "not_smaller")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_PLACES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)


class _Axis(NamedTuple):
    """One axis: its size, the result's, their ratio as given, and the part (start, end) of it."""

    size: int
    out: int
    scale: float
    roi: tuple[float, float]

    @property
    def unchanged(self) -> bool:
        return self.size == self.out and math.isclose(self.scale, 1.0) and self.roi == (0.0, 1.0)

    def places(self, mode: str) -> Floats:
        """Where the results stand: 0 is the middle of the first element."""
        i = np.arange(self.out, dtype=np.float64)
        wide = self.scale * self.size
        half = (i + 0.5) / self.scale - 0.5
        if mode == "asymmetric":
            return i / self.scale
        if mode == "align_corners":
            return i * 0.0 if wide == 1.0 else i * (self.size - 1) / (wide - 1.0)
        if mode == "tf_crop_and_resize":
            return self._cropped(i, wide)
        if mode == "pytorch_half_pixel" and self.out == 1:
            return i * 0.0
        if mode == "half_pixel_symmetric":
            return half + self.size / 2.0 * (1.0 - self.out / wide)
        return half

    def _cropped(self, i: Floats, wide: float) -> Floats:
        start, end = self.roi
        last = self.size - 1
        if wide == 1.0:
            return i * 0.0 + (start + end) * last / 2.0
        return start * last + i * (end - start) * last / (wide - 1.0)


def _rounded(at: Floats, how: str) -> Floats:
    down = np.floor(at)
    if how == "floor":
        return down
    if how == "ceil":
        return np.ceil(at)
    part = at - down
    up = part > 0.5 if how == "round_prefer_floor" else part >= 0.5
    return np.asarray(down + up)


class _Options(NamedTuple):
    mode: str
    places: str
    slope: float
    exclude: bool
    antialias: bool
    rounding: str
    beyond: float

    @property
    def crops(self) -> bool:
        return self.places == "tf_crop_and_resize"

    def check(self) -> None:
        one_of("resize", "mode", self.mode, _KERNELS)
        one_of("resize", "coordinate_transformation_mode", self.places, _PLACES)
        one_of("resize", "nearest_mode", self.rounding, _ROUNDINGS)

    def taps(self, axis: _Axis, at: Floats) -> Taps:
        if self.mode == "nearest":
            return picked(_rounded(at, self.rounding), axis.size)
        squeeze = min(axis.scale, 1.0) if self.antialias else 1.0
        kernel, radius = (triangle, 1) if self.mode == "linear" else (cubic(self.slope), 2)
        return around(at, axis.size, kernel, radius, squeeze, self.exclude)


def _numbers(name: str, values: Any, count: int) -> list[float]:
    try:
        found = [float(v) for v in values]
    except (OverflowError, TypeError, ValueError):
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ArgumentError(f"resize: {name} is {shown(values)}, expected {count} numbers.")
    return found


def _scaled(x: Any, axes: list[int], scales: Any) -> list[tuple[int, float]]:
    """(size, scale) of each axis from scales."""
    found = _numbers("scales", scales, len(axes))
    if any(s <= 0.0 for s in found):
        raise ArgumentError(f"resize: scales are {shown(scales)}, expected positive numbers.")
    return [(int(min(s * x.shape[a], 2.0**62)), s) for a, s in zip(axes, found, strict=True)]


def _sized(x: Any, axes: list[int], sizes: Any, policy: str) -> list[tuple[int, float]]:
    """(size, scale) of each axis from sizes; with a policy all axes have one scale."""
    wanted = [int(n) for n in _numbers("sizes", sizes, len(axes))]
    if any(n < 1 for n in wanted):
        raise ArgumentError(f"resize: sizes are {shown(sizes)}, expected positive numbers.")
    scales = [n / x.shape[a] for a, n in zip(axes, wanted, strict=True)]
    if policy == "stretch":
        return list(zip(wanted, scales, strict=True))
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [(int(min(scale * x.shape[a] + 0.5, 2.0**62)), scale) for a in axes]


def resize(
    x: Any,
    sizes: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
    *,
    axes: Sequence[int] | None = None,
    roi: Sequence[float] | None = None,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: bool = False,
    extrapolation_value: float = 0.0,
    antialias: bool = False,
    keep_aspect_ratio_policy: str = "stretch",
    nearest_mode: str = "round_prefer_floor",
) -> Any:
    """`x` in other sizes, as ONNX's operator Resize; for torch's rules see `interpolate`.

    Args:
        x: any shape; floats, but for "nearest".
        sizes: of `axes` in the result; or
        scales: what they are multiplied by, rounded down.
        axes: which; default all.
        roi: starts, then ends, of the part of each axis that "tf_crop_and_resize" takes, as parts
            of its length; default all of it.
        mode: "nearest", "linear" or "cubic", along each axis.
        coordinate_transformation_mode: "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",
            "align_corners", "asymmetric" or "tf_crop_and_resize".
        cubic_coeff_a: of the cubic kernel.
        exclude_outside: leave elements out that are none; else those at the ends stand for them.
        extrapolation_value: what "tf_crop_and_resize" gives beyond the ends.
        antialias: widen kernels where an axis becomes shorter.
        keep_aspect_ratio_policy: "stretch", or one scale for all axes: "not_larger" or
            "not_smaller" than `sizes`.
        nearest_mode: "round_prefer_floor", "round_prefer_ceil", "floor" or "ceil".

    Raises:
        ArgumentError: an option that is none, or both or none of sizes and scales.
        ShapeError: an axis is out of range, has no elements, or would have more than any memory.
    """
    options = _Options(
        mode,
        coordinate_transformation_mode,
        finite("resize", "cubic_coeff_a", cubic_coeff_a),
        truth("resize", "exclude_outside", exclude_outside),
        truth("resize", "antialias", antialias),
        nearest_mode,
        finite("resize", "extrapolation_value", extrapolation_value),
    )
    options.check()
    one_of("resize", "keep_aspect_ratio_policy", keep_aspect_ratio_policy, _POLICIES)
    (x,) = promote(x)
    ndim = len(x.shape)
    given = range(ndim) if axes is None else whole_numbers("resize", "axes", axes)
    chosen = [normalized_axis(a, ndim, "resize") for a in given]
    if (sizes is None) == (scales is None):
        raise ArgumentError("resize: give one of sizes and scales.")
    if any(x.shape[a] == 0 for a in chosen):
        raise ShapeError(f"resize: {describe(x)} has an axis without elements.")
    if sizes is not None:
        found = _sized(x, chosen, sizes, keep_aspect_ratio_policy)
    else:
        found = _scaled(x, chosen, scales)
    shape = dict(enumerate(x.shape)) | {a: n for a, (n, _) in zip(chosen, found, strict=True)}
    require_possible("resize", tuple(shape.values()), x.dtype)
    rois = _parts(roi if options.crops else None, len(chosen))
    for axis, (out, scale), part in zip(chosen, found, rois, strict=True):
        x = _resized(x, axis, _Axis(x.shape[axis], out, scale, part), options)
    return x


def _parts(roi: Any, axes: int) -> list[tuple[float, float]]:
    """(start, end) of each axis from all starts, then all ends."""
    if roi is None:
        return [(0.0, 1.0)] * axes
    found = _numbers("roi", roi, 2 * axes)
    return list(zip(found[:axes], found[axes:], strict=True))


def _resized(x: Any, axis: int, one: _Axis, options: _Options) -> Any:
    if one.unchanged:
        return x
    at = one.places(options.places)
    y = along(x, axis, options.taps(one, at))
    outside = (at < 0.0) | (at > one.size - 1)
    if not options.crops or not outside.any():
        return y
    mask = outside.reshape(-1, *[1] * (len(x.shape) - 1 - axis))
    return where(constant(mask, x), options.beyond, y)
