"""Resampling along one axis: each result is a weighted sum of a few elements, its taps.

Where all have one tap, they are gathered. Else the axis is multiplied by a constant matrix, made in
float64 (so what is not finite spreads along its axis: 0 times infinity is NaN); where the axis is
much longer than the taps are many, taps are gathered and added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.core import describe
from gpubp.errors import DTypeError
from gpubp.ops.constant import constant
from gpubp.ops.index import gather
from gpubp.ops.linalg import matmul
from gpubp.ops.shape import reshape, transpose

Floats = NDArray[np.float64]
Kernel = Callable[[Floats], Floats]
# A matrix costs a multiply-add for each element of the axis, a tap a pass over memory.
_MATRIX = 32


class Taps(NamedTuple):
    """result[i] = the sum over t of weights[i, t] * x[indices[i, t]].

    Attributes:
        indices: (out, T), in range.
        weights: (out, T).
    """

    indices: NDArray[np.int64]
    weights: Floats

    @property
    def plain(self) -> bool:
        """Each result is one element as it is."""
        return self.indices.shape[1] == 1 and bool((self.weights == 1.0).all())

    def matrix(self, size: int) -> Floats:
        """(out, size): the result as a product with an axis of `size` elements."""
        found = np.zeros((self.indices.shape[0], size))
        rows = np.broadcast_to(np.arange(len(found))[:, None], self.indices.shape)
        np.add.at(found, (rows, self.indices), self.weights)
        return found


def picked(indices: Any, size: int) -> Taps:
    """One element each; indices beyond the ends become those of the ends."""
    at = np.clip(np.asarray(indices, np.int64), 0, size - 1)[:, None]
    return Taps(at, np.ones(at.shape))


def triangle(t: Floats) -> Floats:
    """1 - |t|, not below 0: linear interpolation."""
    return np.maximum(1.0 - np.abs(t), 0.0)


def cubic(a: float) -> Kernel:
    """The cubic kernel of slope `a` at 1.

    R. Keys, "Cubic convolution interpolation for digital image processing" (1981).
    """

    def kernel(t: Floats) -> Floats:
        t = np.abs(t)
        near = ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0
        far = ((t - 5.0) * t + 8.0) * t * a - 4.0 * a
        return np.where(t <= 1.0, near, np.where(t < 2.0, far, 0.0))

    return kernel


def around(
    at: Floats,
    size: int,
    kernel: Kernel,
    radius: int,
    squeeze: float = 1.0,
    exclude: bool = False,
) -> Taps:
    """Weights of a kernel around each place.

    Args:
        at: (out,), places in units of elements: 0 is the middle of the first.
        size: of the axis.
        kernel: 0 from `radius` on.
        radius: of the kernel.
        squeeze: at most 1: the kernel is wider by its inverse, against aliases.
        exclude: leave elements out that are none; else those of the ends stand for them.
    """
    reach = math.ceil(radius / squeeze)
    indices = np.floor(at).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    weights = kernel((indices - at[:, None]) * squeeze)
    if squeeze < 1.0:
        weights = weights / weights.sum(1, keepdims=True)
    if exclude:
        weights = np.where((indices < 0) | (indices >= size), 0.0, weights)
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0.0, 1.0, total)
    return Taps(np.clip(indices, 0, size - 1), weights)


def averaged(size: int, out: int) -> Taps:
    """Means over the parts of an axis that each of `out` results covers, as adaptive pools take."""
    i = np.arange(out)
    first, stop = i * size // out, -((i + 1) * size // -out)
    at = first[:, None] + np.arange(int((stop - first).max(initial=1)))
    inside = at < stop[:, None]
    weights = inside / (stop - first)[:, None]
    return Taps(np.minimum(at, size - 1), weights)


def along(x: Any, axis: int, taps: Taps) -> Any:
    """`x` resampled along one axis.

    Raises:
        DTypeError: weights, and `x` is not of floats.
    """
    if taps.plain:
        return gather(x, constant(taps.indices[:, 0], x), axis)
    if x.dtype.kind != "f":
        raise DTypeError(f"resampling needs floats, got {describe(x)}. Use gp.ops.astype first.")
    if x.shape[axis] > _MATRIX * taps.indices.shape[1]:
        return _added(x, axis, taps)
    return _multiplied(x, axis, taps.matrix(x.shape[axis]).astype(x.dtype))


def _added(x: Any, axis: int, taps: Taps) -> Any:
    wide = (-1, *[1] * (len(x.shape) - 1 - axis))
    total = None
    for indices, weights in zip(taps.indices.T, taps.weights.T, strict=True):
        weight = constant(weights.astype(x.dtype).reshape(wide), x)
        term = gather(x, constant(indices, x), axis) * weight
        total = term if total is None else total + term
    return total


def _multiplied(x: Any, axis: int, matrix: Any) -> Any:
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    n, out = x.shape[axis], len(matrix)
    if math.prod(after) == 1:
        rows = reshape(x, (math.prod(before), n))
        return reshape(matmul(rows, transpose(constant(matrix, x))), (*before, out, *after))
    blocks = reshape(x, (math.prod(before), n, math.prod(after)))
    return reshape(matmul(constant(matrix, x), blocks), (*before, out, *after))
