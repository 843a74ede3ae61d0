"""ONNX's operators written in gpubp: what takes their inputs and attributes, for `onnx_ops`.

Shapes, axes and other numbers that decide shapes come as NumPy arrays. What gpubp has not is a
`RefusedError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from gpubp import nn, ops

DTYPES = {1: "float32", 11: "float64", 6: "int32", 7: "int64", 9: "bool"}


class RefusedError(Exception):
    """gpubp has no such option; the text says which."""


def refuse(why: str) -> NoReturn:
    raise RefusedError(why)


def whole(*arrays: Any) -> bool:
    """Shapes and the like: whole numbers that are known."""
    return all(isinstance(a, (np.ndarray, np.generic)) and a.dtype.kind == "i" for a in arrays)


def dtype_name(code: Any) -> str:
    return DTYPES[code] if code in DTYPES else refuse("a dtype that gpubp has not: of a cast")


def ints(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in np.asarray(value).reshape(-1))


def counted(x: Any, axis: int) -> int:
    return axis % x.ndim if x.ndim else 0


def div(a: Any, b: Any) -> Any:
    """Of whole numbers towards zero."""
    if whole(a, b):
        return np.asarray(np.trunc(np.divide(a, b)), a.dtype)
    if np.dtype(a.dtype).kind != "f":
        refuse("quotients of whole numbers are floats")
    return ops.divide(a, b)


def power(a: Any, b: Any) -> Any:
    if np.dtype(a.dtype).kind != "f":
        refuse("powers of whole numbers are of floats")
    return ops.astype(ops.power(a, ops.astype(b, a.dtype)), a.dtype)


def chained(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(*xs: Any) -> Any:
        found = xs[0]
        for x in xs[1:]:
            found = fn(found, x)
        return found

    return adapted


def mean(*xs: Any) -> Any:
    return ops.multiply(chained(ops.add)(*xs), 1.0 / len(xs))


def reduced(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Axes are an input or an attribute, as the version has it."""

    def adapted(
        x: Any, given: Any = None, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes=0
    ) -> Any:
        chosen = given if given is not None else axes
        empty = chosen is None or not len(chosen)
        if empty and noop_with_empty_axes:
            return fn(x, (), keepdims=True)
        if np.dtype(x.dtype).kind == "b" and fn is not ops.sum:
            refuse("reductions of booleans")
        if 0 in x.shape and fn in (ops.max, ops.min, log_sum_exp):
            refuse("the largest of nothing")
        found = fn(x, None if empty else ints(chosen), keepdims=bool(keepdims))
        if np.dtype(x.dtype) == np.int32 and np.dtype(found.dtype) == np.int64:
            refuse("a sum of int32 in int32: sums of whole numbers are int64")
        return found

    return adapted


def log_sum_exp(x: Any, axis: Any, keepdims: bool) -> Any:
    top = ops.max(x, axis, keepdims=True)
    total = ops.log(ops.sum(ops.exp(ops.subtract(x, top)), axis, keepdims=True))
    found = ops.add(total, top)
    return found if keepdims else ops.sum(found, axis, keepdims=False)


