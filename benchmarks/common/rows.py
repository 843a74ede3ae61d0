"""The networks that are measured, with their data and initial weights.

Everything is a function of the row alone, so that every process makes the same arrays by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import unknown_name

ACTIVATIONS = ("relu", "sigmoid", "tanh", "gelu")
OPTIMIZERS = ("sgd", "adam")
LEARNING_RATES = {"sgd": 0.05, "adam": 1e-3}


@dataclass(frozen=True)
class Row:
    """A network and how it is trained: with cross-entropy.

    Attributes:
        name: in tables.
        layers: widths, the input's first.
        batch: samples a step.
        batches: steps an epoch; the resident data hold `batches * batch` samples.
        epochs: in one timed call.
        activation: between the layers.
        data: "random", or "digits" for the bundled images.
        precision: "float32", or on a GPU "tf32" or "bf16" (with float32 weights).
    """

    name: str
    layers: tuple[int, ...]
    batch: int
    batches: int = 8
    epochs: int = 4
    activation: str = "relu"
    data: str = "random"
    precision: str = "float32"

    @property
    def samples(self) -> int:
        return self.batches * self.batch

    @property
    def steps(self) -> int:
        """Steps in one timed call."""
        return self.batches * self.epochs

    @property
    def flops(self) -> float:
        """Of a step: the matrix products forward, for the weights' gradients and for the inputs'
        gradients, the data's own left out; 2 for each multiply-add."""
        sizes = [a * b for a, b in zip(self.layers, self.layers[1:])]
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


def make_data(row: Row) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """X (samples, inputs) float32 and labels (samples,) int64; every class occurs if it can."""
    if row.data == "digits":
        from gpubp.data import load_digits

        X, _, y, _ = load_digits(split=True)
        return X[: row.samples], y[: row.samples]
    rng = np.random.default_rng(1)
    X = rng.standard_normal((row.samples, row.layers[0]), np.float32)
    y = rng.permutation(np.arange(row.samples) % row.layers[-1])
    return X, y.astype(np.int64)


def make_weights(row: Row) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(W (inputs, outputs), b (outputs,)) of every layer, uniform in +-1/sqrt(inputs)."""
    rng = np.random.default_rng(2)
    weights = []
    for inputs, outputs in zip(row.layers, row.layers[1:]):
        bound = inputs**-0.5
        W = rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)
        weights.append((W, rng.uniform(-bound, bound, outputs).astype(np.float32)))
    return weights


def make_order(row: Row) -> NDArray[np.int64]:
    """Sample indices of one timed call: a new permutation for each epoch."""
    rng = np.random.default_rng(3)
    return np.concatenate([rng.permutation(row.samples) for _ in range(row.epochs)])


def check_order(row: Row) -> NDArray[np.int64]:
    """Sample indices of the call whose losses are compared: one epoch, as the data lie."""
    return np.arange(row.samples)
