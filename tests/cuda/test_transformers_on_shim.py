"""Transformers on the CUDA test device: sequences in pieces, hidden keys, turned queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from shim_backend import as_cuda, shim_backend
from shim_driver import ShimDriver
from tolerances import assert_close

import gpubp as gp
from gpubp import nn
from gpubp.backends.cuda import CupyBackend
from gpubp.errors import DataError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

X = np.random.default_rng(0).standard_normal((2, 5, 8))


def test_a_sequence_in_pieces_gives_what_a_causal_pass_gives() -> None:
    gp.manual_seed(1)
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, dtype="float64")
    model = nn.TransformerEncoder(layer, 2)
    later = nn.Transformer.generate_square_subsequent_mask(5, "float64")
    caches = model.make_caches(2, 5)
    step = gp.compile(lambda x: model(x, caches=caches), backend=shim_backend())
    found = np.concatenate([step(X[:, :3]), step(X[:, 3:4]), step(X[:, 4:])], 1)
    assert_close(found, model(X, mask=later))


@pytest.mark.parametrize("need_weights", [True, False])
def test_hidden_keys_and_turned_queries(need_weights: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, dtype="float64")
    rotary = nn.RotaryEmbedding(6, interleaved=True)
    padding = np.array([[True] * 5, [False, True, False, False, True]])

    def call(x: Any) -> Any:
        x = rotary(x[:, None])[:, 0]
        return attention(x, x, x, padding, need_weights)[0]

    found = gp.compile(call, backend=shim_backend())(X)
    assert_close(found, call(X))
    assert not found[0].any()


def test_masks_at_once_on_arrays_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, dtype="float64")
    model = nn.TransformerEncoder(layer, 1)
    later = nn.Transformer.generate_square_subsequent_mask(5, "float64")
    padding = np.array([[False] * 5, [False] * 3 + [True] * 2])
    wanted = model(X, mask=later), model(X, src_key_padding_mask=padding)
    attention = model.layers[0].self_attn
    out, weights = attention(X, X, X, padding)
    gpu = as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    x, later, padding = (gpu.to_user_array(a) for a in (X, later, padding))
    assert_close(model(x, later).get(), wanted[0])
    assert_close(model(x, mask=later).get(), wanted[0])
    assert_close(model(x, src_key_padding_mask=padding).get(), wanted[1])
    for options in ((padding,), (padding, True, None)):
        found = attention(x, x, x, *options)
        assert_close(found[0].get(), out)
        assert_close(found[1].get(), weights)
    found = attention(x, x, x, padding, False)
    assert_close(found[0].get(), out)
    assert found[1] is None
    with pytest.raises(DataError, match="do not mix"):
        attention(x, x, x, attn_mask=np.zeros((5, 5)))
