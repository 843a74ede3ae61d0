"""ONNX's reductions in gpubp's ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.onnx.import_common import counted, ints, refuse


def reduced(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Axes are an input or an attribute, as the version has it."""

    def adapted(
        x: Any,
        given: Any = None,
        *,
        axes: Any = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
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


def composed(*steps: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, axis: Sequence[int] | None, keepdims: bool) -> Any:
        before, reduce, after = steps
        return after(reduce(before(x), axis, keepdims=keepdims))

    return adapted


def pooled(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: fn(x, tuple(range(2, x.ndim)), keepdims=True)


def lp_norm(x: Any, *, axis: int = -1, p: int = 2) -> Any:
    if p == 1:
        size = ops.sum(ops.abs(x), axis, keepdims=True)
    else:
        size = ops.sqrt(ops.sum(ops.square(x), axis, keepdims=True))
    return ops.where(
        ops.equal(size, 0.0), 0.0, ops.divide(x, ops.where(ops.equal(size, 0.0), 1.0, size))
    )


def softmax(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axis=-1: fn(x, axis)


def hardmax(x: Any, *, axis: int = -1) -> Any:
    hot = ops.one_hot(ops.argmax(x, axis), x.shape[axis], x.dtype)
    order = [*range(x.ndim - 1)]
    order.insert(counted(x, axis), x.ndim - 1)
    return ops.transpose(hot, order)
