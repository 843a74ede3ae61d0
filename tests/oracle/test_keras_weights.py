"""Weights of Keras models: the outputs of the model that gets them are those of Keras."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from borrowed_models import IMAGES, OURS, RNG, Attention, First, Ours, check

from gpubp import nn
from gpubp.errors import DataError, UnknownNameError
from gpubp.train import load_keras_weights

pytestmark = pytest.mark.oracle
os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("h5py", reason="h5py is not installed")
keras = pytest.importorskip("keras", reason="keras is not installed")
L = keras.layers


def _shaken(model: Any) -> Any:
    """Other numbers than zeros and ones in all weights; variances above 0."""
    model.set_weights(
        [
            RNG.uniform(0.1, 0.9, w.shape).astype(w.dtype) - 0.3 * (w.ndim > 1)
            for w in model.get_weights()
        ]
    )
    return model


class _AttentionOfKeras(L.Layer):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.layer = L.MultiHeadAttention(2, 3, use_bias=bias)

    def build(self, shape: Any) -> None:
        self.layer.build(shape, shape)

    def call(self, x: Any) -> Any:
        return self.layer(x, x)


# name: (Keras' layers, the epsilon of its normalisations)
SHARED: dict[str, tuple[Callable[[], list[Any]], float]] = {
    "dense": (lambda: [L.Dense(4), L.Dense(3)], 0.0),
    "conv": (lambda: [L.Conv2D(4, (3, 2), strides=2)], 0.0),
    "depthwise": (lambda: [L.DepthwiseConv2D(3, depth_multiplier=2)], 0.0),
    "transposed": (lambda: [L.Conv2DTranspose(4, 3, strides=2)], 0.0),
    "batch norm": (lambda: [L.BatchNormalization()], 1e-3),
    "layer norm": (lambda: [L.LayerNormalization()], 1e-3),
    "rms norm": (lambda: [L.RMSNormalization()], 1e-6),
    "lstm": (lambda: [_steps(L.LSTM)], 0.0),
    "lstm, two layers": (lambda: [_steps(L.LSTM), _steps(L.LSTM)], 0.0),
    "both ways": (lambda: [L.Bidirectional(_steps(L.LSTM))], 0.0),
    "gru": (lambda: [_steps(L.GRU)], 0.0),
    "rnn": (lambda: [_steps(L.SimpleRNN)], 0.0),
    "attention": (lambda: [_AttentionOfKeras(True)], 0.0),
}


def _steps(layer: Any, **arguments: Any) -> Any:
    return layer(4, return_sequences=True, **arguments)


# What only Keras has: (its layers, gpubp's module)
CASES: dict[str, tuple[Callable[[], list[Any]], Ours]] = {
    "eleven dense": (
        lambda: [L.Dense(6) for _ in range(11)],
        Ours(lambda _: nn.Sequential(*[nn.Linear(6, 6) for _ in range(11)])),
    ),
    "no bias": (
        lambda: [L.Dense(4, use_bias=False)],
        Ours(lambda _: nn.Sequential(nn.Linear(6, 4, bias=False))),
    ),
    "conv1d": (
        lambda: [L.Conv1D(4, 3)],
        Ours(lambda _: nn.Sequential(nn.Conv1d(6, 4, 3)), images=True),
    ),
    "conv3d": (
        lambda: [L.Conv3D(4, 2)],
        Ours(lambda _: nn.Sequential(nn.Conv3d(2, 4, 2)), (4, 3, 3, 2), images=True),
    ),
    "groups": (
        lambda: [L.Conv2D(6, 3, groups=3)],
        Ours(lambda _: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), IMAGES, images=True),
    ),
    "transposed 1d": (
        lambda: [L.Conv1DTranspose(4, 3)],
        Ours(lambda _: nn.Sequential(nn.ConvTranspose1d(6, 4, 3)), images=True),
    ),
    "plain batch norm": (
        lambda: [L.BatchNormalization(center=False, scale=False)],
        Ours(lambda _: nn.Sequential(nn.BatchNorm2d(3, 1e-3, affine=False)), IMAGES, images=True),
    ),
    "group norm": (
        lambda: [L.GroupNormalization(3)],
        Ours(lambda _: nn.Sequential(nn.GroupNorm(3, 6, eps=1e-3)), (4, 4, 6), images=True),
    ),
    "prelu": (
        lambda: [L.Dense(4), L.PReLU()],
        Ours(lambda _: nn.Sequential(nn.Linear(5, 4), nn.PReLU(4)), (5,)),
    ),
    "lstm, no bias": (
        lambda: [_steps(L.LSTM, use_bias=False)],
        Ours(lambda _: First(nn.LSTM(6, 4, bias=False, batch_first=True))),
    ),
    "two layers, both ways": (
        lambda: [L.Bidirectional(_steps(L.LSTM)), L.Bidirectional(_steps(L.LSTM))],
        Ours(lambda _: First(nn.LSTM(6, 4, 2, bidirectional=True, batch_first=True))),
    ),
    "gru, both ways": (
        lambda: [L.Bidirectional(_steps(L.GRU))],
        Ours(lambda _: First(nn.GRU(6, 4, bidirectional=True, batch_first=True))),
    ),
    "attention, no bias": (
        lambda: [_AttentionOfKeras(False)],
        Ours(lambda _: Attention(bias=False)),
    ),
}


@pytest.mark.parametrize("name", [*OURS, *CASES])
def test_outputs_are_those_of_keras(tmp_path: Path, name: str) -> None:
    made, eps = SHARED[name] if name in SHARED else (CASES[name][0], 0.0)
    ours = OURS[name] if name in OURS else CASES[name][1]
    theirs = _shaken(keras.Sequential([L.Input(ours.shape), *made()]))
    path = tmp_path / "m.weights.h5"
    theirs.save_weights(path)
    module = ours.make(eps)
    assert load_keras_weights(path, module)
    x = RNG.normal(size=(3, *ours.shape)).astype(np.float32)
    ours.check(module, x, theirs(x, training=False))


def _convnet() -> tuple[Any, Any]:
    theirs = keras.Sequential(
        [
            L.Input((8, 8, 3)), L.Conv2D(4, 3, activation="relu"), L.BatchNormalization(),
            L.MaxPooling2D(2), L.Flatten(), L.Dense(5, activation="relu"), L.Dense(2),
        ]
    )  # fmt: skip
    ours = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4, eps=1e-3), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 2),
    )  # fmt: skip
    return _shaken(theirs), ours


def test_a_convnet_from_a_keras_file(tmp_path: Path) -> None:
    theirs, ours = _convnet()
    path = tmp_path / "m.keras"
    theirs.save(path)
    before = {name: np.array(value) for name, value in ours.state_dict().items()}
    with pytest.raises(DataError, match=r"flatten=\{'5': \(4, height, width\)\}"):
        load_keras_weights(path, ours)
    with pytest.raises(DataError, match="takes 36 numbers, a flattened"):
        load_keras_weights(path, ours, flatten={"5": (4, 2, 3)})
    assert all((before[n] == v).all() for n, v in ours.state_dict().items())
    used = load_keras_weights(path, ours, flatten={"5": (4, 3, 3)})
    assert used["7"] == ["layers/dense_1"] and used["2"] == ["layers/batch_normalization"]
    x = RNG.normal(size=(4, 8, 8, 3)).astype(np.float32)
    check(ours, x, np.asarray(theirs(x)), images=True)


def test_another_epsilon_is_named(tmp_path: Path) -> None:
    theirs, ours = _convnet()
    theirs.save(tmp_path / "m.keras")
    ours[2] = nn.BatchNorm2d(4)
    with pytest.raises(
        DataError, match=r"batch_normalization has epsilon 0\.001, the module 1e-05"
    ):
        load_keras_weights(tmp_path / "m.keras", ours, flatten={"5": (4, 3, 3)})


class _Theirs(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.words = L.Embedding(10, 4)
        self.encoder = keras.Sequential([L.Dense(3), L.Dense(4)])
        self.head = L.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(self.encoder(self.words(x)))


class _Ours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.encoder = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.encoder(self.words(x)))


def test_layers_of_several_parts_are_named(tmp_path: Path) -> None:
    theirs, ours = _Theirs(), _Ours()
    x = np.array([[1, 2, 9]], np.int64)
    theirs(x)
    path = tmp_path / "m.weights.h5"
    _shaken(theirs).save_weights(path)
    used = load_keras_weights(path, ours)  # words and head by name, what is left by its order
    assert used["head"] == ["head"] and used["encoder.1"] == ["encoder/layers/dense_1"]
    np.testing.assert_allclose(np.asarray(ours(x)), theirs(x), rtol=2e-5, atol=2e-6)
    ours.last = nn.Linear(4, 2)
    del ours.head
    with pytest.raises(DataError, match=r"cannot be told which layers are those of 'encoder\.0'"):
        load_keras_weights(path, ours)
    used = load_keras_weights(path, ours, names={"last": "head"})
    assert used["last"] == ["head"]
    with pytest.raises(UnknownNameError, match="'haed'"):
        load_keras_weights(path, ours, names={"last": "haed"})
    with pytest.raises(UnknownNameError, match="'lost'"):
        load_keras_weights(path, ours, names={"lost": "head"})


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    keras.Sequential([L.Input((5,)), L.Dense(4), L.Dense(3)]).save_weights(path)
    two = [nn.Linear(5, 4), nn.Linear(4, 2)]
    with pytest.raises(DataError, match=r"dense_1 gives 1.weight of shape \(3, 4\)"):
        load_keras_weights(path, nn.Sequential(*two))
    with pytest.raises(DataError, match="cannot be told"):
        load_keras_weights(path, nn.Sequential(nn.Linear(5, 4)))
    with pytest.raises(DataError, match="dense has bias, weight; the module has weight"):
        load_keras_weights(path, nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3)))
    with pytest.raises(DataError, match="no module takes 'layers/dense"):
        load_keras_weights(path, nn.Sequential(nn.Embedding(3, 2)), names={"0": "layers/dense"})
    with pytest.raises(DataError, match="has an array 'weight' of its own"):
        load_keras_weights(path, nn.Sequential(nn.Bilinear(2, 3, 4)))
    keras.Sequential([L.Input((4, 5)), L.GRU(3, reset_after=False)]).save_weights(path)
    with pytest.raises(DataError, match="reset_after=False has no counterpart"):
        load_keras_weights(path, nn.GRU(5, 3))
    (tmp_path / "x.h5").write_bytes(b"no such file")
    for name in ("x.h5", "lost.weights.h5"):
        with pytest.raises(DataError, match="is no file of weights of Keras 3"):
            load_keras_weights(tmp_path / name, nn.Linear(2, 2))
