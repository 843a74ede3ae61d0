"""Attention: softmax(query key^T scale) value, as torch.nn.functional has it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.arguments import truth
from gpubp.core import Shape, bind, describe
from gpubp.errors import DataError, DTypeError, ShapeError
from gpubp.ops.attention_specs import ATTENTION
from gpubp.ops.constant import constant
from gpubp.ops.dropout import dropout
from gpubp.ops.elementwise import add, finite, multiply
from gpubp.ops.linalg import matmul
from gpubp.ops.logic import astype, logical_and, not_equal, where
from gpubp.ops.loss import softmax
from gpubp.ops.reduce import max as largest
from gpubp.ops.shape import broadcast_to, reshape, swapaxes, transpose
from gpubp.ops.spec import BOOL, FLOAT32, cast_to, promote

_OP = "scaled_dot_product_attention"


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`softmax(query @ key^T * scale + mask) @ value` (Vaswani et al. 2017, arXiv:1706.03762).

    A query that may look at no key gives 0, as in PyTorch and ONNX.

    Args:
        query: (..., L, E).
        key: (..., S, E); leading axes broadcast.
        value: (..., S, Ev).
        attn_mask: broadcasts to (..., L, S). Booleans: True where the query may look at the key;
            floats are added to the scores.
        dropout_p: attention weights are dropped with this probability, always: pass 0 in
            evaluation.
        is_causal: query i looks at keys 0 to i only; with `attn_mask`, both hold.
        scale: of the scores; None: 1 / sqrt(E).
        enable_gqa: key and value may have fewer heads (axis -3) than query: each serves as many
            neighbouring ones (Ainslie et al. 2023, arXiv:2305.13245).

    Returns:
        (..., L, Ev).

    Raises:
        ShapeError: shapes do not fit.
        DTypeError: the mask is of integers.
        DataError: `dropout_p` is outside [0, 1], or `scale` not finite.
    """
    p = finite(_OP, "dropout_p", dropout_p)
    if not 0.0 <= p <= 1.0:
        raise DataError(f"{_OP}: dropout_p must be in [0, 1], got {p}.")
    causal = truth(_OP, "is_causal", is_causal)
    query, key, value = promote(query, key, value, floating=True)
    _check_shapes(query, key, value)
    if scale is None:
        scale = 1.0 / math.sqrt(max(query.shape[-1], 1))
    scale = finite(_OP, "scale", scale)
    batch = _batch(query, key, value, truth(_OP, "enable_gqa", enable_gqa))
    mask = None if attn_mask is None else _mask(attn_mask, batch, query, key)
    if p == 0.0:
        return _in_one_pass(query, key, value, mask, batch, scale=scale, causal=causal)
    key, value = _repeated(key, batch), _repeated(value, batch)
    return _composed(query, key, value, mask, p, causal, scale)


def _check_shapes(query: Any, key: Any, value: Any) -> None:
    given = f"got query {describe(query)}, key {describe(key)} and value {describe(value)}"
    if min(len(x.shape) for x in (query, key, value)) < 2:
        raise ShapeError(f"{_OP}: {given}, expected at least two axes each.")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"{_OP}: {given}, expected (..., L, E), (..., S, E) and (..., S, Ev). Query and key "
            "need one size E, key and value one number S of keys."
        )


def _batch(query: Any, key: Any, value: Any, grouped: bool) -> Shape:
    """The leading axes of the result; `grouped`: heads of key and value serve several of query."""
    leading = [x.shape[:-2] for x in (query, key, value)]
    if grouped and query.shape[:-2]:
        heads = query.shape[-3]
        for i, x in enumerate((key, value), 1):
            own = x.shape[-3] if len(x.shape) > 2 else 1
            if own == 0 or heads % own:
                raise ShapeError(
                    f"{_OP}: the {own} heads of {describe(x)} do not divide the {heads} of query "
                    f"{describe(query)}."
                )
            leading[i] = (*leading[i][:-1], 1)
    try:
        return np.broadcast_shapes(*leading)
    except ValueError:
        raise ShapeError(
            f"{_OP}: the leading axes of query {describe(query)}, key {describe(key)} and value "
            f"{describe(value)} do not broadcast. Pass enable_gqa=True where heads of key and "
            "value serve several of query."
        ) from None


def _repeated(x: Any, batch: Shape) -> Any:
    """Each head of key or value as often as it serves a head of the query."""
    own = x.shape[-3] if len(x.shape) > 2 else 1
    if own == 1 or own == batch[-1]:
        return x
    *outer, _, rows, size = x.shape
    each = batch[-1] // own
    wide = broadcast_to(reshape(x, (*outer, own, 1, rows, size)), (*outer, own, each, rows, size))
    return reshape(wide, (*outer, batch[-1], rows, size))


