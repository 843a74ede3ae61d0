"""Calls of attention and transformers with arguments that PyTorch's database leaves out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch

N, L, S, E, H = 2, 4, 5, 6, 2

Case = tuple[str, dict[str, Any], list[Any]]


def cases(kind: Any) -> Iterator[Case]:
    """(module, options, arguments by position) in a dtype of torch's."""
    make = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, generator=make, dtype=torch.float64).to(kind).requires_grad_()

    hidden = torch.rand(N, S, generator=make) < 0.4
    hidden[:, 0] = False
    floats = torch.randn(N, S, generator=make, dtype=torch.float64).to(kind)
    crossed = torch.rand(L, S, generator=make) < 0.3
    crossed[:, 0] = False
    each = torch.randn(N * H, L, S, generator=make, dtype=torch.float64).to(kind)
    below = torch.full((L, L), -math.inf, dtype=kind).triu(1)
    shapes = {True: ((N, L, E), (N, S, E)), False: ((L, N, E), (S, N, E))}
    paddings, masks = (None, hidden, floats), (None, crossed, each)
    for first, weights in itertools.product((True, False), (True, False)):
        attention = {"embed_dim": E, "num_heads": H, "batch_first": first}
        for (i, padding), mask in itertools.product(enumerate(paddings), masks):
            if padding is not None and mask is not None and padding.dtype != mask.dtype:
                continue  # torch warns that it will not take both
            q, k = (drawn(*s) for s in shapes[first])
            more = {"add_bias_kv": i == 1, "add_zero_attn": i == 2}
            yield "MultiheadAttention", {**attention, **more}, [q, k, k, padding, weights, mask]
    q, k = (drawn(*s) for s in shapes[True])
    attention = {"embed_dim": E, "num_heads": H, "batch_first": True}
    apart = {**attention, "kdim": 3, "vdim": 5}
    for bias in (True, False):
        given = [drawn(N, L, E), drawn(N, S, 3), drawn(N, S, 5)]
        yield "MultiheadAttention", {**apart, "bias": bias}, given
    yield "MultiheadAttention", {**attention, "kdim": 3}, [q, drawn(N, S, 3), k]
    yield "MultiheadAttention", attention, [q, k, k, hidden, True, None, False]
    yield "MultiheadAttention", attention, [q, q, q, None, False, below, True, True]
    yield "MultiheadAttention", attention, [q, q, q, None, True, below, True, True]
    yield "MultiheadAttention", attention, [q, q, k[:, :L], hidden[:, :L], False, below]
    yield from _transformers(drawn, hidden, crossed, below)


def _transformers(drawn: Any, hidden: Any, crossed: Any, below: Any) -> Iterator[Case]:
    sizes = {"d_model": E, "nhead": H, "dim_feedforward": 8, "dropout": 0.0}
    for norm_first in (True, False):
        options = {**sizes, "batch_first": True, "norm_first": norm_first, "layer_norm_eps": 1e-3}
        x = drawn(N, S, E)
        smooth = {**options, "activation": "gelu"}
        yield "TransformerEncoderLayer", smooth, [x, None, hidden]
        yield "TransformerEncoderLayer", {**options, "activation": torch.nn.SiLU()}, [x]
        yield "TransformerEncoderLayer", smooth, [x[:, :L].detach(), below, None, True]
        tgt = drawn(N, L, E)
        masks = [below, crossed, None, hidden, True, False]
        yield "TransformerDecoderLayer", smooth, [tgt, x, *masks]
        whole = {**smooth, "num_encoder_layers": 2, "num_decoder_layers": 2}
        yield "Transformer", whole, [x, tgt, None, below, crossed, hidden, None, hidden]
