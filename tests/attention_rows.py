"""Rows of `specs` for attention: sizes around vectors and blocks, masks, heads in groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import Args, Attrs, Row, Shapes

from gpubp.core import Shape
from gpubp.ops.attention_specs import ATTENTION_SUMS


def attention_shapes(
    q: Shape, keys: int, groups: int | None = None, values: int | None = None, mask: Shape = ()
) -> Shapes:
    """Of q (N, L, H, E), k, v and a mask, which is booleans where it is the same for all heads."""
    batch, _, heads, size = q
    of_keys = (batch, keys, heads if groups is None else groups)
    arrays = (q, (*of_keys, size), (*of_keys, size if values is None else values))
    return (*arrays, mask) if mask else arrays


CASES: tuple[Shapes, ...] = (
    # small enough for central differences
    attention_shapes((1, 2, 1, 1), 2),
    attention_shapes((1, 1, 2, 1), 2, groups=1),
    attention_shapes((1, 2, 1, 1), 2, mask=(1, 1, 2, 2)),
    attention_shapes((1, 2, 1, 1), 1, values=2, mask=(1, 1, 1, 1)),
    attention_shapes((1, 2, 2, 1), 2, mask=(1, 2, 1, 2)),
    attention_shapes((2, 3, 1, 2), 3, values=1),
    # vectors and strips that are not whole, more keys than queries and the other way round
    attention_shapes((2, 5, 4, 3), 7, values=6),
    attention_shapes((3, 9, 2, 17), 5, values=33, mask=(3, 1, 9, 5)),
    attention_shapes((2, 17, 4, 16), 17, groups=2, mask=(2, 4, 17, 17)),
    attention_shapes((1, 13, 3, 8), 40, groups=1, values=5, mask=(1, 3, 13, 1)),
    attention_shapes((2, 64, 2, 16), 64),
    attention_shapes((1, 33, 1, 5), 31, mask=(1, 1, 1, 31)),
    # several blocks of keys, of queries
    attention_shapes((1, 70, 2, 64), 150, values=48, mask=(1, 1, 70, 150)),
    attention_shapes((2, 150, 1, 40), 70),
    attention_shapes((1, 140, 2, 8), 200, groups=1),
    attention_shapes((1, 3, 1, 300), 300, values=2),
    # nothing there
    attention_shapes((2, 3, 2, 4), 0, values=3),
    attention_shapes((2, 0, 2, 4), 3),
    attention_shapes((0, 3, 2, 4), 3),
    attention_shapes((2, 3, 2, 0), 4, values=3),
)


def _attrs(_: Shapes) -> list[Attrs]:
    return [{"scale": 0.5, "causal": False}, {"scale": -0.25, "causal": True}]


def _mask(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """Some keys are hidden; in larger ones, all from one query."""
    seen = np.asarray(rng.random(shape) < 0.6)
    if shape[2] > 4:
        seen[:, :, 3] = False
    else:
        seen[..., 0] = True
    if shape[1] == 1:
        return seen
    return np.where(seen, rng.standard_normal(shape), -np.inf).astype(dtype)


def _forward(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
    size = max(shapes[0][-1], 1) ** -0.25  # scores of all sizes are about as large
    arrays = [(x * rng.standard_normal(s)).astype(dtype) for x, s in zip((size, size, 0.3), shapes)]
    return (*arrays, *[_mask(rng, s, dtype) for s in shapes[3:]])


def _backward(rng: np.random.Generator, shapes: Shapes, dtype: np.dtype[Any]) -> Args:
    """The sums are those of the scores, nearly: of either set of attributes."""
    q, k, v, *mask = _forward(rng, shapes, dtype)
    scale, causal = 0.5, False
    sums = ATTENTION_SUMS.reference(q, k, v, *mask, scale=scale, causal=causal)
    delta = 0.3 * rng.standard_normal(sums.shape)
    g = 0.3 * rng.standard_normal((*sums.shape, v.shape[-1]))
    return (q, k, v, sums + dtype.type(1.0), delta.astype(dtype), g.astype(dtype), *mask)


def attention_rows() -> list[Row]:
    """Of attention, its sums and its three gradients."""
    gradients = [f"attention_{name}_grad" for name in ("query", "key", "value")]
    return [
        Row("attention", _forward, CASES, _attrs, wrt=(0, 1, 2)),
        Row("attention_sums", _forward, CASES, _attrs, wrt=(0, 1, 2)),
        *[Row(op, _backward, CASES, _attrs, wrt=tuple(range(6))) for op in gradients],
    ]
