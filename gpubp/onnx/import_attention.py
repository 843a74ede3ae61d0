"""ONNX's Attention, LinearAttention and RotaryEmbedding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.compiler.scan import scan as run_scan
from gpubp.onnx.import_common import DTYPES, refuse
from gpubp.ops.attention import attention_weights


def _heads(x: Any, count: int | None) -> Any:
    """(N, L, heads * D) as (N, heads, L, D); other arrays as they are."""
    if x.ndim == 4:
        return x
    if count is None:
        refuse("attention of three axes that does not tell its number of heads")
    n, length, width = x.shape
    return ops.swapaxes(ops.reshape(x, (n, length, count, width // count)), 1, 2)


def _window(low: int, high: int, causal: bool, offset: Any, sizes: tuple[int, int]) -> Any:
    """Booleans (L, S) or (N, 1, L, S), of what lies in the window and not later; or None."""
    if not causal and low < 0 and high < 0:
        return None
    length, keys = sizes
    i, j = np.arange(length)[:, None], np.arange(keys)
    if isinstance(offset, int):
        ahead = j - i - offset
        seen = np.ones(ahead.shape, bool)
        for bound, kept in ((0 if causal else -1, ahead <= 0), (high, ahead <= high)):
            seen = seen & kept if bound >= 0 else seen
        return seen & (ahead >= -low) if low >= 0 else seen
    ahead = ops.subtract(j - i, ops.reshape(offset, (-1, 1, 1, 1)))
    seen = ops.less_equal(ahead, 0) if causal else np.ones((length, keys), bool)
    if high >= 0:
        seen = ops.logical_and(seen, ops.less_equal(ahead, high))
    return ops.logical_and(seen, ops.greater_equal(ahead, -low)) if low >= 0 else seen


def _both(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else ops.logical_and(a, b)


def _mask(mask: Any, seen: Any, keys: int, dtype: Any) -> Any:
    """The given mask for all keys, without what is not seen."""
    if mask is not None and mask.shape[-1] < keys:
        less = mask.dtype == bool
        filled = False if less else -math.inf
        rest = np.full((*mask.shape[:-1], keys - mask.shape[-1]), filled, mask.dtype)
        mask = ops.concat([mask, rest], -1)
    if mask is None or mask.dtype == bool:
        return _both(mask, seen)
    mask = ops.astype(mask, dtype)
    return mask if seen is None else ops.where(seen, mask, -math.inf)


def attention(
    q: Any,
    k: Any,
    v: Any,
    attn_mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    nonpad_kv_seqlen: Any = None,
    *,
    scale: float | None = None,
    is_causal: int = 0,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    softmax_precision: int | None = None,
    softcap: float = 0.0,
    qk_matmul_output_mode: int = 0,
    left_window_size: int = -1,
    right_window_size: int = -1,
    outputs: int = 1,
) -> Any:
    if softmax_precision is not None and softmax_precision not in DTYPES:
        refuse("a dtype that gpubp has not: of softmax_precision")
    joined = q.ndim == 3
    q, k, v = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    past, offset = 0, None
    if past_key is not None:
        past = past_key.shape[2]
        k, v = ops.concat([past_key, k], 2), ops.concat([past_value, v], 2)
    (length, keys), present = (q.shape[2], k.shape[2]), (k, v)
    offset = past if nonpad_kv_seqlen is None else ops.subtract(nonpad_kv_seqlen, length)
    # Without a cache gpubp's own rule is the same.
    own = bool(is_causal) and isinstance(offset, int) and offset == 0 and outputs < 4
    causal = bool(is_causal) and not own
    seen = _window(left_window_size, right_window_size, causal, offset, (length, keys))
    if nonpad_kv_seqlen is not None:
        filled = ops.less(np.arange(keys), ops.reshape(nonpad_kv_seqlen, (-1, 1, 1, 1)))
        seen = _both(seen, filled)
    mask = _mask(attn_mask, seen, keys, q.dtype)
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    if outputs < 4 and not softcap:
        grouped = q.shape[1] != k.shape[1]
        attend = ops.scaled_dot_product_attention
        y = attend(q, k, v, mask, is_causal=own, scale=scale, enable_gqa=grouped)
        scores = None
    else:
        y, scores = _in_steps(q, k, v, mask, own, scale, softcap, qk_matmul_output_mode)
    if joined:
        n, heads, length, size = y.shape
        y = ops.reshape(ops.swapaxes(y, 1, 2), (n, length, heads * size))
    return (y, *present, scores)[:outputs] if outputs > 1 else y


def _in_steps(
    q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, softcap: float, mode: int
) -> tuple[Any, Any]:
    """With the scores, as they are at some point of the way."""
    if causal:
        below = np.tri(q.shape[2], k.shape[2], dtype=bool)
        mask = _mask(mask, below, k.shape[2], q.dtype)
    k, v = (_repeated(x, q.shape[1]) for x in (k, v))
    scores = ops.multiply(ops.matmul(q, ops.swapaxes(k, -1, -2)), scale)
    if softcap:
        scores = ops.multiply(ops.tanh(ops.divide(scores, softcap)), softcap)
    told = scores
    if mode == 2 and mask is not None:
        is_bool = mask.dtype == bool
        told = ops.where(mask, scores, -math.inf) if is_bool else ops.add(scores, mask)
    # Scores are products with the identity.
    weights = attention_weights(scores, np.eye(k.shape[2], dtype=q.dtype), mask, False, 1.0)
    return ops.matmul(weights, v), weights if mode == 3 else told


def _repeated(x: Any, heads: int) -> Any:
    n, own, length, size = x.shape
    wide = ops.broadcast_to(ops.expand_dims(x, 2), (n, own, heads // own, length, size))
    return ops.reshape(wide, (n, heads, length, size))


def linear_attention(
    q: Any,
    k: Any,
    v: Any,
    past_state: Any = None,
    decay: Any = None,
    beta: Any = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    update_rule: str = "gated_delta",
    scale: float = 0.0,
    chunk_size: int = 64,
    outputs: int = 1,
) -> Any:
    """A loop over time, whose carry is the state (N, heads, width of a key, width of a value)."""
    n, length, _ = q.shape
    q, k, v = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    size = k.shape[-1]
    given = {"q": q, "k": k, "v": v}
    if decay is not None:
        given["decay"] = _heads(decay, kv_num_heads)
    if beta is not None:
        given["beta"] = _heads(beta, beta.shape[-1])
    state = past_state
    if state is None:
        state = np.zeros((n, kv_num_heads, size, v.shape[-1]), q.dtype)
    scale = scale or 1.0 / math.sqrt(size)

    def step(state: Any, x: dict[str, Any]) -> tuple[Any, Any]:
        if "decay" in x:
            state = ops.multiply(state, ops.expand_dims(ops.exp(x["decay"]), -1))
        written = x["v"]
        if "beta" in x:
            known = ops.sum(ops.multiply(state, ops.expand_dims(x["k"], -1)), -2)
            written = ops.multiply(x["beta"], ops.subtract(written, known))
        outer = ops.multiply(ops.expand_dims(x["k"], -1), ops.expand_dims(written, -2))
        state = ops.add(state, outer)
        read = _repeated(state, q_num_heads)
        out = ops.sum(ops.multiply(read, ops.expand_dims(x["q"], -1)), -2)
        return state, ops.multiply(out, scale)

    by_time = {name: ops.transpose(x, (2, 0, 1, 3)) for name, x in given.items()}
    state, ys = run_scan(step, state, by_time)
    y = ops.reshape(ops.transpose(ys, (1, 0, 2, 3)), (n, length, -1))
    return (y, state) if outputs > 1 else y


def rotary_embedding(
    x: Any,
    cos: Any,
    sin: Any,
    position_ids: Any = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Any:
    options = bool(interleaved), num_heads, rotary_embedding_dim
    return ops.rotary_embedding(x, cos, sin, position_ids, *options)
