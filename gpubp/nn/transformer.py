"""Encoder and decoder together (Vaswani et al. 2017, arXiv:1706.03762), with torch's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ShapeError
from gpubp.nn.arrays import as_array
from gpubp.nn.init import floating, xavier_uniform_
from gpubp.nn.module import Module
from gpubp.nn.normalization import LayerNorm
from gpubp.nn.transformer_layers import TransformerDecoderLayer, TransformerEncoderLayer
from gpubp.nn.transformer_stacks import TransformerDecoder, TransformerEncoder


class Transformer(Module):
    """An encoder, and a decoder that attends to its result (arXiv:1706.03762).

    Weights of two axes start Xavier uniform.

    Args:
        d_model: the width E.
        nhead: heads of each attention.
        num_encoder_layers, num_decoder_layers: how many.
        dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias: see
            TransformerEncoderLayer.
        custom_encoder, custom_decoder: modules in their stead; or None.
        dtype: float32 or float64.

    Raises:
        ShapeError: a size is below 1, or nhead does not divide d_model.
    """

    @checked
    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[..., Any] = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps)
        rest = (batch_first, norm_first, bias, dtype)
        if custom_encoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, True, bias, dtype)
            encoder = TransformerEncoderLayer(*sizes, *rest)
            custom_encoder = TransformerEncoder(encoder, num_encoder_layers, norm)
        if custom_decoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, True, bias, dtype)
            decoder = TransformerDecoderLayer(*sizes, *rest)
            custom_decoder = TransformerDecoder(decoder, num_decoder_layers, norm)
        self.encoder, self.decoder = custom_encoder, custom_decoder
        for parameter in self.parameters():
            if parameter.ndim > 1:
                xavier_uniform_(parameter)
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def constructor_arguments(self) -> dict[str, Any]:
        """What an equal module is made with; for files of models."""
        return {
            "d_model": self.d_model,
            "nhead": self.nhead,
            "batch_first": self.batch_first,
            "custom_encoder": self.encoder,
            "custom_decoder": self.decoder,
        }

    def forward(
        self,
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        """Map src (N, S, E) and tgt (N, T, E) to (N, T, E); see the layers for other shapes.

        Args:
            src: what the encoder reads.
            tgt: what the decoder reads.
            src_mask, tgt_mask, memory_mask: (S, S), (T, T), (T, S), or one for each sample and
                head: True hides; floats are added.
            src_key_padding_mask, tgt_key_padding_mask, memory_key_padding_mask: (N, S), (N, T),
                (N, S), likewise.
            src_is_causal, tgt_is_causal: see TransformerEncoder and TransformerDecoder.
            memory_is_causal: see TransformerDecoderLayer.

        Raises:
            ShapeError: another width than d_model, or different batches.
        """
        src, tgt = as_array(self, src), as_array(self, tgt)
        axis = 0 if self.batch_first else 1
        batches = {x.shape[axis] for x in (src, tgt) if len(x.shape) == 3}
        if len(batches) > 1 or {*src.shape[-1:], *tgt.shape[-1:]} != {self.d_model}:
            raise ShapeError(
                f"Transformer: got src {describe(src)} and tgt {describe(tgt)}, expected one "
                f"batch (axis {axis}) and the last axis {self.d_model}."
            )
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    @checked
    def generate_square_subsequent_mask(sz: int, dtype: Any = "float32") -> NDArray[Any]:
        """(sz, sz): 0 where a position may look, at itself and before, and -inf elsewhere."""
        if sz < 0:
            raise ShapeError(f"generate_square_subsequent_mask: sz is {sz}, expected at least 0.")
        return np.triu(np.full((sz, sz), -np.inf, floating(dtype, (sz, sz))), 1)
