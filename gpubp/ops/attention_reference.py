"""The NumPy definitions of attention and its gradients; formulas in `attention_specs`.

Heads come before rows here: queries are (N, G, H / G, L, E), keys (N, G, 1, S, E).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.ops.spec import BOOL, FLOAT64


def _of_queries(x: Any, groups: int) -> Any:
    batch, length, heads, *rest = x.shape
    split = x.reshape(batch, length, groups, heads // groups, *rest)
    return split.transpose(0, 2, 3, 1, *range(4, split.ndim))


def _of_keys(x: Any) -> Any:
    return x.transpose(0, 2, 1, 3)[:, :, None]


def _back(x: Any) -> Any:
    """(N, G, H / G, L, ...) as (N, L, H, ...)."""
    batch, groups, each, length, *rest = x.shape
    moved = x.transpose(0, 3, 1, 2, *range(4, x.ndim))
    return np.ascontiguousarray(moved).reshape(batch, length, groups * each, *rest)


def _scores(q: Any, k: Any, mask: Any, scale: float, causal: bool) -> Any:
    """What the softmax is taken of; -inf where a key is not seen."""
    groups = k.shape[2]
    scores = _of_queries(q, groups) @ _of_keys(k).swapaxes(-1, -2) * q.dtype.type(scale)
    hidden = np.asarray(-math.inf, q.dtype)
    for m in mask:
        spread = _grouped(m, groups)
        scores = np.where(spread, scores, hidden) if m.dtype == BOOL else scores + spread
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, hidden)
    return scores


def _grouped(m: Any, groups: int) -> Any:
    """A mask with its axis of heads as two."""
    batch, heads, *rest = m.shape
    return m.reshape(batch, *((1, 1) if heads == 1 else (groups, heads // groups)), *rest)


def _exponentials(scores: Any) -> tuple[Any, Any, Any]:
    """exp(scores - top), their sums in float64, and top."""
    top = np.max(scores, axis=-1, keepdims=True, initial=-math.inf)
    top = np.where(np.isneginf(top), 0, top).astype(scores.dtype)
    e = np.exp(scores - top)
    return e, np.sum(e, axis=-1, keepdims=True, dtype=FLOAT64), top


def attended(q: Any, k: Any, v: Any, *mask: Any, scale: float, causal: bool) -> Any:
    """softmax(scale q k^T + mask) v."""
    e, total, _ = _exponentials(_scores(q, k, mask, scale, causal))
    weights = (e / np.where(total == 0, 1.0, total)).astype(q.dtype)
    return _back(weights @ _of_keys(v))


def log_sums(q: Any, k: Any, v: Any, *mask: Any, scale: float, causal: bool) -> Any:
    """Logarithms of sums of exponentials of scores; infinity for those of none."""
    _, total, top = _exponentials(_scores(q, k, mask, scale, causal))
    with np.errstate(divide="ignore"):
        found = np.where(total == 0, math.inf, top + np.log(total))
    return _back(found.astype(q.dtype)[..., 0])


def _weights(inputs: Any, scale: float, causal: bool) -> tuple[Any, Any]:
    """The weights p, and the gradient by the scores without their scale."""
    q, k, v, sums, delta, g, *mask = inputs
    groups = k.shape[2]
    scores = _scores(q, k, mask, scale, causal)
    p = np.exp(scores - _of_queries(sums, groups)[..., None])
    to_p = _of_queries(g, groups) @ _of_keys(v).swapaxes(-1, -2)
    return p, p * (to_p - _of_queries(delta, groups)[..., None])


def query_grad(*inputs: Any, scale: float, causal: bool) -> Any:
    """d k."""
    q, k = inputs[:2]
    _, d = _weights(inputs, scale, causal)
    return _back(d * q.dtype.type(scale) @ _of_keys(k))


def key_grad(*inputs: Any, scale: float, causal: bool) -> Any:
    """d^T q, summed over the heads that a head of keys serves."""
    q, k = inputs[:2]
    _, d = _weights(inputs, scale, causal)
    found = (d * q.dtype.type(scale)).swapaxes(-1, -2) @ _of_queries(q, k.shape[2])
    return np.ascontiguousarray(found.sum(axis=2).transpose(0, 2, 1, 3))


def value_grad(*inputs: Any, scale: float, causal: bool) -> Any:
    """p^T g, summed likewise."""
    k, g = inputs[1], inputs[5]
    p, _ = _weights(inputs, scale, causal)
    found = p.swapaxes(-1, -2) @ _of_queries(g, k.shape[2])
    return np.ascontiguousarray(found.sum(axis=2).transpose(0, 2, 1, 3))
