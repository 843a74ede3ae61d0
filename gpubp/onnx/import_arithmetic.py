"""ONNX's arithmetic, activations and casts in gpubp's ops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.onnx.import_common import dtype_name, refuse, whole


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


def clipped(x: Any, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = (min if low is None else low), (max if high is None else high)
    if np.dtype(x.dtype).kind != "f":
        refuse("clip of whole numbers gives floats")
    if low is None and high is None:
        return ops.copy(x)
    return ops.clip(x, *[None if v is None else float(np.ravel(v)[0]) for v in (low, high)])


def cast(x: Any, *, to: int, saturate: int = 1, round_mode: Any = None) -> Any:
    return ops.astype(x, dtype_name(to))


def mod(a: Any, b: Any, *, fmod: int = 0) -> Any:
    if whole(a, b):
        return np.asarray(np.fmod(a, b) if fmod else np.mod(a, b))
    return ops.fmod(a, b) if fmod else ops.remainder(a, b)


def ceil(x: Any) -> Any:
    return ops.negative(ops.floor(ops.negative(x)))


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


def is_inf(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    high = ops.logical_and(ops.equal(x, math.inf), bool(detect_positive))
    return ops.logical_or(high, ops.logical_and(ops.equal(x, -math.inf), bool(detect_negative)))


def thresholded(x: Any, *, alpha: float = 1.0) -> Any:
    return ops.threshold(x, alpha, 0.0)


def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return ops.clip(ops.add(ops.multiply(x, alpha), beta), 0.0, 1.0)


def trilu(x: Any, k: Any = None, *, upper: int = 1) -> Any:
    shift = 0 if k is None else int(k)
    whole = np.ones(x.shape[-2:], bool)
    kept = np.triu(whole, shift) if upper else np.tril(whole, shift)
    return ops.where(kept, x, 0)
