"""Rotary position embeddings: pairs of numbers turned by angles that grow with the position."""

from __future__ import annotations

import operator
from typing import Any

from gpubp.arguments import shown, truth
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.elementwise import add, multiply, subtract
from gpubp.ops.getitem import getitem
from gpubp.ops.index import concat, gather, stack
from gpubp.ops.shape import expand_dims, reshape
from gpubp.ops.spec import promote

_OP = "rotary_embedding"


def rotary_embedding(
    x: Any,
    cos_cache: Any,
    sin_cache: Any,
    position_ids: Any = None,
    interleaved: bool = False,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Any:
    """Turn pairs of x's last axis by the angles of their positions, as ONNX's RotaryEmbedding.

    (a, b) becomes (a cos - b sin, a sin + b cos). Su et al., "RoFormer" (2021, arXiv:2104.09864).

    Args:
        x: (N, heads, L, D), or (N, L, heads * D) with `num_heads`.
        cos_cache, sin_cache: (positions, R / 2) with `position_ids`; else (N, L, R / 2), or
            (L, R / 2) for every sample.
        position_ids: (N, L) integers, the rows of the caches; None: they are those rows already.
        interleaved: whether pairs are neighbours; else the i-th of the first R / 2 numbers and the
            i-th of the next R / 2.
        num_heads: of x of three axes.
        rotary_embedding_dim: R, how many of the D numbers are turned, from the first on; 0: all.

    Returns:
        The shape of x.

    Raises:
        ShapeError: shapes do not fit, or R is odd or larger than D.
        IndexRangeError: a position is none of the caches' rows.
    """
    heads, turned = (_whole(n, v) for n, v in _counts(num_heads, rotary_embedding_dim))
    x, cos, sin = promote(x, cos_cache, sin_cache, floating=True)
    parts, axis = _parted(x, heads)
    size = parts.shape[-1]
    turned = turned or size
    if turned % 2 or not 0 < turned <= size:
        raise ShapeError(
            f"{_OP}: {turned} of the {size} numbers of a head are to be turned in pairs: expected "
            "an even number up to that."
        )
    if position_ids is not None:
        cos, sin = gather(cos, position_ids), gather(sin, position_ids)
    length = parts.shape[2 if axis == 1 else 1]
    wanted = ((length, turned // 2), (parts.shape[0], length, turned // 2))
    if cos.shape != sin.shape or tuple(cos.shape) not in wanted:
        raise ShapeError(
            f"{_OP}: got x {describe(x)}, and of cos and sin {describe(cos)} and {describe(sin)}, "
            f"expected {wanted[1]} or {wanted[0]}."
        )
    cos, sin = (expand_dims(a, axis if len(a.shape) == 3 else axis - 1) for a in (cos, sin))
    first = getitem(parts, (..., slice(0, turned)))
    found = _turned(first, cos, sin, truth(_OP, "interleaved", interleaved))
    if turned < size:
        found = concat([found, getitem(parts, (..., slice(turned, size)))], -1)
    return reshape(found, x.shape)


def _counts(num_heads: Any, turned: Any) -> tuple[tuple[str, Any], ...]:
    return ("num_heads", num_heads), ("rotary_embedding_dim", turned)


def _whole(name: str, value: Any) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        found = -1
    if found < 0:
        raise ArgumentError(f"{_OP}: {name} is {shown(value)}, expected a whole number from 0 on.")
    return found


def _parted(x: Any, heads: int) -> tuple[Any, int]:
    """x by heads, four axes, and which of them has the heads."""
    if len(x.shape) == 4:
        return x, 1
    if len(x.shape) != 3 or not heads or x.shape[-1] % heads:
        raise ShapeError(
            f"{_OP}: got x {describe(x)} and num_heads={heads}, expected (N, heads, L, D), or "
            "(N, L, heads * D) with num_heads, which divides the last axis."
        )
    return reshape(x, (*x.shape[:2], heads, x.shape[-1] // heads)), 2


def _turned(x: Any, cos: Any, sin: Any, interleaved: bool) -> Any:
    half = x.shape[-1] // 2
    if interleaved:
        a, b = (getitem(x, (..., slice(i, None, 2))) for i in range(2))
    else:
        a, b = (getitem(x, (..., slice(i * half, (i + 1) * half))) for i in range(2))
    real = subtract(multiply(a, cos), multiply(b, sin))
    imaginary = add(multiply(a, sin), multiply(b, cos))
    if not interleaved:
        return concat([real, imaginary], -1)
    return reshape(stack([real, imaginary], -1), x.shape)
