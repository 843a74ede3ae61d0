"""Padding: numbers around an array, or fewer of it, by slices, zeros around and constant indices.

Circular padding takes its numbers from what negative padding leaves; the other modes take theirs
from the whole axis, as PyTorch does.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import is_number, one_of, shown
from gpubp.core import bind, describe
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.ops.constant import constant
from gpubp.ops.index import gather
from gpubp.ops.logic import where
from gpubp.ops.slicing import UNSLICE, strided_slice
from gpubp.ops.spec import normalized_axis, promote, require_possible

Sides = tuple[int, int]
MODES = ("constant", "reflect", "replicate", "circular")


def _reflected(n: int, low: int, high: int) -> NDArray[np.int64]:
    """... 2 1 | 0 1 2 ... n-1 | n-2 n-3 ...: the ends stand once."""
    if max(low, high) >= n:
        raise ShapeError(
            f"pad: reflect padding ({low}, {high}) must be smaller than the axis of size {n}."
        )
    at = np.abs(np.arange(-low, n + high))
    return np.where(at < n, at, 2 * (n - 1) - at)


def _repeated(n: int, low: int, high: int) -> NDArray[np.int64]:
    """... 0 0 | 0 1 2 ... n-1 | n-1 n-1 ...."""
    if n == 0:
        raise ShapeError("pad: an axis without elements has none to repeat.")
    return np.clip(np.arange(-low, n + high), 0, n - 1)


def _wrapped(n: int, low: int, high: int) -> NDArray[np.int64]:
    """... n-2 n-1 | 0 1 2 ... n-1 | 0 1 ...."""
    first, left = max(-low, 0), n + min(low, 0) + min(high, 0)
    if max(low, high) > left:
        raise ShapeError(
            f"pad: circular padding ({low}, {high}) wraps around an axis of size {n} more than "
            "once."
        )
    return np.asarray(first + np.arange(-max(low, 0), left + max(high, 0)) % max(left, 1))


_INDICES: dict[str, Callable[[int, int, int], NDArray[np.int64]]] = {
    "reflect": _reflected,
    "replicate": _repeated,
    "circular": _wrapped,
}


def padded(x: Any, sides: Mapping[int, Sides], mode: str = "constant", value: Any = 0) -> Any:
    """`x` with (before, after) more elements along each of some axes, fewer where negative.

    Args:
        x: any shape and dtype.
        sides: by axis, counted from 0.
        mode: "constant", "reflect", "replicate" or "circular".
        value: that "constant" puts there.

    Raises:
        ArgumentError: another mode.
        ShapeError: nothing is left of an axis, or there is too little to take the padding from.
    """
    one_of("pad", "mode", mode, MODES)
    (x,) = promote(x)
    used = {a: (low, high) for a, (low, high) in sides.items() if low or high}
    for axis, (low, high) in used.items():
        taken = max(-low, 0) + max(-high, 0) if mode == "constant" else -low - high
        if taken > x.shape[axis]:
            raise ShapeError(
                f"pad: padding ({low}, {high}) takes more than axis {axis} of {describe(x)} has."
            )
    wide = [n + sum(max(s, 0) for s in used.get(a, ())) for a, n in enumerate(x.shape)]
    require_possible("pad", wide, x.dtype)
    if mode == "constant":
        return _with_constants(x, used, value)
    for axis, (low, high) in sorted(used.items()):
        x = _indexed(x, axis, _INDICES[mode](x.shape[axis], low, high))
    return x


def _indexed(x: Any, axis: int, at: NDArray[np.int64]) -> Any:
    """`x` at constant indices, as a slice where they are one."""
    n = x.shape[axis]
    first, count = int(at[0]) if at.size else 0, at.size
    if 0 <= first <= n - count and np.array_equal(at, np.arange(first, first + count)):
        key = [slice(None)] * len(x.shape)
        key[axis] = slice(first, first + count)
        return strided_slice(x, key)
    if at.min() < 0 or at.max() >= n:
        raise ShapeError(f"pad: no element of {describe(x)} is there to be repeated.")
    return gather(x, constant(at, x), axis)


def _with_constants(x: Any, sides: Mapping[int, Sides], value: Any) -> Any:
    key = [slice(None)] * len(x.shape)
    for axis, (low, high) in sides.items():
        key[axis] = slice(max(-low, 0), x.shape[axis] + min(high, 0))
    x = strided_slice(x, key)
    starts = [0] * len(x.shape)
    shape = list(x.shape)
    for axis, (low, high) in sides.items():
        starts[axis] = max(low, 0)
        shape[axis] += max(low, 0) + max(high, 0)
    if tuple(shape) == x.shape:
        return x
    wide = bind(UNSLICE, x, shape=tuple(shape), starts=tuple(starts), steps=(1,) * len(shape))
    found = _number(value, x.dtype)
    if found == 0 and not np.signbit(float(found)):
        return wide
    other = float(value) if x.dtype.kind == "f" else constant(found, x)
    return where(_inside(x, starts, shape), wide, other)


def _number(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A number in the dtype of what it stands beside; fractions are cut off, as in PyTorch."""
    if not is_number(value):
        raise ArgumentError(f"pad: value is {shown(value)}, expected a number.")
    if dtype.kind == "i" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise DataError(f"pad: value {shown(value)} does not fit into {dtype}.")
    if dtype.kind == "f" and isinstance(value, int) and abs(value) > sys.float_info.max:
        raise DataError(f"pad: value {shown(value)} does not fit into {dtype}.")
    return np.asarray(value).astype(dtype)


