"""What random graphs are made of: sources, choices, and elementwise functions that stay bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gpubp import ops
from gpubp.core import Array, Graph
from gpubp.core.store import Slot
from gpubp.ops.random import Generator

MAX_SIZE = 400
SHAPES = [(), (1,), (3,), (5,), (3, 5), (5, 3), (1, 5), (3, 1), (4, 4), (2, 3, 5), (2, 1, 4)]
BIG_SHAPES = [(70, 3), (3, 70), (130,), (17, 19)]
UNARY: list[Callable[[Any], Any]] = [
    ops.tanh,
    ops.sin,
    ops.relu,
    ops.negative,
    ops.abs,
    ops.square,
    ops.sigmoid,
    lambda x: ops.exp(x) * 0.3,
    lambda x: ops.sqrt(x * x + 0.5) * 0.7,
    lambda x: 0.5 / (1.5 + x),
    lambda x: ops.clip(x, -0.4, 0.6),
    lambda x: ops.gelu(x),
    lambda x: ops.leaky_relu(x, 0.1),
    lambda x: x * 0.5 + 0.25,
]
# Their derivative is not that of their values.
DETACHED: list[Callable[[Any], Any]] = [
    lambda x: ops.stop_gradient(x) * x,
    lambda x: ops.stop_gradient(ops.tanh(x)) + x * 0.5,
]
BINARY: list[Callable[[Any, Any], Any]] = [
    lambda a, b: (a + b) * 0.5,
    lambda a, b: a * b,
    lambda a, b: (a - b) * 0.5,
    ops.maximum,
    ops.minimum,
    lambda a, b: a / (b * b + 1.0),
]


@dataclass
class Pool:
    """A graph under construction.

    Attributes:
        draw: Hypothesis' draw.
        graph: the graph.
        data: one array for each input.
        values: float arrays to build on; the first `sources` are inputs and slots.
        slots: float slots, and their initial values.
        rng: for data.
        generator: for random numbers drawn by the graph.
        smooth: only what central differences can follow.
    """

    draw: Any
    graph: Graph
    dtype: str
    rng: np.random.Generator
    smooth: bool = False
    data: list[np.ndarray] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)
    sources: int = 0
    slots: list[Slot] = field(default_factory=list)
    generator: Generator = field(default_factory=lambda: Generator(7))

    def pick(self, accept: Callable[[Array], bool] = lambda _: True) -> Array | None:
        """A random value that is accepted, the newest most likely."""
        fitting = [v for v in self.values if accept(v)][::-1]
        return self.draw(st.sampled_from(fitting)) if fitting else None

    def one_of(self, options: list[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def flip(self) -> bool:
        return bool(self.draw(st.booleans()))

    def numbers(self, shape: tuple[int, ...]) -> np.ndarray:
        """Values in (-1, 1), exact in float32, none of them equal."""
        return self.rng.uniform(-1, 1, shape).astype(np.float32).astype(self.dtype)

    def add_source(self, shape: tuple[int, ...], as_slot: bool) -> None:
        value = self.numbers(shape)
        if as_slot:
            slot = Slot(f"s{len(self.slots)}", value)
            self.slots.append(slot)
            node = self.graph.slot(slot)
        else:
            self.data.append(value)
            node = self.graph.input(shape, self.dtype)
        self.values.append(Array(self.graph, node))
        self.sources += 1

    def integers(self, shape: tuple[int, ...], below: int) -> Any:
        """Indices: an input or a constant."""
        value = self.rng.integers(0, below, shape)
        value = value.astype(self.one_of(["int32", "int64"]))
        if self.flip():
            return value
        self.data.append(value)
        return Array(self.graph, self.graph.input(shape, value.dtype))
