"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762), with torch's parameters."""

from __future__ import annotations

import math
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.errors import ArgumentError, ShapeError
from gpubp.nn.arrays import as_array
from gpubp.nn.attention_checks import check_cached, check_sizes, check_weights
from gpubp.nn.attention_masks import Sizes, described, merged_mask, options
from gpubp.nn.init import filled, xavier_normal_, xavier_uniform_
from gpubp.nn.key_value_cache import KeyValueCache
from gpubp.nn.linear import Linear
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter
from gpubp.ops.attention import attention_weights
from gpubp.ops.spec import beside, promote


class MultiheadAttention(Module):
    """Attention of several heads, each with a share of the width, between linear layers.

    A query whose keys are all hidden gets 0 from every head (PyTorch's module gives NaN there or
    not, as need_weights and its fast path have it; its scaled_dot_product_attention gives 0).

    Args:
        embed_dim: the width E of queries and of the result.
        num_heads: how many heads; they divide embed_dim.
        dropout: attention weights are dropped with this probability, in training.
        bias: whether the projections add a bias.
        add_bias_kv: whether a learnt key and a learnt value are appended to each sequence.
        add_zero_attn: whether a key and a value of zeros are appended.
        kdim, vdim: the widths of keys and of values; None: embed_dim.
        batch_first: whether arrays are (N, L, E), not (L, N, E).
        dtype: float32 or float64.

    Attributes:
        in_proj_weight: (3 E, E), those of queries, keys and values in turn, first Xavier uniform;
            None where kdim or vdim differ from E.
        q_proj_weight, k_proj_weight, v_proj_weight: (E, E), (E, kdim), (E, vdim) in that case.
        in_proj_bias: (3 E,), first 0; or None.
        bias_k, bias_v: (1, 1, E), with add_bias_kv, first Xavier normal; or None.
        out_proj: a Linear(E, E), with a bias of 0 at first.

    Raises:
        ShapeError: a size is below 1, or num_heads does not divide embed_dim.
        DataError: dropout is outside [0, 1].
    """

    @checked
    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.add_zero_attn, self.batch_first = add_zero_attn, batch_first
        check_sizes(self)
        self.head_dim = embed_dim // num_heads
        self._add_input_weights(dtype)
        zeros = filled(3 * embed_dim, 0.0, dtype)
        self.in_proj_bias: Parameter | None = Parameter(zeros) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype)
        if self.out_proj.bias is not None:
            self.out_proj.bias.value = zeros[:embed_dim]
        self.bias_k: Parameter | None = None
        self.bias_v: Parameter | None = None
        if add_bias_kv:
            one = filled((1, 1, embed_dim), 0.0, dtype)
            self.bias_k, self.bias_v = Parameter(one), Parameter(one)
            xavier_normal_(self.bias_k)
            xavier_normal_(self.bias_v)

    def _add_input_weights(self, dtype: Any) -> None:
        """One matrix for all three, or one each where their widths differ."""
        width = self.embed_dim
        self.in_proj_weight: Parameter | None = None
        self.q_proj_weight: Parameter | None = None
        self.k_proj_weight: Parameter | None = None
        self.v_proj_weight: Parameter | None = None
        if self.kdim == self.vdim == width:
            self.in_proj_weight = Parameter(filled((3 * width, width), 0.0, dtype))
            xavier_uniform_(self.in_proj_weight)
            return
        for name, size in zip("qkv", (width, self.kdim, self.vdim), strict=True):
            weight = Parameter(filled((width, size), 0.0, dtype))
            setattr(self, f"{name}_proj_weight", weight)
            xavier_uniform_(weight)

    def constructor_arguments(self) -> dict[str, Any]:
        """What an equal module is made with; for files of models."""
        names = ("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim")
        return {
            **{name: getattr(self, name) for name in (*names, "batch_first")},
            "bias": self.in_proj_bias is not None,
            "add_bias_kv": self.bias_k is not None,
            "dtype": str(self.out_proj.weight.dtype),
        }

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
    ) -> tuple[Any, Any]:
        """Attend. Shapes are written for batch_first; else the first two axes are swapped.

        Args:
            query: (N, L, E), or (L, E) of one sample.
            key: (N, S, kdim), or (S, kdim).
            value: (N, S, vdim), or (S, vdim).
            key_padding_mask: (N, S) or (S,): True hides a key; floats are added to its scores.
            need_weights: whether to return the weights too. Without them attention may run in
                blocks that never store its scores.
            attn_mask: (L, S) or (N * num_heads, L, S): True hides a key from a query; floats are
                added to the scores.
            average_attn_weights: whether the returned weights are the mean over heads.
            is_causal: says that attn_mask, which must be given, hides all later keys: without
                weights and padding, that rule is applied in its stead.
            cache: keys and values of earlier calls, to which those of this one are appended; each
                query sees those up to its own position. For one array as query, key and value,
                and without masks.

        Returns:
            (N, L, E) or (L, E); and the weights after dropout: (N, L, S), without average_attn_
            weights (N, num_heads, L, S), without N for one sample; or None.

        Raises:
            ShapeError: shapes do not fit.
            DTypeError: a mask is of integers.
            ArgumentError: is_causal without a mask; a cache where it cannot be used; weights of
                which a part was set to None.
        """
        need_weights, average_attn_weights, is_causal = options(
            self,
            need_weights=need_weights,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        check_weights(self)
        if cache is not None:
            check_cached(self, cache, (query, key, value), (key_padding_mask, attn_mask))
        elif is_causal and attn_mask is None:
            raise ArgumentError(
                "MultiheadAttention: is_causal is True and attn_mask is None, expected the mask "
                "too: nn.Transformer.generate_square_subsequent_mask(L) makes it."
            )
        query, key, value, single = self._batched(query, key, value)
        mask = None
        sizes = self._sizes(query, key, value, single)
        hinted = is_causal and key_padding_mask is None and not need_weights
        if cache is None:
            if single and key_padding_mask is not None:
                key_padding_mask = ops.expand_dims(as_array(self, key_padding_mask), 0)
            wanted = None if hinted else attn_mask
            added = (self.bias_k is not None) + bool(self.add_zero_attn)
            mask = merged_mask(self, wanted, key_padding_mask, sizes, added, query)
        q, k, v = (self._heads(x, single) for x in self._appended(query, key, value, sizes, single))
        if self.add_zero_attn:
            k, v = (ops.pad(x, (0, 0, 0, 1)) for x in (k, v))
        if cache is not None:
            k, v, mask = cache.update(k, v)
        out, weights = self._attend(q, k, v, mask, hinted and cache is None, need_weights)
        out = self.out_proj(self._joined(out, single))
        if weights is not None and average_attn_weights:
            weights = ops.mean(weights, 1)
        if single:
            out = ops.squeeze(out, 0)
            weights = None if weights is None else ops.squeeze(weights, 0)
        return out, weights

    def _batched(self, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any, bool]:
        """Arrays with a batch; one that is given twice stays one. And whether there was none."""
        found: dict[int, Any] = {}
        for x in (query, key, value):
            if id(x) not in found:
                found[id(x)] = as_array(self, x)
        arrays = [found[id(x)] for x in (query, key, value)]
        ranks = {len(x.shape) for x in arrays}
        if ranks not in ({2}, {3}):
            raise ShapeError(
                f"MultiheadAttention: got query, key and value {described(*arrays)}, "
                "expected three axes each, or two each for one sample."
            )
        if ranks == {2}:
            wide = {id(x): ops.expand_dims(x, 0) for x in arrays}
            arrays = [wide[id(x)] for x in arrays]
        return arrays[0], arrays[1], arrays[2], ranks == {2}

    def _sizes(self, query: Any, key: Any, value: Any, single: bool) -> Sizes:
        first = self.batch_first or single
        batch, length = (query.shape[:2]) if first else (query.shape[1], query.shape[0])
        keys = key.shape[1] if first else key.shape[0]
        leading = (batch, keys) if first else (keys, batch)
        wanted = (self.embed_dim,), (*leading, self.kdim), (*leading, self.vdim)
        if (query.shape[2:], tuple(key.shape), tuple(value.shape)) != wanted:
            raise ShapeError(
                f"MultiheadAttention: got query, key and value "
                f"{described(query, key, value)}, expected the last axes {self.embed_dim}, "
                f"{self.kdim} and {self.vdim}, one batch, and one number of keys and values "
                f"(batch_first is {self.batch_first})."
            )
        return Sizes(batch, self.num_heads, length, keys)

    def _appended(
        self, query: Any, key: Any, value: Any, sizes: Sizes, single: bool
    ) -> tuple[Any, Any, Any]:
        """Projected queries, keys and values, with the learnt key and value behind them."""
        q, k, v = self._projected(query, key, value)
        if self.bias_k is not None:
            axis = 1 if self.batch_first or single else 0
            shape = (sizes.batch, 1) if axis else (1, sizes.batch)
            k, v = (
                ops.concat(
                    [x, ops.broadcast_to(self._parted(beside(b, x)), (*shape, *x.shape[2:]))], axis
                )
                for x, b in ((k, self.bias_k), (v, self.bias_v))
            )
        return q, k, v

    def _projected(self, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
        """All three by heads, (..., heads, size): one product if they come from one array."""
        width, weight, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        if weight is not None and query is key and key is value:
            mixed = ops.linear(query, weight, bias)
            # Axes are parted before they are cut: what is contiguous is parted without a copy.
            parts = ops.reshape(mixed, (*mixed.shape[:2], 3, self.num_heads, self.head_dim))
            q, k, v = (ops.getitem(parts, (slice(None), slice(None), i)) for i in range(3))
            return q, k, v
        arrays = (query, key, value)
        cuts = [slice(i * width, (i + 1) * width) for i in range(3)]
        if weight is None:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        else:
            weights = [ops.getitem(weight, cut) for cut in cuts]
        biases = [None if bias is None else ops.getitem(bias, cut) for cut in cuts]
        found = [ops.linear(x, w, b) for x, w, b in zip(arrays, weights, biases, strict=True)]
        q, k, v = map(self._parted, found)
        return q, k, v

    def _parted(self, x: Any) -> Any:
        return ops.reshape(x, (*x.shape[:2], self.num_heads, self.head_dim))

    def _heads(self, x: Any, single: bool) -> Any:
        """(N, heads, length, size), from arrays of either order."""
        return ops.transpose(x, (0, 2, 1, 3) if self.batch_first or single else (1, 2, 0, 3))

    def _joined(self, x: Any, single: bool) -> Any:
        parts = ops.transpose(x, (0, 2, 1, 3) if self.batch_first or single else (2, 0, 1, 3))
        return ops.reshape(parts, (*parts.shape[:2], self.embed_dim))

    def _attend(self, q: Any, k: Any, v: Any, mask: Any, causal: bool, kept: bool) -> Any:
        """The result of every head, and the weights if they are kept."""
        p = self.dropout if self.training else 0.0
        if not kept:
            attend = ops.scaled_dot_product_attention
            return attend(q, k, v, mask, p, causal), None
        q, k, v = promote(q, k, v, floating=True)
        scale = 1.0 / math.sqrt(self.head_dim)
        weights = ops.dropout(attention_weights(q, k, mask, causal, scale), p)
        return ops.matmul(weights, v), weights
