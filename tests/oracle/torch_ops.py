"""PyTorch under the names and arguments of `gpubp.ops`, so that one expression runs in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Axes = int | tuple[int, ...] | None
RENAMED = {
    "equal": torch.eq,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "not_equal": torch.ne,
    "power": torch.pow,
}


def __getattr__(name: str) -> Any:
    """What has the same arguments there, for the most part under the same name."""
    return RENAMED[name] if name in RENAMED else getattr(torch, name)


def constant(value: Any) -> Any:
    """A NumPy array as a tensor; anything else as it is."""
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def _axes(x: Any, axis: Axes) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return axis if isinstance(axis, tuple) else (axis,)


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    return torch.sum(x, _axes(x, axis), keepdim=keepdims) if x.ndim else x


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    return torch.mean(x, _axes(x, axis), keepdim=keepdims) if x.ndim else x


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    return torch.amax(x, _axes(x, axis), keepdim=keepdims)


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    return torch.amin(x, _axes(x, axis), keepdim=keepdims)


def clip(x: Any, low: float | None = None, high: float | None = None) -> Any:
    return torch.clamp(x, low, high)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    return x.permute(tuple(range(x.ndim))[::-1] if axes is None else tuple(axes))


def expand_dims(x: Any, axis: int) -> Any:
    return torch.unsqueeze(x, axis)


def squeeze(x: Any, axis: Axes = None) -> Any:
    return torch.squeeze(x) if axis is None else torch.squeeze(x, axis)


def concat(arrays: Sequence[Any], axis: int = 0) -> Any:
    return torch.cat(list(arrays), axis)


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    return torch.stack(list(arrays), axis)


def gather(x: Any, indices: Any, axis: int = 0) -> Any:
    found = constant(indices)
    picked = torch.index_select(x, axis, found.reshape(-1))
    return picked.reshape(*x.shape[:axis], *found.shape, *x.shape[axis + 1 :])


def scatter_add(updates: Any, indices: Any, size: int, axis: int = 0) -> Any:
    found = constant(indices)
    before, after = updates.shape[:axis], updates.shape[axis + found.ndim :]
    rows = updates.reshape(*before, math.prod(found.shape), *after)
    zeros = torch.zeros(*before, size, *after, dtype=updates.dtype)
    return zeros.index_add(axis, found.reshape(-1), rows)


def one_hot(labels: Any, num_classes: int, dtype: Any = "float32") -> Any:
    return torch.nn.functional.one_hot(labels, num_classes).to(getattr(torch, dtype))


def getitem(x: Any, key: Any) -> Any:
    """Steps below 0, which torch has not, by a flip."""
    flips = [
        a for a, k in enumerate(key) if isinstance(k, slice) and k.step is not None and k.step < 0
    ]
    turned = list(key)
    for a in flips:
        n = len(range(*key[a].indices(x.shape[a])))
        first = key[a].indices(x.shape[a])[0]
        turned[a] = slice(first + (n - 1) * key[a].step, first + 1, -key[a].step)
    found = x[tuple(turned)]
    dropped = [sum_before(turned, a) for a in flips]
    return torch.flip(found, dropped) if dropped else found


def sum_before(key: Sequence[Any], axis: int) -> int:
    """Where an axis stands after whole numbers in the key have removed theirs."""
    return axis - len([k for k in key[:axis] if isinstance(k, int)])


def where(condition: Any, a: Any, b: Any) -> Any:
    return torch.where(constant(condition), a, b)


def astype(x: Any, dtype: Any) -> Any:
    return x.to(getattr(torch, str(dtype)))


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    return torch.nn.functional.linear(x, weight, bias)


def stop_gradient(x: Any) -> Any:
    return x.detach()


def softplus(x: Any) -> Any:
    return torch.nn.functional.softplus(x)


def softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    axes = logits if logits.ndim < 3 else torch.movedim(logits, -1, 1)
    return torch.nn.functional.cross_entropy(axes, labels, reduction="none")