def extremum_index(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
        if not select_last_index:
            return fn(x, axis, bool(keepdims))
        key: list[Any] = [slice(None)] * x.ndim
        key[axis] = slice(None, None, -1)
        last = x.shape[axis] - 1
        return ops.subtract(last, fn(ops.getitem(x, tuple(key)), axis, bool(keepdims)))

    return adapted


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
        n = x.shape[a]
        if step < 0:
            end = None if end < -n else end
        key[a] = slice(start, end, step)
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


def clipped(x: Any, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = (min if low is None else low), (max if high is None else high)
    if np.dtype(x.dtype).kind != "f":
        refuse("clip of whole numbers gives floats")
    if low is None and high is None:
        return ops.copy(x)
    return ops.clip(x, *[None if v is None else float(np.ravel(v)[0]) for v in (low, high)])


def dropout(
    x: Any, ratio: Any = None, training: Any = None, *, seed: int = 0, outputs: int = 1, **_: Any
) -> Any:
    p = 0.5 if ratio is None else float(ratio)
    if training is not None and bool(training) and p > 0:
        refuse("other random numbers")
    y = ops.dropout(x, p, training=False)
    return (y, np.ones(x.shape, bool)) if outputs > 1 else y


def gemm(
    a: Any, b: Any, c: Any = None, *, alpha=1.0, beta=1.0, transA: int = 0, transB: int = 0
) -> Any:
    a = ops.transpose(a) if transA else a
    b = ops.transpose(b) if transB else b
    y = ops.multiply(ops.matmul(a, b), alpha)
    return y if c is None else ops.add(y, ops.multiply(c, beta))


def normalized(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any]:
    mean = ops.mean(x, axes, keepdims=True)
    centred = ops.subtract(x, mean)
    inverse = ops.divide(
        1.0, ops.sqrt(ops.add(ops.mean(ops.square(centred), axes, keepdims=True), eps))
    )
    return ops.multiply(centred, inverse), mean, inverse


def layer_norm(
    x: Any, scale: Any, bias: Any = None, *, axis=-1, epsilon=1e-5, stash_type=1, outputs: int = 1
) -> Any:
    axes = tuple(range(counted(x, axis), x.ndim))
    y, mean, inverse = normalized(x, axes, epsilon)
    y = ops.multiply(y, scale)
    y = y if bias is None else ops.add(y, bias)
    return (y, mean, inverse)[:outputs] if outputs > 1 else y


def rms_norm(x: Any, scale: Any, *, axis: int = -1, epsilon=1e-5, stash_type: int = 1) -> Any:
    size = x.shape[counted(x, axis) :]
    return ops.multiply(nn.RMSNorm(list(size), epsilon, elementwise_affine=False)(x), scale)


def batch_norm(
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    var: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    outputs: int = 1,
) -> Any:
    wide = (1, -1, *[1] * (x.ndim - 2))
    if training_mode:
        axes = (0, *range(2, x.ndim))
        y, batch, inverse = normalized(x, axes, epsilon)
        spread = ops.reshape(ops.subtract(ops.divide(1.0, ops.square(inverse)), epsilon), (-1,))
        moved = [
            ops.add(ops.multiply(old, momentum), ops.multiply(new, 1.0 - momentum))
            for old, new in ((mean, ops.reshape(batch, (-1,))), (var, spread))
        ]
    else:
        inverse = ops.divide(1.0, ops.sqrt(ops.add(ops.reshape(var, wide), epsilon)))
        y, moved = ops.multiply(ops.subtract(x, ops.reshape(mean, wide)), inverse), []
    y = ops.add(ops.multiply(y, ops.reshape(scale, wide)), ops.reshape(bias, wide))
    return (y, *moved) if outputs > 1 else y


def instance_norm(x: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5) -> Any:
    wide = (1, -1, *[1] * (x.ndim - 2))
    y = normalized(x, tuple(range(2, x.ndim)), epsilon)[0]
    return ops.add(ops.multiply(y, ops.reshape(scale, wide)), ops.reshape(bias, wide))


def softmax(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axis=-1: fn(x, axis)


def hardmax(x: Any, *, axis: int = -1) -> Any:
    hot = ops.one_hot(ops.argmax(x, axis), x.shape[axis], x.dtype)
    order = [*range(x.ndim - 1)]
    order.insert(counted(x, axis), x.ndim - 1)
    return ops.transpose(hot, order)


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


def nll(x: Any, target: Any, weight: Any = None, **options: Any) -> Any:
    return nn.NLLLoss(weight=held(weight), **loss_options(options))(x, target)


def cross_entropy(
    x: Any, target: Any, weight: Any = None, *, outputs: int = 1, **options: Any
) -> Any:
    loss = nn.CrossEntropyLoss(weight=held(weight), **loss_options(options))(x, target)
    return (loss, ops.log_softmax(x, 1)) if outputs > 1 else loss


def held(weight: Any) -> Any:
    known = weight is None or isinstance(weight, np.ndarray)
    return weight if known else refuse("weights that are computed, where a loss holds them")


def loss_options(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k in ("ignore_index", "reduction")}


def p_relu(x: Any, slope: Any) -> Any:
    return ops.where(ops.less(x, 0), ops.multiply(x, slope), x)


def selu(x: Any, *, alpha: float = 1.67326319, gamma: float = 1.05070102) -> Any:
    return ops.multiply(ops.elu(x, alpha), gamma)


def shrink(x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    if np.dtype(x.dtype).kind != "f":
        refuse("a result of floats for whole numbers")
    low = ops.where(ops.less(x, -lambd), ops.add(x, bias), 0.0)
    return ops.where(ops.greater(x, lambd), ops.subtract(x, bias), low)


def swish(x: Any, *, alpha: float = 1.0) -> Any:
    return ops.multiply(x, ops.sigmoid(ops.multiply(x, alpha)))


def trilu(x: Any, k: Any = None, *, upper: int = 1) -> Any:
    shift = 0 if k is None else int(k)
    whole = np.ones(x.shape[-2:], bool)
    kept = np.triu(whole, shift) if upper else np.tril(whole, shift)
    return ops.where(kept, x, 0)


def is_inf(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    high = ops.logical_and(ops.equal(x, math.inf), bool(detect_positive))
    return ops.logical_or(high, ops.logical_and(ops.equal(x, -math.inf), bool(detect_negative)))


def lp_norm(x: Any, *, axis: int = -1, p: int = 2) -> Any:
    if p == 1:
        size = ops.sum(ops.abs(x), axis, keepdims=True)
    else:
        size = ops.sqrt(ops.sum(ops.square(x), axis, keepdims=True))
    return ops.where(
        ops.equal(size, 0.0), 0.0, ops.divide(x, ops.where(ops.equal(size, 0.0), 1.0, size))
    )


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


def cast(x: Any, *, to: int, saturate: int = 1, round_mode: Any = None) -> Any:
    return ops.astype(x, dtype_name(to))


def mod(a: Any, b: Any, *, fmod: int = 0) -> Any:
    if whole(a, b):
        return np.asarray(np.fmod(a, b) if fmod else np.mod(a, b))
    return ops.fmod(a, b) if fmod else ops.remainder(a, b)


def ranged(start: Any, limit: Any, delta: Any) -> Any:
    first, end, by = (np.asarray(v).item() for v in (start, limit, delta))
    return np.arange(first, end, by, np.asarray(start).dtype)


def ceil(x: Any) -> Any:
    return ops.negative(ops.floor(ops.negative(x)))


def concat(*xs: Any, axis: int) -> Any:
    return ops.concat(xs, axis)


def eye_like(x: Any, *, dtype: Any = None, k: int = 0) -> Any:
    return np.eye(*x.shape, k, dtype=x.dtype if dtype is None else dtype_name(dtype))


def thresholded(x: Any, *, alpha: float = 1.0) -> Any:
    return ops.threshold(x, alpha, 0.0)


def attribute(fn: Callable[..., Any], name: str, default: Any) -> Callable[..., Any]:
    def adapted(x: Any, **given: Any) -> Any:
        return fn(x, given.get(name, default))

    return adapted


def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return ops.clip(ops.add(ops.multiply(x, alpha), beta), 0.0, 1.0)


def pooled(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: fn(x, tuple(range(2, x.ndim)), keepdims=True)


def composed(*steps: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, axis: Sequence[int] | None, keepdims: bool) -> Any:
        before, reduce, after = steps
        return after(reduce(before(x), axis, keepdims=keepdims))

    return adapted


def itself(x: Any) -> Any:
    return x
