"""Pools by the size of their result, whose windows share each axis evenly.

Windows that are equally long and far apart are those of `pooling`. Others are put side by side
first, an axis at a time, and pooled then. (A product with a constant matrix would bring NaN and
infinity into windows that do not hold them.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import shown, truth
from gpubp.core import Shape, bind, describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import divide
from gpubp.ops.index import gather
from gpubp.ops.logic import where
from gpubp.ops.pool import MAX_POOL, MAX_POOL_INDICES
from gpubp.ops.pooling import Window, averaged
from gpubp.ops.reduce import mean, sum
from gpubp.ops.shape import reshape
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spatial import batched, channels_first, channels_last, each_axis, unbatched
from gpubp.ops.spec import beside, promote, require_possible


def _targets(op: str, output_size: Any, sizes: Shape) -> Shape:
    """The result's sizes; None stands for the input's."""
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * len(sizes)
    if len(given) != len(sizes):
        raise ArgumentError(
            f"{op}: output_size is {shown(output_size)}, expected a whole number, or one for each "
            f"of {len(sizes)} axes."
        )
    filled = tuple(n if g is None else g for g, n in zip(given, sizes, strict=True))
    return each_axis(op, "output_size", filled, len(sizes), least=0)


def _spans(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Window i covers floor(i size / count) to ceil((i + 1) size / count)."""
    i = np.arange(count)
    return i * size // count, -(-(i + 1) * size // count)


def side_by_side(kernel: Shape) -> Window:
    """Windows side by side."""
    axes = len(kernel)
    return {
        "kernel": kernel,
        "stride": kernel,
        "padding": ((0, 0),) * axes,
        "dilation": (1,) * axes,
    }


def _whole(op: str, axes: int, x: Any, output_size: Any, floating: bool) -> tuple[Any, bool, Shape]:
    (x,) = promote(x, floating=floating)
    x, added = batched(op, x, axes)
    sizes = tuple(x.shape[2:])
    if 0 in sizes:
        raise ShapeError(f"{op}: there is nothing to pool in {describe(x)}.")
    wanted = _targets(op, output_size, sizes)
    require_possible(op, (*x.shape[:2], *wanted), x.dtype)
    return x, added, wanted


def _averaged(op: str, axes: int, x: Any, output_size: Any) -> Any:
    x, added, wanted = _whole(op, axes, x, output_size, floating=True)
    sizes = tuple(x.shape[2:])
    if 0 in wanted:
        y = reshape(strided_slice(x, [slice(0, 0)] * (axes + 2)), (*x.shape[:2], *wanted))
    elif set(wanted) == {1}:
        y = mean(x, tuple(range(2, axes + 2)), keepdims=True)
    elif all(n % w == 0 for n, w in zip(sizes, wanted, strict=True)):
        window = side_by_side(tuple(n // w for n, w in zip(sizes, wanted, strict=True)))
        y = channels_first(averaged(channels_last(x), window, window["padding"]))
    else:
        y = x
        for axis, (n, w) in enumerate(zip(sizes, wanted, strict=True)):
            if n != w:
                y = _axis_averaged(y, axis + 2, n, w)
    return unbatched(y, added)


def _axis_averaged(x: Any, axis: int, size: int, count: int) -> Any:
    """The averages of `count` spans along one axis."""
    require_possible("adaptive_avg_pool", (size, count), x.dtype)
    first, stop = _spans(size, count)
    lengths = (stop - first)[:, None]
    turn = np.arange(lengths.max())
    # A shorter one has its last element again, which does not count.
    places = np.minimum(first[:, None] + turn, stop[:, None] - 1)
    wide = gather(x, constant(places.ravel(), x), axis)
    wide = reshape(wide, (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))
    rest = (1,) * (len(x.shape) - 1 - axis)
    if (lengths < len(turn)).any():
        counts = constant((turn < lengths).reshape(*places.shape, *rest), x)
        wide = where(counts, wide, 0.0)
    divisors = constant(lengths.reshape(count, *rest).astype(x.dtype), x)
    return divide(sum(wide, axis + 1), divisors)


def _largest(op: str, axes: int, x: Any, output_size: Any, return_indices: Any) -> Any:
    x, added, wanted = _whole(op, axes, x, output_size, floating=False)
    both = truth(op, "return_indices", return_indices)
    sizes = tuple(x.shape[2:])
    if 0 in wanted:
        raise ShapeError(f"{op}: output_size {wanted} leaves nothing.")
    images, kernel = channels_last(x), []
    table: Any = np.int64(0)
    for axis, (n, count) in enumerate(zip(sizes, wanted, strict=True)):
        first, stop = _spans(n, count)
        longest = int((stop - first).max())
        # A shorter one has its last element again, which never wins against itself.
        places = np.minimum(first[:, None] + np.arange(longest), stop[:, None] - 1).ravel()
        if n % count:
            images = gather(images, beside(places, x), axis + 1)
        kernel.append(longest)
        table = table * n + places.reshape(-1, *[1] * (axes - 1 - axis))
    window = side_by_side(tuple(kernel))
    y = unbatched(channels_first(bind(MAX_POOL, images, **window)), added)
    if not both:
        return y
    best = bind(MAX_POOL_INDICES, images, **window)
    if any(n % w for n, w in zip(sizes, wanted, strict=True)):
        best = gather(beside(table.ravel(), x), best)
    return y, unbatched(channels_first(best), added)


def adaptive_avg_pool1d(x: Any, output_size: Any) -> Any:
    """Averages of as many windows as asked for; see `adaptive_avg_pool2d`. x (N, C, W)."""
    return _averaged("adaptive_avg_pool1d", 1, x, output_size)


def adaptive_avg_pool2d(x: Any, output_size: Any) -> Any:
    """Averages of windows that share each axis evenly, and overlap where they cannot.

    Window i of n along an axis of size s covers floor(i s / n) to ceil((i + 1) s / n).

    Args:
        x: (N, C, H, W) or (C, H, W).
        output_size: of the result; one number or one an axis, None: as x.

    Raises:
        ShapeError: another number of dimensions, x holds nothing, or the result is more than any
            memory holds.
        ArgumentError: a number that cannot be.
    """
    return _averaged("adaptive_avg_pool2d", 2, x, output_size)


def adaptive_avg_pool3d(x: Any, output_size: Any) -> Any:
    """Averages of as many windows as asked for; see `adaptive_avg_pool2d`. x (N, C, D, H, W)."""
    return _averaged("adaptive_avg_pool3d", 3, x, output_size)


def adaptive_max_pool1d(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest of as many windows as asked for; see `adaptive_max_pool2d`. x (N, C, W)."""
    return _largest("adaptive_max_pool1d", 1, x, output_size, return_indices)


def adaptive_max_pool2d(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest of each of the windows of `adaptive_avg_pool2d`.

    Args:
        x: (N, C, H, W) or (C, H, W), of any numbers.
        output_size: of the result; one number or one an axis, None: as x.
        return_indices: also return where each one stands, as a flat index into (H, W), int64.

    Raises:
        ShapeError: another number of dimensions, there is nothing to pool, or the result is more
            than any memory holds.
        ArgumentError: a number that cannot be.
    """
    return _largest("adaptive_max_pool2d", 2, x, output_size, return_indices)


def adaptive_max_pool3d(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest of as many windows as asked for; see `adaptive_max_pool2d`. x (N, C, D, H, W)."""
    return _largest("adaptive_max_pool3d", 3, x, output_size, return_indices)
