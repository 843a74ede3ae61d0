"""Images sampled by a grid of places, and grids made of affine maps.

Jaderberg et al., "Spatial transformer networks" (2015, arXiv:1506.02025). Definitions, gradients at
borders and reflections included, are those of torch.nn.functional.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import one_of, shown, truth
from gpubp.core import Shape, describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import abs, floor, multiply
from gpubp.ops.getitem import getitem
from gpubp.ops.linalg import matmul
from gpubp.ops.logic import equal, greater, less, logical_and, logical_or, where
from gpubp.ops.sample import Tap, linear_taps, weighted, within
from gpubp.ops.shape import reshape, stop_gradient, swapaxes
from gpubp.ops.spatial import channels_first, channels_last
from gpubp.ops.spec import promote, require_possible

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def _limited(at: Any, size: int) -> Any:
    """Places limited to the first and last; beyond them and at them the gradient is 0."""
    free = logical_and(greater(at, 0.0), less(at, size - 1.0))
    ends = where(greater(at, 0.0), size - 1.0, 0.0)
    return where(free, at, ends)


def _reflected(at: Any, size: int, corners: bool) -> Any:
    """Places mirrored at the ends until they are between them."""
    low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    span = high - low
    if span == 0.0:
        return multiply(stop_gradient(at), 0.0)
    away = at - low
    away = where(less(away, 0.0), -away, away)
    times = floor(stop_gradient(away) * (1.0 / span))
    rest = away - times * span
    even = equal(floor(times * 0.5) * 2.0, times)
    return _limited(where(even, rest, span - rest) + low, size)


def _moved(at: Any, size: int, padding: str, corners: bool) -> Any:
    """Places as `padding_mode` wants them."""
    if padding == "border":
        return _limited(at, size)
    return _reflected(at, size, corners) if padding == "reflection" else at


def _placed(grid: Any, size: int, corners: bool) -> Any:
    """From -1 ... 1 to elements: 0 is the middle of the first."""
    if corners:
        return (grid + 1.0) * (0.5 * (size - 1))
    return ((grid + 1.0) * float(size) - 1.0) * 0.5


def _rounded(at: Any) -> Any:
    """The nearest whole number, the even one of two."""
    at = stop_gradient(at)
    low = floor(at)
    part = at - low
    odd = greater(abs(low - floor(low * 0.5) * 2.0), 0.5)
    up = logical_or(greater(part, 0.5), logical_and(equal(part, 0.5), odd))
    return where(up, low + 1.0, low)


def _nearest(at: Any, size: int, padding: str, corners: bool) -> list[Tap]:
    place = _rounded(_moved(at, size, padding, corners))
    return [within(place, place * 0.0 + 1.0, size)]


def _linear(at: Any, size: int, padding: str, corners: bool) -> list[Tap]:
    return linear_taps(_moved(at, size, padding, corners), size)


def _cubic(at: Any, size: int, padding: str, corners: bool) -> list[Tap]:
    """Keys' kernel with a = -0.75; each tap is moved by itself."""
    low = floor(at)
    part = at - low
    a = -0.75
    taps = []
    for offset in (-1, 0, 1, 2):
        t = part - float(offset) if offset < 1 else float(offset) - part
        if offset in (0, 1):
            weight = ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0
        else:
            weight = ((t - 5.0) * t + 8.0) * t * a - 4.0 * a
        place = _moved(stop_gradient(low) + float(offset), size, padding, corners)
        taps.append(within(place, weight, size))
    return taps


_TAPS: dict[str, Callable[[Any, int, str, bool], list[Tap]]] = {
    "bilinear": _linear,
    "nearest": _nearest,
    "bicubic": _cubic,
}


def _checked(x: Any, grid: Any, mode: str, padding_mode: str) -> None:
    one_of("grid_sample", "mode", mode, _MODES)
    one_of("grid_sample", "padding_mode", padding_mode, _PADDINGS)
    axes = len(x.shape) - 2
    fits = (
        axes in (2, 3)
        and len(grid.shape) == axes + 2
        and grid.shape[0] == x.shape[0]
        and grid.shape[-1] == axes
        and all(n > 0 for n in x.shape[2:])
    )
    if not fits:
        raise ShapeError(
            "grid_sample: expected x (N, C, H, W) and grid (N, H', W', 2), or x (N, C, D, H, W) "
            f"and grid (N, D', H', W', 3), got {describe(x)} and {describe(grid)}."
        )
    if mode == "bicubic" and axes != 2:
        raise ShapeError(f"grid_sample: bicubic is for two axes, got {describe(x)}.")


