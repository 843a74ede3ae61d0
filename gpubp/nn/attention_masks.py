"""Masks of attention as torch's modules take them: True hides a key, floats are added."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from gpubp import ops
from gpubp.arguments import truth
from gpubp.core import describe
from gpubp.errors import DTypeError, ShapeError
from gpubp.nn.arrays import as_array
from gpubp.ops.constant import constant
from gpubp.ops.spec import beside


class Sizes(NamedTuple):
    """Of one call of attention: samples, heads, queries, keys."""

    batch: int
    heads: int
    queries: int
    keys: int


def options(owner: object, **given: Any) -> tuple[bool, ...]:
    """Options of a call; ArgumentError for what is neither True nor False."""
    return tuple(truth(type(owner).__name__, name, value) for name, value in given.items())


def described(*arrays: Any) -> str:
    """Arrays for an error: their dtypes and shapes."""
    return ", ".join(map(describe, arrays))


def merged_mask(
    owner: object, attn_mask: Any, key_padding_mask: Any, sizes: Sizes, added: int, like: Any
) -> Any:
    """Both masks as one for `ops.scaled_dot_product_attention`; None if there is none.

    Args:
        owner: the module, for errors.
        attn_mask: (L, S), (N * heads, L, S) or None.
        key_padding_mask: (N, S) or None.
        sizes: of the call; S without what is added.
        added: keys that are appended to the S ones, and are always seen.
        like: the query: floats take its dtype.

    Returns:
        Booleans, True where a query may look, if both masks are of booleans; else floats that are
        added to scores. It broadcasts to (N, heads, L, S + added).

    Raises:
        ShapeError: a mask has another shape.
        DTypeError: a mask is of integers.
    """
    n, heads, length, keys = sizes
    found = []
    if attn_mask is not None:
        mask = _checked(owner, "attn_mask", attn_mask, [(length, keys), (n * heads, length, keys)])
        parted = (n, heads, length, keys) if mask.ndim == 3 else (1, 1, length, keys)
        found.append(ops.reshape(mask, parted))
    if key_padding_mask is not None:
        mask = _checked(owner, "key_padding_mask", key_padding_mask, [(n, keys)])
        found.append(ops.reshape(mask, (n, 1, 1, keys)))
    if not found:
        return None
    if all(mask.dtype == bool for mask in found):
        merged = ops.logical_not(found[0] if len(found) == 1 else ops.logical_or(*found))
    else:
        floats = [_floats(mask, like) for mask in found]
        merged = floats[0] if len(found) == 1 else ops.add(*floats)
    if not added:
        return merged
    seen = np.full((*merged.shape[:-1], added), merged.dtype == bool, merged.dtype)
    return ops.concat([merged, constant(seen, merged)], -1)


def _checked(owner: object, name: str, mask: Any, shapes: list[tuple[int, ...]]) -> Any:
    mask = as_array(owner, mask)
    if mask.dtype.kind not in "bf":
        raise DTypeError(
            f"{type(owner).__name__}: got {name} {describe(mask)}, expected booleans (True: "
            "hidden) or floats (added to the scores)."
        )
    if tuple(mask.shape) not in shapes:
        raise ShapeError(
            f"{type(owner).__name__}: got {name} {describe(mask)}, expected "
            f"{' or '.join(map(str, shapes))}."
        )
    return mask


def _floats(mask: Any, like: Any) -> Any:
    if mask.dtype == bool:
        mask = beside(mask, like)
        return ops.astype(ops.where(mask, -math.inf, 0.0), like.dtype)
    return ops.astype(mask, like.dtype)
