"""Images in other sizes, as torch.nn.functional.interpolate: every axis has its own taps."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.arguments import one_of, shown, truth
from gpubp.core import Shape, describe
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.ops.resample import Floats, Taps, along, around, averaged, cubic, picked, triangle
from gpubp.ops.spec import promote, require_possible

# The number of axes that a mode is for; None: any of 1 to 3.
_AXES = {
    "nearest": None,
    "nearest-exact": None,
    "area": None,
    "linear": 1,
    "bilinear": 2,
    "bicubic": 2,
    "trilinear": 3,
}
_CORNERS = ("linear", "bilinear", "bicubic", "trilinear")
_ANTIALIASED = ("bilinear", "bicubic")


def _sizes(size: Any, axes: int) -> Shape:
    parts = tuple(size) if isinstance(size, (tuple, list)) else (size,) * axes
    try:
        found = tuple(operator.index(n) for n in parts)
    except TypeError:
        found = ()
    if len(found) != axes or any(n < 1 for n in found):
        raise ArgumentError(
            f"interpolate: size is {shown(size)}, expected a whole number of at least 1, or one "
            f"for each of {axes} axes."
        )
    return found


def _factors(scale_factor: Any, axes: int) -> tuple[float, ...]:
    parts = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * axes
    try:
        found = tuple(float(f) for f in parts)
    except (OverflowError, TypeError, ValueError):
        found = ()
    if len(found) != axes or not all(math.isfinite(f) and f > 0.0 for f in found):
        raise ArgumentError(
            f"interpolate: scale_factor is {shown(scale_factor)}, expected a positive number, or "
            f"one for each of {axes} axes."
        )
    return found


def _checked(x: Any, mode: Any, align_corners: Any, antialias: Any) -> None:
    one_of("interpolate", "mode", mode, _AXES)
    axes = len(x.shape) - 2
    if not 1 <= axes <= 3 or _AXES[mode] not in (None, axes):
        wanted = "1 to 3 axes" if _AXES[mode] is None else f"{_AXES[mode]} axes"
        raise ShapeError(
            f"interpolate: mode {mode!r} is for images (N, C, ...) of {wanted}, got {describe(x)}."
        )
    if align_corners is not None and mode not in _CORNERS:
        raise ArgumentError(f"interpolate: mode {mode!r} takes no align_corners.")
    if antialias and mode not in _ANTIALIASED:
        raise ArgumentError(
            f"interpolate: antialias is for {' and '.join(_ANTIALIASED)}, not {mode!r}."
        )
    if any(n < 1 for n in x.shape[2:]):
        raise ShapeError(f"interpolate: images without elements, {describe(x)}, have no others.")


def _places(n: int, out: int, factor: float | None, corners: bool) -> tuple[Floats, float]:
    """Where the results stand among n elements, and the distance between two of them."""
    i = np.arange(out, dtype=np.float64)
    if corners:
        step = (n - 1) / (out - 1) if out > 1 else 0.0
        return i * step, step
    step = 1.0 / factor if factor is not None else n / out
    return (i + 0.5) * step - 0.5, step


def _nearest(n: int, out: int, factor: float | None, exact: bool) -> Taps:
    """PyTorch takes float32 for these places, whatever the images are of."""
    i = np.arange(out)
    if exact:
        at = (i + 0.5) * np.float64(_step(n, out, factor))
        return picked(np.floor(at.astype(np.float32)), n)
    if out in (n, 2 * n):
        return picked(i // (out // n), n)
    return picked(np.floor(i.astype(np.float32) * _step(n, out, factor)), n)


def _step(n: int, out: int, factor: float | None) -> np.float32:
    return np.float32(n) / np.float32(out) if factor is None else np.float32(1.0 / factor)


def _taps(
    mode: str, n: int, out: int, factor: float | None, corners: bool, antialias: bool
) -> Taps | None:
    """Of one axis; None where it stays as it is."""
    if mode.startswith("nearest"):
        return _nearest(n, out, factor, mode == "nearest-exact")
    if mode == "area":
        return averaged(n, out)
    smooth = mode == "bicubic"
    if n == out and (corners or factor in (None, 1.0) or not (smooth or antialias)):
        return None
    at, step = _places(n, out, factor, corners)
    if antialias:
        # With aligned corners too the first result stands half a step in, as PyTorch has it.
        at = (np.arange(out, dtype=np.float64) + 0.5) * step - 0.5
        kernel = cubic(-0.5) if smooth else triangle
        return around(at, n, kernel, 1 + smooth, 1.0 / max(step, 1.0), exclude=True)
    if smooth:
        return around(at, n, cubic(-0.75), 2)
    return around(np.clip(at, 0.0, n - 1.0), n, triangle, 1)


def interpolate(
    x: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Images in another size, as torch.nn.functional.interpolate.

    Args:
        x: (N, C, *sizes) with 1 to 3 sizes.
        size: of the result, for all axes or each; or
        scale_factor: what sizes are multiplied by, rounded down.
        mode: "nearest", "nearest-exact", "area" (means), "linear" (of one axis), "bilinear" and
            "bicubic" (of two; a = -0.75, and -0.5 with antialias), "trilinear" (of three).
        align_corners: whether the middles of the first and last elements stay in place, not the
            ends of the image; not of nearest and area.
        recompute_scale_factor: take the factor from the rounded sizes, not as given.
        antialias: widen bilinear and bicubic kernels where an image becomes smaller.

    Returns:
        (N, C, *size).

    Raises:
        ArgumentError: options that do not go together, or sizes and factors that are none.
        ShapeError: `x` does not fit the mode, or the result is more than any memory holds.
    """
    (x,) = promote(x)
    wide = truth("interpolate", "antialias", antialias)
    corners = truth("interpolate", "align_corners", align_corners)
    again = truth("interpolate", "recompute_scale_factor", recompute_scale_factor)
    _checked(x, mode, align_corners, wide)
    axes = len(x.shape) - 2
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate: give one of size and scale_factor.")
    if size is not None and again:
        raise ArgumentError("interpolate: recompute_scale_factor is for a scale_factor alone.")
    factors: tuple[float | None, ...] = (None,) * axes
    if size is not None:
        sizes = _sizes(size, axes)
    else:
        given = _factors(scale_factor, axes)
        sizes = tuple(
            math.floor(min(n * f, 2.0**62)) for n, f in zip(x.shape[2:], given, strict=True)
        )
        factors = factors if again or mode == "area" else given
        if any(n < 1 for n in sizes):
            raise DataError(f"interpolate: scale_factor {given} leaves nothing of {describe(x)}.")
    require_possible("interpolate", (*x.shape[:2], *sizes), x.dtype)
    for axis, (out, factor) in enumerate(zip(sizes, factors, strict=True), 2):
        taps = _taps(mode, x.shape[axis], out, factor, corners, wide)
        x = x if taps is None else along(x, axis, taps)
    return x


def upsample(
    x: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:
    """`interpolate` under its older name."""
    return interpolate(x, size, scale_factor, mode, align_corners)


def upsample_nearest(
    x: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Any:
    """`interpolate` in the mode "nearest"."""
    return interpolate(x, size, scale_factor, "nearest")


def upsample_bilinear(
    x: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Any:
    """`interpolate` in the mode "bilinear" with aligned corners."""
    return interpolate(x, size, scale_factor, "bilinear", align_corners=True)
