"""ONNX's operators of order, index arrays and determinants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import ops


def top_k(x: Any, k: Any, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    return ops.topk(x, int(np.asarray(k).ravel()[0]), axis, bool(largest))


def running(fn: Callable[..., Any], undo: Callable[..., Any]) -> Callable[..., Any]:
    """Without the element itself, and from the end, where asked for."""

    def adapted(x: Any, axis: Any, exclusive: int = 0, reverse: int = 0) -> Any:
        at = int(np.asarray(axis).ravel()[0]) % x.ndim
        back = tuple(slice(None, None, -1) if i == at else slice(None) for i in range(x.ndim))
        x = ops.getitem(x, back) if reverse else x
        total = ops.astype(fn(x, at), str(x.dtype))
        total = undo(total, x) if exclusive else total
        return ops.getitem(total, back) if reverse else total

    return adapted


def scatter_elements(
    x: Any, indices: Any, updates: Any, axis: int = 0, reduction: str = "none"
) -> Any:
    if reduction == "none":
        return ops.scatter(x, axis, indices, updates)
    kinds = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return ops.scatter_reduce(x, axis, indices, updates, kinds[reduction])


def compress(x: Any, condition: Any, axis: int | None = None) -> Any:
    places = np.nonzero(np.asarray(condition))[0].astype(np.int64)
    return ops.take(x, places) if axis is None else ops.index_select(x, axis, places)


TABLE: dict[str, Callable[..., Any]] = {
    "TopK": top_k,
    "CumSum": running(ops.cumsum, ops.subtract),
    "GatherND": ops.gather_nd,
    "GatherElements": lambda x, i, axis=0: ops.gather_along(x, axis, i),
    "ScatterND": ops.scatter_nd,
    "ScatterElements": scatter_elements,
    "Scatter": scatter_elements,
    "Det": ops.det,
    "Compress": compress,
}
