"""Descriptions of networks, from which every contender builds the same one.

Images are (channels, height, width) here, and kernels are (outputs, inputs, height, width), as in
PyTorch; a contender that keeps channels last turns both by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Linear:
    """A dense layer with a bias."""

    outputs: int


@dataclass(frozen=True)
class Conv:
    """A square kernel; `padding` zeros on each side."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True)
class Norm:
    """BatchNorm of channels in training mode: affine, running statistics with momentum 0.1."""


@dataclass(frozen=True)
class Activation:
    """One of `rows.ACTIVATIONS`."""

    name: str


@dataclass(frozen=True)
class MaxPool:
    """The largest of each square window; windows do not overlap."""

    size: int


@dataclass(frozen=True)
class MeanPool:
    """The mean of each channel: images become vectors."""


@dataclass(frozen=True)
class Flatten:
    """Images become vectors, channel by channel."""


@dataclass(frozen=True)
class Symbols:
    """Learnt vectors of `count` symbols plus those of their positions: (length, width)."""

    count: int
    width: int


@dataclass(frozen=True)
class Attend:
    """A causal layer of a transformer, LayerNorms first, with GELU; it keeps the shape."""

    heads: int
    hidden: int


@dataclass(frozen=True)
class LastNorm:
    """LayerNorm of the last axis."""


@dataclass(frozen=True)
class EachPosition:
    """Every position of a sequence becomes a sample of its own; the last layer."""


@dataclass(frozen=True)
class Recurrent:
    """An LSTM or a GRU over sequences (time, inputs), from zeros: the last h."""

    kind: str
    hidden: int

    @property
    def rows(self) -> int:
        """Of its weights: those of all gates."""
        return {"LSTM": 4, "GRU": 3}[self.kind] * self.hidden


@dataclass(frozen=True)
class Factors:
    """Of a pair (user, item): the product of their learnt vectors plus their learnt biases."""

    users: int
    items: int
    width: int


@dataclass(frozen=True)
class Residual:
    """The body's result plus the shortcut's; an empty shortcut is the input itself."""

    body: Network
    shortcut: Network = ()


Layer: TypeAlias = (
    Linear
    | Conv
    | Norm
    | Activation
    | MaxPool
    | MeanPool
    | Flatten
    | Residual
    # of sequences
    | Symbols
    | Attend
    | LastNorm
    | EachPosition
    | Recurrent
    # of pairs
    | Factors
)
Network: TypeAlias = tuple[Layer, ...]

RELU = Activation("relu")
EPS, MOMENTUM = 1e-5, 0.1  # of Norm, and of LayerNorms


