"""Rules of arrays that are made: of one number, ranges, random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.torch.rules import rule, same

same({"linspace": ops.linspace, "tril_indices": ops.tril_indices, "triu_indices": ops.triu_indices})


def _dtype(dtype: Any, like: Any = None) -> Any:
    """The dtype asked for; else the interpreter makes it torch's."""
    if dtype is not None:
        return dtype
    return like.dtype if like is not None else "float32"


@rule("zeros", "empty")
def zeros(shape: Sequence[int], dtype: Any = None) -> Any:
    """0."""
    return np.zeros(tuple(shape), _dtype(dtype))


@rule("ones")
def ones(shape: Sequence[int], dtype: Any = None) -> Any:
    """1."""
    return np.ones(tuple(shape), _dtype(dtype))


@rule("full")
def full(shape: Sequence[int], value: Any, dtype: Any = None) -> Any:
    """One number."""
    return np.full(tuple(shape), value, dtype or np.asarray(value).dtype)


@rule("scalar_tensor")
def scalar_tensor(value: Any, dtype: Any = None) -> Any:
    """One number, alone."""
    return np.asarray(value, _dtype(dtype))


@rule("zeros_like", "empty_like")
def zeros_like(x: Any, dtype: Any = None) -> Any:
    """0, of an array's shape."""
    return np.zeros(tuple(x.shape), _dtype(dtype, x))


@rule("ones_like")
def ones_like(x: Any, dtype: Any = None) -> Any:
    """1, of an array's shape."""
    return np.ones(tuple(x.shape), _dtype(dtype, x))


@rule("full_like")
def full_like(x: Any, value: Any, dtype: Any = None) -> Any:
    """One number, of an array's shape."""
    return np.full(tuple(x.shape), value, _dtype(dtype, x))


@rule("new_zeros", "new_empty")
def new_zeros(x: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """0, of an array's dtype."""
    return np.zeros(tuple(shape), _dtype(dtype, x))


@rule("new_ones")
def new_ones(x: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """1, of an array's dtype."""
    return np.ones(tuple(shape), _dtype(dtype, x))


@rule("new_full")
def new_full(x: Any, shape: Sequence[int], value: Any, dtype: Any = None) -> Any:
    """One number, of an array's dtype."""
    return np.full(tuple(shape), value, _dtype(dtype, x))


@rule("fill")
def fill(x: Any, value: Any) -> Any:
    """One number everywhere."""
    return ops.broadcast_to(ops.astype(value, x.dtype), tuple(x.shape))


@rule("zero")
def zero(x: Any) -> Any:
    """0 everywhere."""
    return np.zeros(tuple(x.shape), x.dtype)


@rule("arange")
def arange(end: Any, dtype: Any = None) -> Any:
    """0, 1, ... before `end`."""
    return ops.arange(0, end, 1, dtype)


@rule("arange.start")
def arange_from(start: Any, end: Any, dtype: Any = None) -> Any:
    """From a start."""
    return ops.arange(start, end, 1, dtype)


@rule("arange.start_step")
def arange_by(start: Any, end: Any, step: Any = 1, dtype: Any = None) -> Any:
    """From a start, by steps."""
    return ops.arange(start, end, step, dtype)


@rule("eye")
def eye(n: int, dtype: Any = None) -> Any:
    """1 on the diagonal."""
    return ops.eye(n, dtype=_dtype(dtype))


@rule("eye.m")
def eye_of(n: int, m: int, dtype: Any = None) -> Any:
    """1 on the diagonal of n rows and m columns."""
    return ops.eye(n, m, _dtype(dtype))


@rule("randn")
def randn(shape: Sequence[int], dtype: Any = None) -> Any:
    """Normal numbers, of gpubp's generator."""
    return ops.normal(tuple(shape), _dtype(dtype))


@rule("rand")
def rand(shape: Sequence[int], dtype: Any = None) -> Any:
    """Numbers between 0 and 1, of gpubp's generator."""
    return ops.uniform(tuple(shape), _dtype(dtype))


@rule("randn_like")
def randn_like(x: Any, dtype: Any = None) -> Any:
    """Normal numbers, of an array's shape."""
    return ops.normal(tuple(x.shape), _dtype(dtype, x))


@rule("rand_like")
def rand_like(x: Any, dtype: Any = None) -> Any:
    """Numbers between 0 and 1, of an array's shape."""
    return ops.uniform(tuple(x.shape), _dtype(dtype, x))


@rule("bernoulli", "bernoulli.Tensor")
def bernoulli(x: Any, generator: Any = None) -> Any:
    """1 with the probabilities of x, else 0."""
    return ops.astype(ops.less(ops.uniform(tuple(x.shape), x.dtype), x), x.dtype)


@rule("bernoulli.p", "bernoulli.float")
def bernoulli_of(x: Any, p: float = 0.5, generator: Any = None) -> Any:
    """1 with one probability, else 0."""
    return ops.astype(ops.less(ops.uniform(tuple(x.shape), x.dtype), p), x.dtype)


@rule("normal_functional", "normal")
def normal(x: Any, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Any:
    """Normal numbers in the place of others."""
    return ops.add(ops.multiply(ops.normal(tuple(x.shape), x.dtype), std), mean)


@rule("uniform")
def uniform(x: Any, low: float = 0.0, high: float = 1.0, generator: Any = None) -> Any:
    """Numbers of a range in the place of others."""
    return ops.add(ops.multiply(ops.uniform(tuple(x.shape), x.dtype), high - low), low)
