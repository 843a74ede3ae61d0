"""Pools whose windows begin at random places: their elements are gathered, and then pooled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.arguments import shown, truth
from gpubp.core import Shape, bind, describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.elementwise import add, multiply, subtract
from gpubp.ops.index import concat, gather
from gpubp.ops.logic import astype
from gpubp.ops.pool import MAX_POOL, MAX_POOL_INDICES
from gpubp.ops.pool_adaptive import side_by_side
from gpubp.ops.random import Generator, uniform
from gpubp.ops.shape import broadcast_to, reshape
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spatial import batched, channels_first, channels_last, each_axis, unbatched
from gpubp.ops.spec import beside, promote


def fractional_sizes(
    op: str, axes: int, sizes: Shape | None, output_size: Any, output_ratio: Any
) -> Shape:
    """The result's sizes, from one of the two arguments; without `sizes` they are only checked.

    Raises:
        ArgumentError: there is neither or there are both, or a number that cannot be.
    """
    if (output_size is None) == (output_ratio is None):
        raise ArgumentError(f"{op}: expected either output_size or output_ratio.")
    if output_size is not None:
        return each_axis(op, "output_size", output_size, axes)
    ratios = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * axes
    numbers = all(isinstance(r, (int, float)) for r in ratios)
    if not numbers or len(ratios) != axes or not all(0 < r < 1 for r in ratios):
        raise ArgumentError(
            f"{op}: output_ratio is {shown(output_ratio)}, expected numbers between 0 and 1."
        )
    if sizes is None:
        return ()
    return tuple(int(n * r) for n, r in zip(sizes, ratios, strict=True))


def _drawn(sample: Any, size: int, count: int, kernel: int) -> Any:
    """Elements of `count` windows that begin at fractions of an axis: (N, C, count kernel) int64.

    Graham, "Fractional Max-Pooling" (2014, arXiv:1412.6071): a sample in [0, 1) shifts a regular
    grid, which is rounded down; the last window ends with the axis.
    """
    lead = tuple(sample.shape)
    taps = np.tile(np.arange(kernel), count)
    last = np.repeat(np.arange(count) == count - 1, kernel)
    final = broadcast_to(beside(size - kernel + taps[last], sample), (*lead, kernel))
    if count == 1:
        return final
    alpha = (size - kernel) / (count - 1)
    grid = beside(np.repeat(np.arange(count - 1), kernel).astype(sample.dtype), sample)
    each = reshape(sample, (*lead, 1))
    from_zero = [astype(multiply(at, alpha), "int64") for at in (add(grid, each), each)]
    begin = subtract(*from_zero)
    return concat([add(begin, beside(taps[~last], sample)), final], len(lead))


def _fractional(
    op: str,
    axes: int,
    x: Any,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    return_indices: Any,
    samples: Any,
    generator: Generator | None,
) -> Any:
    (x,) = promote(x, floating=True)
    both = truth(op, "return_indices", return_indices)
    x, added = batched(op, x, axes)
    lead, sizes = tuple(x.shape[:2]), tuple(x.shape[2:])
    kernel = each_axis(op, "kernel_size", kernel_size, axes)
    counts = fractional_sizes(op, axes, sizes, output_size, output_ratio)
    if any(c < 1 or c + k - 1 > n for c, k, n in zip(counts, kernel, sizes, strict=True)):
        raise ShapeError(f"{op}: {counts} windows of {kernel} do not fit into {describe(x)}.")
    if samples is None:
        samples = beside(uniform((*lead, axes), x.dtype, generator), x)
    (samples,) = promote(samples)
    shape = tuple(samples.shape)
    if shape[1:] != (*lead[1:], axes) or shape[0] < lead[0] or samples.dtype.kind != "f":
        raise ShapeError(
            f"{op}: expected _random_samples {(*lead, axes)}, got {describe(samples)}."
        )
    place: Any = beside(np.zeros((1,) * (axes + 2), np.int64), x)
    for axis, (n, c, k) in enumerate(zip(sizes, counts, kernel, strict=True)):
        # In two dimensions the first sample is that of W, in three that of D.
        which = axes - 1 - axis if axes == 2 else axis
        key = [slice(0, m) for m in lead] + [slice(which, which + 1)]
        drawn = _drawn(reshape(strided_slice(samples, key), lead), n, c, k)
        shape = (*lead, *[1] * axis, c * k, *[1] * (axes - 1 - axis))
        place = add(multiply(place, n), reshape(drawn, shape))
    return _taken(x, place, kernel, both, added)


def _taken(x: Any, place: Any, kernel: Shape, both: bool, added: bool) -> Any:
    """The largest of windows whose elements' flat places are given, (N, C, *side by side)."""
    lead, size = tuple(x.shape[:2]), math.prod(x.shape[2:])
    first = np.arange(math.prod(lead), dtype=np.int64).reshape(*lead, *[1] * len(kernel))
    everywhere = add(place, beside(first * size, x))
    images = channels_last(gather(reshape(x, (-1,)), everywhere))
    window = side_by_side(kernel)
    y = unbatched(channels_first(bind(MAX_POOL, images, **window)), added)
    if not both:
        return y
    best = channels_first(bind(MAX_POOL_INDICES, images, **window))
    each = math.prod(place.shape[2:])
    found = gather(reshape(place, (-1,)), add(best, beside(first * each, x)))
    return y, unbatched(found, added)


def fractional_max_pool2d(
    x: Any,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Any = None,
    generator: Generator | None = None,
) -> Any:
    """The largest of windows that begin at random places (Graham, 2014, arXiv:1412.6071).

    Args:
        x: (N, C, H, W) or (C, H, W).
        kernel_size: of a window; one number or one an axis.
        output_size: how many windows; one number or one an axis.
        output_ratio: or which part of the input's sizes, between 0 and 1.
        return_indices: also return where each one stands, as a flat index into (H, W), int64.
        _random_samples: (N, C, 2), numbers in [0, 1) that decide where windows begin; None: drawn.
        generator: of the draw; default is the one that `manual_seed` seeds.

    Raises:
        ShapeError: so many windows do not fit.
        ArgumentError: neither or both of size and ratio, or a number that cannot be.
    """
    given = kernel_size, output_size, output_ratio, return_indices, _random_samples, generator
    return _fractional("fractional_max_pool2d", 2, x, *given)


def fractional_max_pool3d(
    x: Any,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Any = None,
    generator: Generator | None = None,
) -> Any:
    """The largest of windows at random places; see `fractional_max_pool2d`. x (N, C, D, H, W)."""
    given = kernel_size, output_size, output_ratio, return_indices, _random_samples, generator
    return _fractional("fractional_max_pool3d", 3, x, *given)