def _inside(x: Any, starts: Sequence[int], shape: Sequence[int]) -> Any:
    """Where the elements of `x` stand, with 1 for every axis that is not padded."""
    sizes = [1 if n == m else m for n, m in zip(x.shape, shape, strict=True)]
    mask = np.zeros(sizes, bool)
    mask[tuple(slice(s, s + min(n, m)) for s, n, m in zip(starts, x.shape, sizes, strict=True))] = (
        True
    )
    return constant(mask, x)


def whole_numbers(op: str, name: str, values: Any) -> list[int]:
    """A list of them; ArgumentError unless `values` is a sequence of whole numbers."""
    try:
        return [operator.index(v) for v in values]
    except TypeError:
        raise ArgumentError(
            f"{op}: {name} is {shown(values)}, expected a sequence of whole numbers."
        ) from None


def sides_of(x: Any, pad: Any, mode: str) -> dict[int, Sides]:
    """PyTorch's padding, (before, after) from the last axis on, by axis.

    Raises:
        ArgumentError: it is no such sequence, or one of another length than `mode` takes.
        ShapeError: `x` has fewer axes, or another number of them than `mode` takes.
    """
    sizes = whole_numbers("pad", "pad", pad)
    axes, odd = divmod(len(sizes), 2)
    ndim = len(x.shape)
    if odd or axes > ndim:
        raise ArgumentError(
            f"pad: pad has {len(sizes)} numbers, expected two for each padded axis of "
            f"{describe(x)}, the last axis first."
        )
    if mode != "constant" and (axes > 3 or ndim not in (axes + 1, axes + 2)):
        raise ShapeError(
            f"pad: {shown(mode)} pads the last 1, 2 or 3 axes of (N, C, ...) or (C, ...), got "
            f"{axes} axes of {describe(x)}."
        )
    return {ndim - 1 - i: (sizes[2 * i], sizes[2 * i + 1]) for i in range(axes)}


def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    """`x` padded along its last axes, as torch.nn.functional.pad.

    Args:
        x: any shape; for the other modes than "constant" (N, C, *sizes) or (C, *sizes) with as many
            sizes as are padded, three at most.
        pad: (before, after) of the last axis, then of the one before, and so on. Negative numbers
            take elements away.
        mode: "constant", "reflect" (the ends stand once), "replicate" or "circular".
        value: that "constant" puts there; default 0.

    Raises:
        ArgumentError: another mode, no sequence of whole numbers, or a value in another mode.
        ShapeError: reflect padding as large as its axis, circular padding larger than its axis,
            more taken away than there is, or more put there than any memory holds.
    """
    (x,) = promote(x)
    one_of("pad", "mode", mode, MODES)
    if mode != "constant" and value is not None and not (is_number(value) and value == 0):
        raise DataError(f"pad: mode {mode!r} takes no value, got {shown(value)}.")
    return padded(x, sides_of(x, pad, mode), mode, 0 if value is None else value)


def center_crop_pad(x: Any, shape: Sequence[int], axes: Sequence[int] | None = None) -> Any:
    """`x` cropped or padded with zeros around its middle to `shape`, as ONNX's CenterCropPad.

    Where the difference is odd, one more is cropped or padded after than before.

    Args:
        x: any shape.
        shape: the sizes of `axes` in the result.
        axes: which; default all.

    Raises:
        ArgumentError: sizes that are no whole numbers of at least 0, or not one for each axis.
        ShapeError: an axis is out of range.
    """
    (x,) = promote(x)
    sizes = whole_numbers("center_crop_pad", "shape", shape)
    ndim = len(x.shape)
    chosen = range(ndim) if axes is None else whole_numbers("center_crop_pad", "axes", axes)
    found = [normalized_axis(a, ndim, "center_crop_pad") for a in chosen]
    if len(found) != len(sizes) or len(set(found)) != len(found) or any(n < 0 for n in sizes):
        raise ArgumentError(
            f"center_crop_pad: shape is {shown(shape)}, expected one size of at least 0 for each "
            f"of {len(found)} different axes."
        )
    sides = {}
    for axis, size in zip(found, sizes, strict=True):
        more = size - x.shape[axis]
        low = more // 2 if more >= 0 else -(-more // 2)
        sides[axis] = (low, more - low)
    return padded(x, sides)