def _mask(mask: Any, batch: Shape, query: Any, key: Any) -> Any:
    """The mask as booleans, or as floats of the query's dtype."""
    (mask,) = promote(mask)
    if mask.dtype.kind in "iu":
        raise DTypeError(f"{_OP}: got attn_mask {describe(mask)}, expected booleans or floats.")
    full = (*batch, query.shape[-2], key.shape[-2])
    try:
        fits = np.broadcast_shapes(mask.shape, full) == full
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"{_OP}: attn_mask {describe(mask)} does not broadcast to {full}: query "
            f"{describe(query)}, key {describe(key)}."
        )
    return mask if mask.dtype == BOOL else cast_to(mask, query.dtype)


def _in_one_pass(query: Any, key: Any, value: Any, mask: Any, batch: Shape, **attrs: Any) -> Any:
    """By the op of its own, whose arrays are (N, L, H, E).

    N is what workers share: all leading axes but the last, or, where these make one, the heads.
    """
    heads = batch[-1] if batch else 1
    outer = math.prod(batch[:-1])
    own = {x.shape[-3] for x in (key, value) if len(x.shape) > 2} - {1}
    groups = own.pop() if own else 1
    if own:  # key and value have different ones
        groups, key, value = heads, _repeated(key, batch), _repeated(value, batch)
    key, value = (_with_heads(x, batch, groups) for x in (key, value))
    arrays = [_with_heads(query, batch, heads), key, value]
    if mask is not None:
        arrays.append(_mask_of_four(mask, batch))
    by_heads = outer == 1 and groups > 1
    if by_heads:
        each = heads // groups
        arrays = [_heads_first(x, groups, 1 if i in (1, 2) else each) for i, x in enumerate(arrays)]
    rows = [transpose(x, (0, 2, 1, 3)) for x in arrays[:3]]
    out = transpose(bind(ATTENTION, *rows, *arrays[3:], **attrs), (0, 2, 1, 3))
    return reshape(out, (*batch, *out.shape[-2:]))


def _with_heads(x: Any, batch: Shape, heads: int) -> Any:
    """(..., L, E) as (N, heads, L, E)."""
    wanted = (*batch[:-1], heads) if batch else ()
    x = broadcast_to(x, (*wanted, *x.shape[-2:])) if x.shape[:-2] != wanted else x
    return reshape(x, (math.prod(batch[:-1]), heads, *x.shape[-2:]))


def _mask_of_four(mask: Any, batch: Shape) -> Any:
    """A mask as (N or 1, H or 1, L or 1, S or 1)."""
    missing = len(batch) + 2 - len(mask.shape)
    shape = (*[1] * missing, *mask.shape) if batch else (1, *[1] * missing, *mask.shape)
    outer, rest = shape[: max(len(batch) - 1, 0)], shape[max(len(batch) - 1, 0) :]
    if math.prod(outer) != 1 and outer != batch[:-1]:
        mask = broadcast_to(reshape(mask, shape), (*batch[:-1], *rest))
        outer = batch[:-1]
    return reshape(mask, (math.prod(outer), *rest))


def _heads_first(x: Any, groups: int, each: int) -> Any:
    """(1, groups each, ...) as (groups, each, ...); a mask of all heads stays one."""
    if x.shape[1] == 1:
        return x
    return reshape(x, (groups, each, *x.shape[2:]))


def _composed(
    query: Any, key: Any, value: Any, mask: Any, p: float, causal: bool, scale: float
) -> Any:
    """By ops that exist, where weights are dropped: the scores are stored."""
    if not key.shape[-2]:  # a product over nothing is 0
        return matmul(matmul(query, swapaxes(key, -1, -2)), value)
    return matmul(dropout(attention_weights(query, key, mask, causal, scale), p), value)


def attention_weights(query: Any, key: Any, mask: Any, causal: bool, scale: float) -> Any:
    """`softmax(query @ key^T * scale + mask)`; 0 for a query that may look at no key.

    Args:
        query: (..., L, E).
        key: (..., S, E), S at least 1.
        mask: None, booleans (True: may look) or floats that are added; broadcasts to (..., L, S).
        causal: whether query i looks at keys 0 to i only, besides.
        scale: of the scores.
    """
    scores = multiply(matmul(query, swapaxes(key, -1, -2)), scale)
    seen = None
    if mask is not None and mask.dtype == BOOL:
        seen = mask
    elif mask is not None:
        scores, seen = add(scores, mask), not_equal(mask, -math.inf)
    if causal:
        below = constant(np.tri(query.shape[-2], key.shape[-2], dtype=bool), query)
        seen = below if seen is None else logical_and(seen, below)
    if seen is None:
        return softmax(scores)
    # Rows that see nothing are given finite scores: no softmax of -inf alone.
    some = largest(astype(seen, FLOAT32), -1, keepdims=True)
    low = where(not_equal(some, 0.0), -math.inf, 0.0)
    return where(seen, softmax(where(seen, scores, low)), 0.0)
