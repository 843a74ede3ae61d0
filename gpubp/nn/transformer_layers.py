"""Layers of transformers (Vaswani et al. 2017, arXiv:1706.03762), with torch's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.errors import unknown_name
from gpubp.nn import functional
from gpubp.nn.arrays import as_array
from gpubp.nn.attention import MultiheadAttention
from gpubp.nn.dropout import Dropout
from gpubp.nn.key_value_cache import KeyValueCache
from gpubp.nn.linear import Linear
from gpubp.nn.module import Module
from gpubp.nn.normalization import LayerNorm

_ACTIVATIONS: dict[str, Callable[..., Any]] = {"relu": ops.relu, "gelu": ops.gelu}
_NAMES: dict[Any, str] = {functional.relu: "relu", functional.gelu: "gelu"}
_NAMES |= {ops.relu: "relu", ops.gelu: "gelu"}

_PLAIN = [Linear, Dropout, Linear]  # what takes rows of any meaning


def _known(activation: str) -> Callable[..., Any]:
    if activation not in _ACTIVATIONS:
        raise unknown_name("activation", activation, _ACTIVATIONS)
    return _ACTIVATIONS[activation]


class _Layer(Module):
    """What both layers have: attention to themselves, and two linear layers for each position.

    Args:
        attentions: the names of the attentions, in the order of their use.
        norms: how many LayerNorms and Dropouts of results.
    """

    _attentions: tuple[str, ...]

    @checked
    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[..., Any] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        if isinstance(activation, str):
            _known(activation)
        for name in self._attentions:
            attention = MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
            )
            setattr(self, name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype)
        self.norm_first = norm_first
        numbers = range(1, len(self._attentions) + 2)
        for i in numbers:
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, True, bias, dtype))
        for i in numbers:
            setattr(self, f"dropout{i}", Dropout(dropout))
        # A module that is called becomes a part of this one, as in torch.
        plain = not isinstance(activation, (str, Module))
        self.activation: Any = _NAMES.get(activation, activation) if plain else activation

    def constructor_arguments(self) -> dict[str, Any]:
        """What an equal module is made with; for files of models."""
        attention = self.self_attn
        return {
            "d_model": attention.embed_dim,
            "nhead": attention.num_heads,
            "dim_feedforward": self.linear1.out_features,
            "dropout": self.dropout.p,
            "activation": self.activation,
            "layer_norm_eps": self.norm1.eps,
            "batch_first": attention.batch_first,
            "norm_first": self.norm_first,
            "bias": self.linear1.bias is not None,
            "dtype": str(self.linear1.weight.dtype),
        }

    def _feed_forward(self, x: Any) -> Any:
        activation = self.activation
        plain = isinstance(activation, str)
        if plain:
            activation = _known(activation)
        plain = plain and [type(m) for m in (self.linear1, self.dropout, self.linear2)] == _PLAIN
        # As rows of one matrix, an activation is done with the product before it, and its gradient
        # with the one behind: neither stands in memory beside what it is made of.
        rows = ops.reshape(x, (-1, x.shape[-1])) if plain and len(x.shape) > 2 else x
        out = self.linear2(self.dropout(activation(self.linear1(rows))))
        return out if rows is x else ops.reshape(out, (*x.shape[:-1], out.shape[-1]))

    def _residual(self, number: int, x: Any, block: Callable[[Any], Any]) -> Any:
        """x plus a block's result, with LayerNorm before the block or behind the sum."""
        norm, dropout = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        if self.norm_first:
            return ops.add(x, dropout(block(norm(x))))
        return norm(ops.add(x, dropout(block(x))))


class TransformerEncoderLayer(_Layer):
    """Attention of a sequence to itself, then two linear layers for each position.

    Args:
        d_model: the width E.
        nhead: heads of the attention.
        dim_feedforward: the width between the two linear layers.
        dropout: the probability of all dropouts.
        activation: between the two linear layers: "relu", "gelu", or a function or module.
        layer_norm_eps: of the LayerNorms.
        batch_first: whether arrays are (N, L, E), not (L, N, E).
        norm_first: whether LayerNorms stand before attention and linear layers, not behind.
        bias: whether linear layers, attention and LayerNorms have one.
        dtype: float32 or float64.

    Raises:
        ShapeError: a size is below 1, or nhead does not divide d_model.
        UnknownNameError: an activation of another name.
    """

    _attentions = ("self_attn",)

    def forward(
        self,
        src: Any,
        src_mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
    ) -> Any:
        """Map (N, L, E), (L, N, E) or (L, E) to the same shape.

        Args:
            src: the sequences.
            src_mask: (L, L) or (N * nhead, L, L): True hides; floats are added.
            src_key_padding_mask: (N, L) or (L,), likewise.
            is_causal: says that src_mask hides all later positions; see MultiheadAttention.
            cache: earlier keys and values, for sequences that come piece by piece; no masks then.
        """

        def attend(x: Any) -> Any:
            masks = src_key_padding_mask, False, src_mask, False, is_causal
            return self.self_attn(x, x, x, *masks, cache=cache)[0]

        x = self._residual(1, as_array(self, src), attend)
        return self._residual(2, x, self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """Attention of a sequence to itself, then to another one, then two linear layers.

    Arguments as for TransformerEncoderLayer.
    """

    _attentions = ("self_attn", "multihead_attn")

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
    ) -> Any:
        """Map (N, T, E), (T, N, E) or (T, E) to the same shape.

        Args:
            tgt: the sequences.
            memory: what they attend to: (N, S, E), (S, N, E) or (S, E).
            tgt_mask, memory_mask: (T, T) and (T, S), or one for each sample and head, (N * nhead,
                ...): True hides; floats are added.
            tgt_key_padding_mask, memory_key_padding_mask: (N, T) and (N, S), likewise.
            tgt_is_causal, memory_is_causal: say that the mask hides all later positions; see
                MultiheadAttention.
            cache: earlier keys and values of tgt, which comes piece by piece; without tgt_mask and
                tgt_key_padding_mask.
        """
        memory = as_array(self, memory)

        def attend(x: Any) -> Any:
            masks = tgt_key_padding_mask, False, tgt_mask, False, tgt_is_causal
            return self.self_attn(x, x, x, *masks, cache=cache)[0]

        def look(x: Any) -> Any:
            masks = memory_key_padding_mask, False, memory_mask, False, memory_is_causal
            return self.multihead_attn(x, memory, memory, *masks)[0]

        x = self._residual(1, as_array(self, tgt), attend)
        x = self._residual(2, x, look)
        return self._residual(3, x, self._feed_forward)
