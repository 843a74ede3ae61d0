"""Attention and transformers as modules: caches, hidden keys, masks, first weights, errors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import (
    ArgumentError,
    DataError,
    DTypeError,
    IndexRangeError,
    ShapeError,
    UnknownNameError,
)

N, L, S, E, H = 2, 5, 4, 8, 2
RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal((N, length, E)) for length in (L, S))
LATER = nn.Transformer.generate_square_subsequent_mask(L, "float64")
SIZES = (E, H, 12, 0.0)


def _encoder(**options: Any) -> nn.Module:
    gp.manual_seed(1)
    layer = nn.TransformerEncoderLayer(*SIZES, dtype="float64", **options)
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(E, dtype="float64"))


def _decoder() -> nn.Module:
    gp.manual_seed(1)
    layer = nn.TransformerDecoderLayer(*SIZES, batch_first=True, dtype="float64")
    return nn.TransformerDecoder(layer, 2)


# How many positions come at a time.
PIECES = {"one by one": [1] * L, "a beginning, then one by one": [3, 1, 1], "twice": [2, 3]}


def _in_pieces(call: Any, pieces: list[int], axis: int = 1) -> Any:
    cuts = np.cumsum([0, *pieces])
    parts = [np.take(X, range(a, b), 1) for a, b in itertools.pairwise(cuts)]
    found = [call(p if axis else np.swapaxes(p, 0, 1)) for p in parts]
    return np.concatenate([f if axis else np.swapaxes(f, 0, 1) for f in found], 1)


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_in_pieces_gives_what_a_causal_pass_gives(
    backend: str, pieces: list[int]
) -> None:
    model = _encoder(batch_first=True)
    caches = model.make_caches(N, L + 1)
    step = gp.compile(lambda x: model(x, caches=caches), backend=backend)
    whole = model(X, mask=LATER)
    for _ in range(2):
        assert_close(_in_pieces(step, pieces), whole)
        assert [int(c.position.value) for c in caches] == [L, L]
        for cache in caches:
            cache.reset()


def test_pieces_at_once_in_other_layouts_and_by_decoders() -> None:
    for options in ({"batch_first": True, "norm_first": True, "bias": False}, {}):
        model = _encoder(**options)
        caches = model.make_caches(N, L)
        axis = int(bool(options))
        whole = model(X if axis else np.swapaxes(X, 0, 1), mask=LATER)
        whole = whole if axis else np.swapaxes(whole, 0, 1)
        assert_close(_in_pieces(lambda x: model(x, caches=caches), [2, 1, 2], axis), whole)  # noqa: B023
    decoder = _decoder()
    caches = decoder.make_caches(N, L)
    found = _in_pieces(lambda x: decoder(x, Y, caches=caches), [1, 4])
    assert_close(found, decoder(X, Y, tgt_mask=LATER))


@pytest.mark.parametrize("backend", ["at once", *BACKENDS])
def test_a_cache_without_room_says_so(backend: str) -> None:
    cache = nn.KeyValueCache(1, 1, 2, 3)
    keys = np.ones((1, 1, 2, 3), np.float32)
    step = cache.update if backend == "at once" else gp.compile(cache.update, backend=backend)
    step(keys, keys)
    with pytest.raises((IndexRangeError, DataError), match="range"):
        step(keys, keys)


def test_caches_refuse_what_they_cannot_hold() -> None:
    cache = nn.KeyValueCache(1, 2, 4, 3)
    for shape in [(2, 2, 1, 3), (1, 2, 0, 3), (1, 2, 3), (1, 2, 1, 4)]:
        with pytest.raises(ShapeError, match="KeyValueCache"):
            cache.update(np.ones(shape, np.float32), np.ones(shape, np.float32))
    with pytest.raises(ShapeError, match="at least 1"):
        nn.KeyValueCache(1, 2, 0, 3)
    attention = nn.MultiheadAttention(E, H, batch_first=True, dtype="float64")
    cache = nn.KeyValueCache(N, H, L, E // H, "float64")
    with pytest.raises(ArgumentError, match="one array"):
        attention(X, X, X.copy(), cache=cache)
    with pytest.raises(ArgumentError, match="no masks"):
        attention(X, X, X, attn_mask=LATER, cache=cache)
    model = _encoder(batch_first=True)
    with pytest.raises(ArgumentError, match="got 1 caches, expected one for each of 2"):
        model(X, caches=[cache])


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_that_sees_nothing_gives_the_bias_alone(backend: str, need_weights: bool) -> None:
    attention = nn.MultiheadAttention(E, H, batch_first=True, dtype="float64")
    bias = np.arange(E) * 1.0
    attention.out_proj.bias.value = bias
    hidden = np.array([[False] * S, [True] * S])
    for mask in (hidden, np.where(hidden, -np.inf, 0.5)):

        def call(x: Any, y: Any, mask: Any = mask) -> Any:
            return attention(x, y, y, mask, need_weights)[0]

        found = gp.compile(call, backend=backend)(X, Y)
        assert_close(found[1], np.broadcast_to(bias, (L, E)))
        assert_close(found[0], attention(X[0], Y[0], Y[0])[0])


def test_weights_are_those_that_attention_without_them_uses() -> None:
    attention = nn.MultiheadAttention(E, H, kdim=3, vdim=6, batch_first=True, dtype="float64")
    keys, values = RNG.standard_normal((N, S, 3)), RNG.standard_normal((N, S, 6))
    out, weights = attention(X, keys, values, average_attn_weights=False)
    assert weights.shape == (N, H, L, S)
    assert_close(weights.sum(-1), np.ones((N, H, L)))
    other, none = attention(X, keys, values, need_weights=False)
    assert none is None
    assert_close(other, out)
    turned = nn.MultiheadAttention(E, H, kdim=3, vdim=6, dtype="float64")
    turned.load_state_dict(attention.state_dict())
    again, mean = turned(*(np.swapaxes(a, 0, 1) for a in (X, keys, values)))
    assert_close(np.swapaxes(again, 0, 1), out)
    assert_close(mean, weights.mean(1))


def test_dropped_weights_are_those_that_are_returned() -> None:
    attention = nn.MultiheadAttention(E, 1, 0.5, batch_first=True, dtype="float64")
    _, weights = attention(X, X, X)
    _, kept = attention.eval()(X, X, X)
    dropped = weights == 0.0
    assert dropped.any()
    assert not dropped.all()
    assert_close(weights[~dropped], 2.0 * kept[~dropped])


def test_first_weights_are_spread_as_torchs() -> None:
    packed = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    apart = nn.MultiheadAttention(64, 4, kdim=32)
    bounds = {
        (6 / (64 + 192)) ** 0.5: packed.in_proj_weight,
        (6 / (64 + 64)) ** 0.5: apart.q_proj_weight,
        (6 / (64 + 32)) ** 0.5: apart.k_proj_weight,
        64**-0.5: packed.out_proj.weight,
    }
    for bound, weight in bounds.items():
        assert 0.97 * bound < np.abs(weight.value).max() <= bound
    assert packed.bias_k.value.std() == pytest.approx((2 / (64 + 64)) ** 0.5, rel=0.3)
    assert not packed.in_proj_bias.value.any()
    assert not packed.out_proj.bias.value.any()
    whole = nn.Transformer(16, 2, 1, 1, 32)
    assert np.abs(whole.encoder.layers[0].linear1.weight.value).max() <= (6 / 48) ** 0.5


def test_layers_of_a_stack_are_copies() -> None:
    layer = nn.TransformerEncoderLayer(*SIZES)
    stack = nn.TransformerEncoder(layer, 3)
    slots = list(stack.parameters())
    assert len(slots) == 3 * len(list(layer.parameters()))
    assert len({id(s) for s in slots}) == len(slots)
    state = stack.state_dict()
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(state[f"layers.2.{name}"], value)
    assert "(0-2): 3 x TransformerEncoderLayer(" in repr(stack)


def test_a_causal_mask_is_noticed_and_every_other_is_kept() -> None:
    model = _encoder(batch_first=True)
    causal = model(X, mask=LATER, is_causal=True)
    assert_close(model(X, mask=LATER), causal)
    assert_close(model(X, mask=LATER < 0), causal)
    bent = LATER.copy()
    bent[0, 1] = 0.0
    assert np.abs(model(X, mask=bent) - causal).max() > 1e-3
    f = gp.compile(lambda x: model(x, mask=bent))
    assert_close(f(X), model(X, mask=bent))
    bent[0, 1] = -np.inf  # the program notices: it is a causal one now
    assert_close(f(X), causal)


def test_modules_are_summed_up() -> None:
    model = _encoder(batch_first=True)
    found = nn.summary(model, (N, L, E))
    products = 2 * N * L * (E * 3 * E + E * E + 2 * E * 12) + 2 * 2 * N * L * L * E
    assert found.flops >= 2 * products
    assert found.flops < 2 * products * 1.5
    assert found.parameters == sum(p.size for p in model.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.MultiheadAttention(6, 4), ShapeError, "num_heads divides"),
        (lambda: nn.MultiheadAttention(6, 0), ShapeError, "at least 1"),
        (lambda: nn.MultiheadAttention(6, 2, 1.5), DataError, r"in \[0, 1\], got 1.5"),
        (lambda: nn.TransformerEncoderLayer(6, 2, activation="tan"), UnknownNameError, "tan"),
        (lambda: nn.TransformerEncoder(nn.Linear(2, 2), 0), ShapeError, "at least one layer"),
        (lambda: _call(X[0], X, X), ShapeError, "three axes each"),
        (lambda: _call(X, Y, X), ShapeError, "one number of keys and values"),
        (lambda: _call(X[:, :, :3], X, X), ShapeError, "the last axes 8, 8 and 8"),
        (lambda: _call(X, X[:1], X[:1]), ShapeError, "one batch"),
        (lambda: _call(X, X, X, np.zeros((N, L), int)), DTypeError, "expected booleans"),
        (lambda: _call(X, X, X, np.zeros((L, N))), ShapeError, r"expected \(2, 5\)"),
        (lambda: _call(X, X, X, None, True, LATER[:3]), ShapeError, r"\(5, 5\) or \(4, 5, 5\)"),
        (lambda: _call(X, X, X, is_causal=True), ArgumentError, "expected the mask too"),
        (lambda: _call(X, X, X, None, "yes"), ArgumentError, "need_weights is 'yes'"),
        (lambda: _call(X, X, X, average_attn_weights=X), ArgumentError, "True or False"),
        (lambda: _call(X, X, X, attn_mask="causal"), ArgumentError, "expected an array"),
        (lambda: _call(X, X, X, cache=3), ArgumentError, "cache is 3, expected a KeyValueCache"),
        (lambda: _call(X, None, X), ArgumentError, "got None, expected an array"),
        (lambda: _encoder()(X, caches=3), ArgumentError, "caches is 3, expected a KeyValueCache"),
        (lambda: _encoder()(X, mask="causal"), ArgumentError, "expected an array"),
        (lambda: _encoder()(X, LATER, None, 0.5), ArgumentError, "is_causal is 0.5"),
        (lambda: _decoder()(X, Y, memory_is_causal="no"), ArgumentError, "is_causal is 'no'"),
        (lambda: _decoder()(X, None), ArgumentError, "got None, expected an array"),
        (lambda: nn.KeyValueCache(1, 1, 2, 3).update("x", X), ArgumentError, "an array"),
        (lambda: nn.Transformer(*SIZES[:2], 1, 1)(X, Y), ShapeError, "one batch"),
        (lambda: nn.Transformer(4, 2, 1, 1)(X, X), ShapeError, "the last axis 4"),
        (lambda: nn.Transformer.generate_square_subsequent_mask(-1), ShapeError, "sz is -1"),
        (lambda: nn.RotaryEmbedding(3), ShapeError, "an even dim"),
        (lambda: nn.RotaryEmbedding(2, base=0.0), DataError, "above 0"),
        (lambda: nn.RotaryEmbedding(2)(X), ShapeError, "expected .N, heads, L, D."),
        (lambda: nn.RotaryEmbedding(16)(X[None]), ShapeError, "turned in pairs"),
        (lambda: nn.RotaryEmbedding(2)(X[None], [[0.5]]), DTypeError, "int32 or int64"),
        (lambda: nn.RotaryEmbedding(2, 4)(X[None], np.arange(5)), IndexRangeError, "4"),
        (lambda: ops.rotary_embedding(X, X, X), ShapeError, "with num_heads"),
        (lambda: ops.rotary_embedding(X[None], X, X[0]), ShapeError, "of cos and sin"),
    ],
)
def test_what_cannot_be_is_refused(call: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def _call(*args: Any, **options: Any) -> Any:
    return nn.MultiheadAttention(E, H, batch_first=True, dtype="float64")(*args, **options)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_turned_queries_and_keys_know_their_distance_alone(backend: str, interleaved: bool) -> None:
    """Products of turned vectors depend on the difference of their positions."""
    rotary = nn.RotaryEmbedding(6, 64, 100.0, interleaved)
    q, k = RNG.standard_normal((2, 1, 1, 1, 8))
    turn = gp.compile(rotary, backend=backend)
    products = [
        float((turn(q, np.array([at])) * turn(k, np.array([at - 7]))).sum()) for at in (7, 20, 63)
    ]
    np.testing.assert_allclose(products, products[0], rtol=1e-12)
    many = np.repeat(q, 5, 2)
    found = turn(many)
    assert_close(found, turn(many, np.arange(5)))
    np.testing.assert_array_equal(found[..., 6:], many[..., 6:])
    np.testing.assert_array_equal(found[:, :, 0], q[:, :, 0])
    pair = [0, 1] if interleaved else [0, 3]
    a, b = q[0, 0, 0, pair]
    turned = [a * np.cos(2) - b * np.sin(2), a * np.sin(2) + b * np.cos(2)]
    assert_close(found[0, 0, 2, pair], np.array(turned))


def test_turning_has_the_gradient_of_turning_back() -> None:
    """A rotation's transpose is the rotation by the opposite angle."""
    x, g = RNG.standard_normal((2, 1, 2, 3, 4))
    at = np.array([1, 5, 2])
    rotary = nn.RotaryEmbedding(4, 8)
    found = gp.grad(lambda x: ops.sum(rotary(x, at) * g))(x)
    angles = at[:, None] * 10000.0 ** (-np.arange(0, 4, 2) / 4)
    assert_close(found, ops.rotary_embedding(g, np.cos(angles), -np.sin(angles)))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_activation_is_done_with_the_product_before_it(activation: str) -> None:
    """In all positions of all sequences; a user's own function sees them as they are."""
    x = np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation, batch_first=True)
    run = gp.compile(layer, backend="numba")
    found = run(x)
    names = [part.name for part in run._runner.last.program.parts]
    assert f"matmul+add+{activation}" in names
    seen = []

    def own(y: Any) -> Any:
        seen.append(y.shape)
        return getattr(ops, activation)(y)

    layer.activation = own
    assert_close(gp.compile(layer, backend="numba")(x), found)
    assert seen == [(2, 3, 16)]