def same(channels: int, kernel: int) -> tuple[Layer, ...]:
    """A convolution that keeps the image's size, and ReLU."""
    return (Conv(channels, kernel, padding=kernel // 2), RELU)


def _normed(channels: int, kernel: int, stride: int = 1) -> tuple[Layer, ...]:
    return (Conv(channels, kernel, stride, kernel // 2, bias=False), Norm())


def _block(channels: int, stride: int) -> tuple[Layer, ...]:
    body = (*_normed(channels, 3, stride), RELU, *_normed(channels, 3))
    return (Residual(body, () if stride == 1 else _normed(channels, 1, stride)), RELU)


CNN8: Network = (*same(16, 3), MaxPool(2), *same(32, 3), MaxPool(2), Flatten(), Linear(10))
LENET: Network = (
    *(Conv(6, 5), RELU, MaxPool(2), Conv(16, 5), RELU, MaxPool(2), Flatten()),
    *(Linear(120), RELU, Linear(84), RELU, Linear(10)),
)
CIFAR: Network = (
    *(*same(32, 3), *same(64, 3), MaxPool(2), *same(128, 3), MaxPool(2)),
    *(Flatten(), Linear(10)),
)
RESNET8: Network = (
    *(*_normed(16, 3), RELU, *_block(16, 1), *_block(32, 2), *_block(64, 2)),
    *(MeanPool(), Linear(10)),
)
CHAR: Network = (
    *(Symbols(65, 64), Attend(4, 256), Attend(4, 256), LastNorm()),
    *(Linear(65), EachPosition()),
)
LSTM: Network = (Recurrent("LSTM", 64), Linear(10))
GRU: Network = (Recurrent("GRU", 128), Linear(4))
LONG: Network = (Recurrent("LSTM", 32), Linear(10))
MF: Network = (Factors(10_000, 2_000, 32),)


def shape_after(layer: Layer, shape: Shape) -> Shape:
    """Of one sample, behind a layer.

    Raises:
        ValueError: the branches of a Residual end in different shapes.
    """
    match layer:
        case Linear(outputs):
            return (*shape[:-1], outputs)
        case Symbols(_, width):
            return (*shape, width)
        case EachPosition():
            return shape[1:]
        case Recurrent(_, hidden):
            return (hidden,)
        case Conv(channels, kernel, stride, padding):
            return (channels, *((n + 2 * padding - kernel) // stride + 1 for n in shape[1:]))
        case MaxPool(size):
            return (shape[0], *(n // size for n in shape[1:]))
        case MeanPool():
            return shape[:1]
        case Factors():
            return ()
        case Flatten():
            return (math.prod(shape),)
        case Residual(body, shortcut):
            ends = {shape_behind(body, shape), shape_behind(shortcut, shape)}
            if len(ends) > 1:
                raise ValueError(f"branches of {layer} end in {ends}")
            return ends.pop()
    return shape


def shape_behind(network: Network, shape: Shape) -> Shape:
    """Of one sample, behind all layers."""
    for layer in network:
        shape = shape_after(layer, shape)
    return shape


def walk(network: Network, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Every layer with the shape of its input; a Residual's body, then its shortcut, then itself.

    That is also the order in which PyTorch and gpubp list a model's parameters.
    """
    for layer in network:
        if isinstance(layer, Residual):
            yield from walk(layer.body, shape)
            yield from walk(layer.shortcut, shape)
        yield layer, shape
        shape = shape_after(layer, shape)


def products(network: Network, shape: Shape) -> list[int]:
    """Multiply-adds for one sample, forward, of every layer that has any; zeros of paddings too."""
    found = []
    for layer, before in walk(network, shape):
        if isinstance(layer, Linear):
            found.append(math.prod(before) * layer.outputs)
        elif isinstance(layer, Conv):
            after = shape_after(layer, before)
            found.append(math.prod(after) * before[0] * layer.kernel**2)
        elif isinstance(layer, Symbols):
            found.append(0)
        elif isinstance(layer, Factors):
            found += [0, layer.width]
        elif isinstance(layer, Attend):
            length, width = before
            scores = length * (length + 1) * width  # those that are seen, and with the values
            found.append(length * width * (4 * width + 2 * layer.hidden) + scores)
        elif isinstance(layer, Recurrent):
            found += [before[0] * size * layer.rows for size in (before[1], layer.hidden)]
    return found


def weights(
    network: Network, shape: Shape, rng: np.random.Generator
) -> list[tuple[NDArray[np.float32], ...]]:
    """(weight, bias) or (weight,) of every layer that has them, in PyTorch's shapes; of a Recurrent
    layer the weights of inputs and of states, then both biases.

    Uniform in +-1/sqrt(inputs of one output; its own size for a Recurrent); ones and zeros for a
    Norm.
    """
    found: list[tuple[NDArray[np.float32], ...]] = []
    for layer, before in walk(network, shape):
        if isinstance(layer, Linear):
            found.append(_dense(rng, before[-1], layer.outputs))
        elif isinstance(layer, Conv):
            fan_in = before[0] * layer.kernel**2
            W = _uniform(rng, fan_in, (layer.channels, before[0], layer.kernel, layer.kernel))
            bias = [_uniform(rng, fan_in, (layer.channels,))] if layer.bias else []
            found.append((W, *bias))
        elif isinstance(layer, Recurrent):
            shapes = [(layer.rows, before[1]), (layer.rows, layer.hidden), *[(layer.rows,)] * 2]
            found.append(tuple(_uniform(rng, layer.hidden, shape) for shape in shapes))
        elif isinstance(layer, Norm):
            found.append(_ones_and_zeros(before[0]))
        elif isinstance(layer, LastNorm):
            found.append(_ones_and_zeros(before[-1]))
        elif isinstance(layer, Symbols):
            tables = (layer.count, layer.width), (*before, layer.width)
            found.append(tuple(_uniform(rng, 1, table) for table in tables))
        elif isinstance(layer, Attend):
            found.append(_of_attend(rng, layer, before[-1]))
        elif isinstance(layer, Factors):
            sizes = [(n, w) for w in (layer.width, 1) for n in (layer.users, layer.items)]
            found.append(tuple(_uniform(rng, layer.width, size) for size in sizes))
    return found


def _of_attend(rng: np.random.Generator, layer: Attend, width: int) -> tuple[NDArray[Any], ...]:
    """In PyTorch's order: queries, keys and values; heads joined; both dense layers; both norms."""
    sizes = (width, 3 * width), (width, width), (width, layer.hidden), (layer.hidden, width)
    dense = [a for size in sizes for a in _dense(rng, *size)]
    return (*dense, *_ones_and_zeros(width), *_ones_and_zeros(width))


def _dense(rng: np.random.Generator, inputs: int, outputs: int) -> tuple[NDArray[Any], ...]:
    W = _uniform(rng, inputs, (inputs, outputs)).T
    return W, _uniform(rng, inputs, (outputs,))


def _ones_and_zeros(size: int) -> tuple[NDArray[Any], ...]:
    return np.ones(size, np.float32), np.zeros(size, np.float32)


def _uniform(rng: np.random.Generator, fan_in: int, shape: Shape) -> NDArray[np.float32]:
    bound = fan_in**-0.5
    return rng.uniform(-bound, bound, shape).astype(np.float32)
