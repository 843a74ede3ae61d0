"""The networks that are measured, with their data and initial weights.

Everything is a function of the row alone, so that every process makes the same arrays by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.nets import (
    CHAR,
    CIFAR,
    CNN8,
    GRU,
    LENET,
    LONG,
    LSTM,
    MF,
    RESNET8,
    Activation,
    Factors,
    Linear,
    Network,
    Shape,
    products,
    shape_behind,
    weights,
)
from gpubp.errors import unknown_name

ACTIVATIONS = ("relu", "sigmoid", "tanh", "gelu")
OPTIMIZERS = ("sgd", "adam")
LEARNING_RATES = {"sgd": 0.05, "adam": 1e-3}


@dataclass(frozen=True)
class Row:
    """A network and how it is trained: with cross-entropy, or the mean square of ratings' errors.

    Attributes:
        name: in tables.
        layers: widths of a dense network, the input's first.
        batch: samples a step.
        batches: steps an epoch; the resident data hold `batches * batch` samples.
        epochs: in one timed call.
        activation: between dense layers.
        data: "random", or "digits" for the bundled images.
        tolerance: of losses and running statistics of one epoch, relative to the largest: rounding,
            grown by up to 32 updates.
        precision: "float32", or on a GPU "tf32" or "bf16" (with float32 weights).
        image: (channels, height, width) of one sample, of a network that is no dense one.
        net: the layers of such a network.
        length: symbols of one sample, of a network that begins with Symbols; it tells the next
            symbol at each position.
        sequence: (time, inputs) of one sample, of a network of sequences.
    """

    name: str
    layers: tuple[int, ...]
    batch: int
    batches: int = 8
    epochs: int = 4
    activation: str = "relu"
    data: str = "random"
    precision: str = "float32"
    tolerance: float = 1e-5
    image: Shape = ()
    net: Network = ()
    length: int = 0
    sequence: Shape = ()

    @property
    def network(self) -> Network:
        """Every layer, of a dense network too."""
        if self.net:
            return self.net
        first, *others = map(Linear, self.layers[1:])
        return (first, *(x for layer in others for x in (Activation(self.activation), layer)))

    @property
    def sample(self) -> Shape:
        """The shape of one sample."""
        if self.ratings:
            return (2,)
        return (self.length,) if self.length else self.image or self.sequence or self.layers[:1]

    @property
    def ratings(self) -> bool:
        """Samples are pairs (user, item), and what is learnt are numbers."""
        return isinstance(self.network[0], Factors)

    @property
    def classes(self) -> int:
        return shape_behind(self.network, self.sample)[0]

    @property
    def samples(self) -> int:
        return self.batches * self.batch

    @property
    def steps(self) -> int:
        """Steps in one timed call."""
        return self.batches * self.epochs

    @property
    def flops(self) -> float:
        """Of a step: the products and convolutions forward, for the weights' gradients and for the
        inputs' gradients, the data's own left out; 2 for each multiply-add."""
        sizes = products(self.network, self.sample)
        return 2.0 * self.batch * (3 * sum(sizes) - sizes[0])


@dataclass(frozen=True)
class Task:
    """A row with an optimiser: what one contender is asked to do."""

    row: Row
    optimizer: str

    @property
    def lr(self) -> float:
        return LEARNING_RATES[self.optimizer]

    def __str__(self) -> str:
        return f"{self.row.name} {self.optimizer}"


TABLE = {
    row.name: row
    for row in (
        Row("xor", (2, 16, 2), 32, batches=16, epochs=64),
        Row("rl", (8, 64, 64, 4), 64, batches=16, epochs=64),
        Row("digits", (64, 100, 10), 200, batches=7, epochs=64),
        Row("mnist", (784, 128, 10), 128, batches=32, epochs=8),
        Row("mnistdeep", (784, 512, 256, 10), 256, batches=16, epochs=3),
        Row("wide", (1024, 2048, 2048, 1024), 1024, batches=3, epochs=1),
        Row("digits-sigmoid", (64, 100, 10), 200, 7, 64, "sigmoid"),
        Row("digits-tanh", (64, 100, 10), 200, 7, 64, "tanh"),
        Row("digits-gelu", (64, 100, 10), 200, 7, 64, "gelu"),
        Row("odd", (37, 53, 29, 7), 77, batches=16, epochs=64),
        Row("even", (40, 56, 32, 8), 80, batches=16, epochs=64),
        Row("cnn8", (), 64, batches=8, epochs=8, image=(1, 8, 8), net=CNN8),
        Row("lenet", (), 128, batches=4, epochs=3, image=(1, 28, 28), net=LENET),
        Row("cifar", (), 64, batches=2, epochs=2, image=(3, 32, 32), net=CIFAR),
        # Adam's first steps are signs of gradients, of tiny ones too: PyTorch's own results in its
        # two orders of memory are 5.5e-5 apart.
        Row(
            *("resnet8", (), 64),
            batches=2,
            epochs=2,
            image=(3, 32, 32),
            net=RESNET8,
            tolerance=1.5e-4,
        ),
        Row("char", (), 16, batches=4, epochs=3, net=CHAR, length=64),
        Row("lstm", (), 64, batches=4, epochs=4, sequence=(28, 28), net=LSTM),
        Row("gru", (), 32, batches=4, epochs=4, sequence=(50, 32), net=GRU),
        Row("mf", (), 1024, batches=16, epochs=4, net=MF),
        Row("long", (), 16, batches=4, epochs=2, sequence=(512, 16), net=LONG),
    )
}


def find_row(name: str) -> Row:
    """A row by name, or one of your own size: `64-100-10/200` (layers/batch).

    Raises:
        UnknownNameError: neither.
    """
    if name in TABLE:
        return TABLE[name]
    if re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+/[1-9]\d*", name):
        layers, batch = name.split("/")
        return Row(name, tuple(map(int, layers.split("-"))), int(batch))
    raise unknown_name("row", name, [*TABLE, "64-100-10/200"])


def make_data(row: Row) -> tuple[NDArray[Any], NDArray[Any]]:
    """X (samples, *sample) float32 and labels (samples,) int64; every class occurs if it can.

    Of symbols X is int64, and there is a label for each position: (samples, length). Of ratings X
    is int64, (samples, 2), and y float32.
    """
    if row.data == "digits":
        from gpubp.data import load_digits

        X, _, y, _ = load_digits(split=True)
        return X[: row.samples], y[: row.samples]
    rng = np.random.default_rng(1)
    if isinstance(layer := row.network[0], Factors):
        pairs = rng.integers(0, (layer.users, layer.items), (row.samples, 2))
        return pairs, rng.standard_normal(row.samples, np.float32)
    if row.length:
        # A walk round the symbols: the next one is near, so that there is something to learn.
        steps = rng.integers(1, 4, (row.samples, row.length + 1))
        walks = np.cumsum(steps, 1) % row.classes
        return walks[:, :-1].copy(), walks[:, 1:].copy()
    X = rng.standard_normal((row.samples, *row.sample), np.float32)
    y = rng.permutation(np.arange(row.samples) % row.classes)
    return X, y.astype(np.int64)


def make_weights(row: Row) -> list[tuple[NDArray[np.float32], ...]]:
    """(weight, bias) of every layer that has them, in PyTorch's shapes; see `nets.weights`."""
    return weights(row.network, row.sample, np.random.default_rng(2))


def make_order(row: Row) -> NDArray[np.int64]:
    """Sample indices of one timed call: a new permutation for each epoch."""
    rng = np.random.default_rng(3)
    return np.concatenate([rng.permutation(row.samples) for _ in range(row.epochs)])


def check_order(row: Row) -> NDArray[np.int64]:
    """Sample indices of the call whose losses are compared: one epoch, as the data lie."""
    return np.arange(row.samples)
