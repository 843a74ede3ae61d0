"""`x[key]`: slices and reshapes, and elements at arrays of indices, by NumPy's rules."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from gpubp.core import Array, Typed, describe
from gpubp.core.interop import TO_GPU, TO_HOST, on_device
from gpubp.core.store import Slot
from gpubp.errors import DataError, IndexRangeError, ShapeError, TraceError
from gpubp.ops.index import gather
from gpubp.ops.logic import astype
from gpubp.ops.places import at_arrays, mask_places
from gpubp.ops.shape import reshape
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import beside, is_concrete, operand, promote


def getitem(x: Any, key: Any) -> Any:
    """`x[key]` for ints, slices, None, Ellipsis, integer arrays and boolean masks that are known.

    Negative indices count from the end. Several arrays, and ints beside them, broadcast together;
    their axes come first where a slice stands between them, as in NumPy (where PyTorch takes ints
    apart, and so has another order of axes for `x[0, :, [1, 2]]`).

    Raises:
        TraceError: a mask that is traced, as its count is not known; another kind of key.
        IndexRangeError: an index is out of range.
    """
    (x,) = promote(x)
    given = key if isinstance(key, tuple) else (key,)
    if on_device(x) and any(isinstance(k, np.ndarray) and k.ndim for k in given):
        raise DataError(
            "x[key]: an array on a GPU and NumPy indices do not mix. Copy them to the GPU with "
            f"{TO_GPU}, or the array to the host with {TO_HOST}."
        )
    parts = _expanded(_unmasked(given, x), x)
    arrays = [i for i, p in enumerate(parts) if _is_array(p)]
    if not arrays:
        return _sliced(x, parts)
    if len(parts) == 1 or (arrays == [0] and all(p == slice(None) for p in parts[1:])):
        rows = _indices(parts[0], x)
        if not (is_concrete(rows) and (rows < 0).any()):
            return gather(x, rows, axis=0)
    return _at_arrays(x, parts)


def _at_arrays(x: Any, parts: list[Any]) -> Any:
    """Slices first, then the arrays; ints among arrays are arrays of one element."""
    positions = [i for i, p in enumerate(parts) if _is_array(p) or _is_int(p)]
    joined = positions == list(range(positions[0], positions[-1] + 1))
    arrays = [astype(_indices(parts[i], x), "int64") for i in positions]
    kept = [slice(None) if i in positions else p for i, p in enumerate(parts)]
    try:
        np.broadcast_shapes(*[a.shape for a in arrays])
    except ValueError:
        given = ", ".join(map(describe, arrays))
        raise ShapeError(f"x[key]: index arrays {given} do not broadcast together.") from None
    return at_arrays(_sliced(x, kept), positions, arrays, joined)


def _sliced(x: Any, parts: list[Any]) -> Any:
    slices: list[slice] = []
    shape: list[int] = []
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        n = x.shape[len(slices)]
        if isinstance(part, slice):
            shape.append(len(range(*part.indices(n))))
            slices.append(part)
        else:
            slices.append(_one(part, n, len(slices)))
    return reshape(strided_slice(x, slices), tuple(shape))


def _is_array(part: Any) -> bool:
    return isinstance(part, (Array, Slot, np.ndarray, list)) or on_device(part)


def _is_int(part: Any) -> bool:
    return part is not None and not isinstance(part, slice) and not _is_array(part)


def _unmasked(parts: tuple[Any, ...], x: Any) -> tuple[Any, ...]:
    """Lists as arrays, and a mask as one vector of indices for each of its axes."""
    found: list[Any] = []
    at = 0
    for i, part in enumerate(parts):
        part = np.asarray(part) if isinstance(part, list) else part
        if isinstance(part, np.ndarray) and not part.size and part.dtype.kind == "f":
            part = part.astype(np.int64)
        if not _is_array(part) or np.dtype(part.dtype).kind != "b":
            found.append(part)
            at += part is not None and part is not Ellipsis
            continue
        behind_dots = any(p is Ellipsis for p in parts[:i])
        _require_mask(part, x, -1 if behind_dots else at)
        found += mask_places("x[mask]", operand(part) if isinstance(part, np.ndarray) else part)
        at += len(part.shape)
    return tuple(found)


def _require_mask(mask: Any, x: Any, at: int) -> None:
    """Raises ShapeError unless the mask is as long as the axes that it stands on."""
    if not len(mask.shape):
        raise _refused("a boolean without axes")
    if at >= 0 and tuple(x.shape[at : at + len(mask.shape)]) != tuple(mask.shape):
        raise ShapeError(f"x[mask]: the mask {describe(mask)} does not fit {describe(x)}.")


def _indices(key: Any, x: Any) -> Any:
    """An array of indices, where `x` is."""
    if _is_int(key):
        try:
            key = np.asarray(operator.index(key), np.int64)
        except TypeError as err:
            raise _refused(repr(key)) from err
    indices = operand(key)
    if indices.dtype.kind not in "iu":
        raise _refused(f"an array of {indices.dtype}")
    return beside(indices, x) if is_concrete(indices) and not isinstance(key, Slot) else indices


def _one(index: Any, size: int, axis: int) -> slice:
    """The slice that picks one element."""
    if isinstance(index, (bool, np.bool_, tuple)) or getattr(index, "ndim", None):
        raise _refused(f"a {type(index).__name__} among other keys")
    try:
        i = operator.index(index)
    except TypeError as err:
        raise _refused(repr(index)) from err
    if not -size <= i < size:
        raise IndexRangeError(f"index {i} is out of range for axis {axis} of size {size}.")
    return slice(i % size, i % size + 1)


def _expanded(key: tuple[Any, ...], x: Typed) -> list[Any]:
    """The key with its Ellipsis, or its missing end, written as full slices."""
    dots = [i for i, part in enumerate(key) if part is Ellipsis]
    used = sum(part is not None and part is not Ellipsis for part in key)
    missing = len(x.shape) - used
    if missing < 0 or len(dots) > 1:
        raise IndexRangeError(f"too many indices for {describe(x)}: {key!r}.")
    at = dots[0] if dots else len(key)
    return [*key[:at], *[slice(None)] * missing, *key[at + 1 :]]


def _refused(what: str) -> TraceError:
    return TraceError(
        f"indexing by {what} is not supported: use ints, slices, None, Ellipsis, integer arrays, "
        "or a boolean mask that is no traced array; instead of that use gp.ops.where."
    )