def grid_sample(
    x: Any,
    grid: Any,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Any:
    """Images at the places of a grid, as torch.nn.functional.grid_sample.

    Args:
        x: (N, C, H, W) or (N, C, D, H, W).
        grid: (N, H', W', 2) or (N, D', H', W', 3): places from -1 to 1 from end to end, of the last
            axis first.
        mode: "bilinear" (of three axes: trilinear), "nearest" (of two, the even one; no gradient by
            the grid), or "bicubic" (of two axes).
        padding_mode: what stands outside: "zeros", "border" (the nearest element) or "reflection".
        align_corners: whether -1 and 1 are the middles of the first and last elements, not the ends
            of the image. Default False.

    Returns:
        (N, C, H', W') or (N, C, D', H', W').

    Raises:
        ArgumentError: another mode, or align_corners is neither True nor False.
        ShapeError: shapes do not fit.
    """
    x, grid = promote(x, grid, floating=True)
    _checked(x, grid, mode, padding_mode)
    corners = truth("grid_sample", "align_corners", align_corners)
    n, c, *sizes = x.shape
    axes = []
    for i, size in enumerate(sizes):
        part = getitem(grid, (..., len(sizes) - 1 - i))
        at = _placed(part, size, corners)
        axes.append(_TAPS[mode](at, size, padding_mode, corners))
    strides = [int(np.prod(sizes[i + 1 :], dtype=np.int64)) for i in range(len(sizes))]
    count = strides[0] * sizes[0]
    rows = reshape(channels_last(x), (n * count, c))
    first = np.arange(n, dtype=np.int64).reshape(n, *[1] * len(sizes)) * count
    return channels_first(weighted(rows, constant(first, x), axes, strides))


def _base(size: int, corners: bool) -> Any:
    """Places of the elements of an axis, from -1 to 1."""
    if size == 1:
        return np.zeros(1)
    ends = np.linspace(-1.0, 1.0, size)
    return ends if corners else ends * ((size - 1) / size)


def _grid_size(size: Sequence[int], theta: Any) -> Shape:
    try:
        found = tuple(operator.index(n) for n in size)
    except TypeError:
        found = ()
    axes = len(found) - 2
    if axes not in (2, 3) or any(n < 1 for n in found):
        raise ArgumentError(
            f"affine_grid: size is {shown(size)}, expected (N, C, H, W) or (N, C, D, H, W), each "
            "at least 1."
        )
    if tuple(theta.shape) != (found[0], axes, axes + 1):
        raise ShapeError(
            f"affine_grid: expected theta ({found[0]}, {axes}, {axes + 1}) for images of {found}, "
            f"got {describe(theta)}."
        )
    return found


def affine_grid(theta: Any, size: Sequence[int], align_corners: bool | None = None) -> Any:
    """The places that affine maps send the elements of images to, for `grid_sample`.

    Args:
        theta: (N, 2, 3) or (N, 3, 4), by places (x, y, 1) or (x, y, z, 1).
        size: of the images that the grid is for, (N, C, H, W) or (N, C, D, H, W).
        align_corners: as for `grid_sample`.

    Returns:
        (N, H, W, 2) or (N, D, H, W, 3).

    Raises:
        ArgumentError: `size` is none.
        ShapeError: `theta` does not fit it, or it is more than any memory holds.
    """
    (theta,) = promote(theta, floating=True)
    n, _, *sizes = _grid_size(size, theta)
    corners = truth("affine_grid", "align_corners", align_corners)
    require_possible("affine_grid", (n, *sizes, len(sizes) + 1), np.float64)
    ends = [_base(m, corners) for m in sizes]
    places = np.meshgrid(*ends, indexing="ij")
    base = np.stack([*places[::-1], np.ones(sizes)], -1).reshape(-1, len(sizes) + 1)
    grid = matmul(constant(base.astype(theta.dtype), theta), swapaxes(theta, 1, 2))
    return reshape(grid, (n, *sizes, len(sizes)))
