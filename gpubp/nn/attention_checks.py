"""What a multi-head attention must have before it computes: sizes, weights, a cache that fits."""

from __future__ import annotations

from typing import Any

from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.nn.key_value_cache import checked_cache
from gpubp.nn.module import Module


def check_sizes(module: Any) -> None:
    """Raises ShapeError, DataError: sizes or a probability with which there is no attention."""
    sizes = module.embed_dim, module.num_heads, module.kdim, module.vdim
    if min(sizes) < 1 or module.embed_dim % module.num_heads:
        raise ShapeError(
            f"MultiheadAttention: got embed_dim={sizes[0]}, num_heads={sizes[1]}, kdim="
            f"{sizes[2]}, vdim={sizes[3]}, expected sizes of at least 1, and an embed_dim that "
            "num_heads divides."
        )
    if not 0.0 <= module.dropout <= 1.0:
        raise DataError(f"MultiheadAttention: dropout must be in [0, 1], got {module.dropout}.")


def check_weights(module: Module) -> None:
    """Weights that belong together are all there, or none of them is.

    Raises:
        ArgumentError: a part of them was set to None (where torch ends in an assertion).
    """
    learnt = [name for name in ("bias_k", "bias_v") if getattr(module, name) is None]
    if len(learnt) == 1:
        other = "bias_v" if learnt[0] == "bias_k" else "bias_k"
        raise ArgumentError(
            f"MultiheadAttention: {learnt[0]} is None and {other} is not, expected a learnt key "
            f"and a learnt value, or neither: set {other} to None too."
        )
    if module.in_proj_weight is not None:
        return
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    gone = [name for name in names if getattr(module, name) is None]
    if gone:
        raise ArgumentError(
            f"MultiheadAttention: in_proj_weight and {', '.join(gone)} are None, expected "
            f"in_proj_weight (3 E, E), or all of {', '.join(names)}."
        )


def check_cached(module: Any, cache: Any, arrays: tuple[Any, ...], masks: tuple[Any, ...]) -> None:
    """Raises ArgumentError: a cache where it cannot be used."""
    checked_cache(module, cache)
    query, key, value = arrays
    plain = module.bias_k is None and not module.add_zero_attn
    if not (plain and query is key and key is value) or any(m is not None for m in masks):
        raise ArgumentError(
            "MultiheadAttention: a cache takes one array as query, key and value, no masks, "
            "and a module without add_bias_kv and add_zero_attn."
        )
