"""A causal transformer of symbols, written once for both libraries.

`nn` is torch.nn or gpubp.nn.
"""

from __future__ import annotations

from typing import Any

SYMBOLS, LENGTH, WIDTH, HEADS, LAYERS = 65, 64, 64, 4, 2


def char(nn: Any, *, norm_first: bool = True, activation: str = "gelu", **dtype: Any) -> Any:
    """Two layers of width 64 with four heads over 64 of 65 symbols; no dropout."""

    class Char(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(
                *(WIDTH, HEADS, 4 * WIDTH, 0.0, activation),
                batch_first=True,
                norm_first=norm_first,
                **dtype,
            )
            self.symbols = nn.Embedding(SYMBOLS, WIDTH, **dtype)
            self.places = nn.Embedding(LENGTH, WIDTH, **dtype)
            norm = nn.LayerNorm(WIDTH, **dtype)
            self.encoder = nn.TransformerEncoder(layer, LAYERS, norm, enable_nested_tensor=False)
            self.head = nn.Linear(WIDTH, SYMBOLS, **dtype)

        def forward(self, x: Any) -> Any:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], **dtype)
            embedded = self.symbols(x) + self.places.weight[: x.shape[1]]
            return self.head(self.encoder(embedded, mask=mask, is_causal=True))

    return Char()
