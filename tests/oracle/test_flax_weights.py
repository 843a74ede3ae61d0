"""Weights of Flax models: the outputs of the module that gets them are those of Flax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from borrowed_models import IMAGES, OURS, RNG, Ours, check

from gpubp import nn
from gpubp.errors import DataError
from gpubp.train import load_flax_weights

pytestmark = pytest.mark.oracle
jax = pytest.importorskip("jax", reason="jax is not installed")
linen = pytest.importorskip("flax.linen", reason="flax is not installed")
nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")


def _shaken(tree: Any) -> Any:
    """Other numbers than zeros and ones; variances above 0."""
    return jax.tree.map(lambda a: RNG.uniform(0.1, 0.9, a.shape).astype(np.float32) / 2, tree)


def _both_ways() -> Any:
    return linen.Bidirectional(linen.RNN(linen.LSTMCell(4)), linen.RNN(linen.LSTMCell(4)))


# name: (Flax' layers, the epsilon of its normalisations)
CASES: dict[str, tuple[Callable[[], list[Any]], float]] = {
    "dense": (lambda: [linen.Dense(4), linen.Dense(3)], 0.0),
    "conv": (lambda: [linen.Conv(4, (3, 2), padding="VALID", strides=2)], 0.0),
    "depthwise": (
        lambda: [linen.Conv(6, (3, 3), padding="VALID", feature_group_count=3)],
        0.0,
    ),
    "transposed": (
        lambda: [linen.ConvTranspose(4, (3, 3), strides=(2, 2), padding="VALID")],
        0.0,
    ),
    "batch norm": (lambda: [linen.BatchNorm(use_running_average=True)], 1e-5),
    "layer norm": (lambda: [linen.LayerNorm()], 1e-6),
    "rms norm": (lambda: [linen.RMSNorm()], 1e-6),
    "lstm": (lambda: [linen.RNN(linen.LSTMCell(4))], 0.0),
    "lstm, two layers": (  # the fast ones, which have all gates in one
        lambda: [linen.RNN(linen.OptimizedLSTMCell(4)), linen.RNN(linen.OptimizedLSTMCell(4))],
        0.0,
    ),
    "both ways": (lambda: [_both_ways()], 0.0),
    "gru": (lambda: [linen.RNN(linen.GRUCell(4))], 0.0),
    "rnn": (lambda: [linen.RNN(linen.SimpleCell(4))], 0.0),
    "attention": (lambda: [linen.MultiHeadDotProductAttention(2)], 0.0),
    "prelu": (lambda: [linen.Dense(4), linen.PReLU()], 0.0),
}
_ONE_SLOPE = Ours(lambda _: nn.Sequential(nn.Linear(6, 4), nn.PReLU()))


class _Chain(linen.Module):
    layers: Callable[[], list[Any]]

    @linen.compact
    def __call__(self, x: Any) -> Any:
        for layer in self.layers():
            x = layer(x)
        return x


@pytest.mark.parametrize("name", [*OURS, "prelu"])
def test_outputs_are_those_of_flax(name: str) -> None:
    layers, eps = CASES[name]
    ours = OURS.get(name, _ONE_SLOPE)
    theirs = _Chain(layers)
    x = RNG.normal(size=(3, *ours.shape)).astype(np.float32)
    variables = _shaken(theirs.init(jax.random.key(0), x))
    module = ours.make(eps)
    load_flax_weights(variables, module)
    ours.check(module, x, theirs.apply(variables, x))


class _Convnet(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.relu(linen.Conv(4, (3, 3), padding="VALID")(x))
        x = linen.BatchNorm(use_running_average=True)(x)
        x = linen.relu(linen.Dense(5)(x.reshape(len(x), -1)))
        return linen.Dense(2)(x)


def _ours() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5),
        nn.ReLU(), nn.Linear(5, 2),
    )  # fmt: skip


def test_files_of_three_kinds(tmp_path: Path) -> None:
    from flax import serialization, traverse_util
    from orbax import checkpoint
    from safetensors.numpy import save_file

    x = RNG.normal(size=(3, *IMAGES)).astype(np.float32)
    variables = _shaken(_Convnet().init(jax.random.key(0), x))
    expected = np.asarray(_Convnet().apply(variables, x))
    packed, flat, folder = tmp_path / "m.msgpack", tmp_path / "m.safetensors", tmp_path / "orbax"
    packed.write_bytes(serialization.to_bytes(variables))
    save_file(traverse_util.flatten_dict(variables, sep="."), flat)
    with checkpoint.StandardCheckpointer() as saver:
        saver.save(folder, variables)
    for source in (packed, flat, folder, variables):
        module = _ours()
        used = load_flax_weights(source, module, flatten={"4": (4, 6, 6)})
        assert used["6"] == ["Dense_1"]
        check(module, x, expected, images=True)
    (tmp_path / "bad.msgpack").write_bytes(b"\xc1")
    with pytest.raises(DataError, match="is no file of flax"):
        load_flax_weights(tmp_path / "bad.msgpack", _ours())
    with pytest.raises(DataError, match="there is no such file"):
        load_flax_weights(tmp_path / "no.msgpack", _ours())
    with pytest.raises(DataError, match="say their shape before it"):
        load_flax_weights(variables, _ours())
    with pytest.raises(DataError, match="has no layers as Flax names"):
        load_flax_weights({"a": {"b": np.zeros(2)}}, _ours())


class _Nnx(nnx.Module):
    def __init__(self, rngs: Any) -> None:
        self.words = nnx.Embed(10, 6, rngs=rngs)
        self.body = nnx.Sequential(nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs))
        self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 6, rngs=rngs, decode=False)
        self.rnn = nnx.RNN(nnx.GRUCell(6, 4, rngs=rngs))
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(4, 3, rngs=rngs))
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.attention(self.norm(self.body(self.words(tokens))))
        return self.lstm(self.rnn(self.drop(x)))


class _Gpubp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        self.norm = nn.BatchNorm1d(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.rnn = nn.GRU(6, 4, batch_first=True)
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, tokens: Any) -> Any:
        x = self.body(self.words(tokens))
        x = self.norm(x.swapaxes(1, 2)).swapaxes(1, 2)
        return self.lstm(self.rnn(self.attention(x, x, x, need_weights=False)[0])[0])[0]


def test_a_model_of_nnx() -> None:
    theirs = _Nnx(nnx.Rngs(0))
    graph, state, rest = nnx.split(theirs, (nnx.Param, nnx.BatchStat), ...)
    state = _shaken(state)
    tokens = RNG.integers(0, 10, (3, 7))
    expected = np.asarray(nnx.merge(graph, state, rest)(tokens))
    for source in (state, nnx.to_pure_dict(state), nnx.state(nnx.merge(graph, state, rest))):
        ours = _Gpubp()
        used = load_flax_weights(source, ours)
        assert used["body.1"] == ["body/layers/1"] and used["rnn"] == ["rnn/cell"]
        ours.eval()
        np.testing.assert_allclose(np.asarray(ours(tokens)), expected, rtol=2e-5, atol=2e-6)


def test_layers_that_cannot_be_told_apart_are_named() -> None:
    tree = {name: {"kernel": np.ones((3, 3), np.float32)} for name in ("first", "out")}
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    with pytest.raises(DataError, match=r"those of '0', '1' \(linear\): there are 'first', 'out'"):
        load_flax_weights(tree, module)
    assert load_flax_weights(tree, module, names={"0": "out", "1": "first"})["0"] == ["out"]
    blocks = {f"block_{i}": {"Dense_0": {"kernel": np.full((3, 3), i)}} for i in (10, 2)}
    assert load_flax_weights(blocks, module)["0"] == ["block_2/Dense_0"]
    np.testing.assert_array_equal(np.asarray(module.state_dict()["1.weight"]), 10.0)
