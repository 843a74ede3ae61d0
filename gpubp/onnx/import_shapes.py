"""ONNX's operators of shapes and parts in gpubp's ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.onnx.import_common import dtype_name, ints


def reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
    wanted = [x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(ints(shape))]
    return ops.reshape(x, tuple(wanted))


def expand(x: Any, shape: Any) -> Any:
    return ops.broadcast_to(x, np.broadcast_shapes(x.shape, ints(shape)))


def squeeze(x: Any, given: Any = None, *, axes: Any = None) -> Any:
    chosen = given if given is not None else axes
    return ops.squeeze(x, None if chosen is None else ints(chosen))


def unsqueeze(x: Any, given: Any = None, *, axes: Any = None) -> Any:
    return ops.expand_dims(x, ints(given if given is not None else axes))


def sliced(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    key: list[Any] = [slice(None)] * x.ndim
    chosen = range(len(starts)) if axes is None else ints(axes)
    by = [1] * len(starts) if steps is None else ints(steps)
    for a, start, end, step in zip(chosen, ints(starts), ints(ends), by, strict=True):
        before_first = step < 0 and end < -x.shape[a]
        key[a] = slice(start, None if before_first else end, step)
    return ops.getitem(x, tuple(key))


def split(
    x: Any, sizes: Any = None, *, axis: int = 0, split: Any = None, outputs: int = 1, **_: Any
) -> Any:
    chosen = sizes if sizes is not None else split
    n = x.shape[axis]
    if chosen is None:
        each = -(-n // outputs)
        chosen = [min(each, n - i) for i in range(0, n, each)]
    parts, start = [], 0
    for size in ints(chosen):
        key: list[Any] = [slice(None)] * x.ndim
        key[axis] = slice(start, start + size)
        parts.append(ops.getitem(x, tuple(key)))
        start += size
    return tuple(parts)


def gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    counted = ops.where(ops.less(indices, 0), ops.add(indices, x.shape[axis]), indices)
    return ops.gather(x, counted, axis)


def flatten(x: Any, *, axis: int = 1) -> Any:
    at = axis % x.ndim if axis < 0 else axis
    return ops.reshape(x, (math.prod(x.shape[:at]), math.prod(x.shape[at:])))


def transpose(x: Any, *, perm: Any = None) -> Any:
    return ops.transpose(x, perm)


def tile(x: Any, repeats: Any) -> Any:
    for a, count in enumerate(ints(repeats)):
        x = ops.concat([x] * count, a)
    return x


def shape_of(x: Any, *, start: int = 0, end: Any = None) -> Any:
    return np.array(x.shape[start:end], np.int64)


def constant(**attributes: Any) -> Any:
    (value,) = attributes.values()
    return np.asarray(value, np.float32) if isinstance(value, float) else np.asarray(value)


def constant_of_shape(shape: Any, *, value: Any = None) -> Any:
    filler = np.zeros(1, np.float32) if value is None else value
    return np.full(ints(shape), filler[0], filler.dtype)


def depth_to_space(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        y = ops.transpose(ops.reshape(x, (n, b, b, c // b**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = ops.transpose(ops.reshape(x, (n, c // b**2, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return ops.reshape(y, (n, c // b**2, h * b, w * b))


def space_to_depth(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = x.shape
    b = blocksize
    y = ops.reshape(x, (n, c, h // b, b, w // b, b))
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return ops.reshape(ops.transpose(y, order), (n, c * b * b, h // b, w // b))


def ranged(start: Any, limit: Any, delta: Any) -> Any:
    numbers: list[Any] = [np.asarray(v).item() for v in (start, limit, delta)]
    dtype: Any = np.asarray(start).dtype
    return np.arange(*numbers, dtype=dtype)


def concat(*xs: Any, axis: int) -> Any:
    return ops.concat(xs, axis)


def eye_like(x: Any, *, dtype: Any = None, k: int = 0) -> Any:
    kind: Any = x.dtype if dtype is None else dtype_name(dtype)
    rows, columns = x.shape
    return np.eye(rows, columns, k, dtype=kind)


def one_hot(indices: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    count = int(np.ravel(depth)[0])
    if np.dtype(indices.dtype).kind == "f":
        indices = ops.astype(indices, "int64")
    indices = ops.where(ops.less(indices, 0), ops.add(indices, count), indices)
    hot = ops.one_hot(indices, count)
    order = [*range(hot.ndim - 1)]
    order.insert(axis % hot.ndim, hot.ndim - 1)
    on = ops.equal(ops.transpose(hot, order), 1.0)
    return ops.where(on, ops.getitem(values, 1), ops.getitem(values, 0))
