"""What a random program is made of: modules, parameters, lines, losses, and how it is trained.

A recipe says everything once; `programs.py` builds it in gpubp and in PyTorch. Every value of a
recipe has the batch as its first axis; `shape` is what comes after. A line is a function of the
library's ops, its modules and parameters, and earlier values.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]
MOST = 3000  # elements a sample


class World(NamedTuple):
    """One library's side of a program.

    Attributes:
        o: the ops, under gpubp's names.
        m: the modules.
        p: the bare parameters.
        array: takes a NumPy constant to what ops take.
        pull: (fn, x, cotangents) -> (fn(x), the gradient of x for each cotangent).
    """

    o: Any
    m: Any
    p: Any
    array: Callable[[Any], Any]
    pull: Callable[[Callable[[Any], Any], Any, list[Any]], tuple[Any, list[Any]]]


@dataclass
class Value:
    """A value of a program.

    Attributes:
        index: its place among all values.
        shape: without the batch.
        classes: indices below this, or 0 for floats.
        used: whether a later line reads it.
    """

    index: int
    shape: Shape
    classes: int = 0
    used: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Line(NamedTuple):
    """values[out] = fn(world, *operands)."""

    text: str
    fn: Callable[..., Any]
    operands: tuple[int, ...]


class ModuleSpec(NamedTuple):
    """A module by its name and arguments, the same in both libraries.

    `masked` is a Dropout: (what it draws, counted in the order of the lines).
    """

    name: str
    options: dict[str, Any]


@dataclass
class Loss:
    """A term of the loss.

    Attributes:
        module: index among the modules, or None for an op.
        text: in words.
        fn: (world, feature value, target) -> scalar.
        target: (rng, samples) -> NumPy array.
        plain: the mean over samples is the plain one, so that batches can be added up.
    """

    text: str
    fn: Callable[..., Any]
    target: Callable[[np.random.Generator, int], np.ndarray]
    plain: bool
    ignored: int | None = None


@dataclass
class Recipe:
    """A program, and how it is trained."""

    seed: int
    rng: random.Random
    inputs: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    modules: list[ModuleSpec] = field(default_factory=list)
    ties: list[tuple[int, int]] = field(default_factory=list)
    params: list[np.ndarray] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    evals: set[int] = field(default_factory=set)
    training: dict[str, Any] = field(default_factory=dict)

    def choice(self, *options: Any) -> Any:
        return self.rng.choice(options)

    def flip(self, share: float = 0.5) -> bool:
        return self.rng.random() < share

    def pick(self, fits: Callable[[Value], bool] = lambda _: True) -> Value | None:
        """A float value that fits; new ones and unused ones most likely."""
        found = [v for v in self.values if not v.classes and fits(v)]
        if not found:
            return None
        weights = [(4.0 if not v.used else 1.0) * (1 + i) for i, v in enumerate(found)]
        return self.rng.choices(found, weights)[0]

    def add(self, text: str, fn: Callable[..., Any], operands: list[Value], shape: Shape) -> Value:
        """Append a line; its value has this shape beside the batch."""
        for v in operands:
            v.used = True
        value = Value(len(self.values), tuple(shape))
        names = ", ".join(f"v{v.index}" for v in operands)
        self.lines.append(Line(f"{text} of {names}", fn, tuple(v.index for v in operands)))
        self.values.append(value)
        return value

    def module(self, name: str, **options: Any) -> int:
        """A new module; its index."""
        self.modules.append(ModuleSpec(name, options))
        return len(self.modules) - 1

    def param(self, *shape: int, spread: float = 0.5) -> int:
        """A new parameter outside of modules; its index."""
        rng = np.random.default_rng(self.rng.randrange(2**32))
        self.params.append(rng.normal(0.0, spread, shape))
        return len(self.params) - 1

    def constant(self, *shape: int) -> np.ndarray:
        """Numbers that are part of the program."""
        return np.random.default_rng(self.rng.randrange(2**32)).normal(0.0, 0.5, shape)

    def indices(self, below: int, *shape: int) -> np.ndarray:
        found = np.random.default_rng(self.rng.randrange(2**32)).integers(0, below, shape)
        return found.astype(self.choice("int32", "int64"))

    def __str__(self) -> str:
        text = [f"seed {self.seed}"]
        for v in self.inputs:
            kind = f"indices below {v.classes}" if v.classes else "floats"
            text.append(f"v{v.index} = input (N, {', '.join(map(str, v.shape))}) of {kind}")
        text += [f"m[{i}] = {m.name}({_listed(m.options)})" for i, m in enumerate(self.modules)]
        text += [f"m[{a}].weight is m[{b}].weight" for a, b in self.ties]
        text += [f"p[{i}] = parameter {p.shape}" for i, p in enumerate(self.params)]
        first = len(self.inputs)
        for i, line in enumerate(self.lines):
            text.append(f"v{first + i} = {line.text} -> (N, {self.values[first + i].shape})")
        text += [f"loss: {loss.text}" for loss in self.losses]
        if self.evals:
            text.append(f"in eval mode: modules {sorted(self.evals)}")
        text.append(f"training: {_listed(self.training)}")
        return "\n  ".join(text)


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in options.items())


Rule = Callable[[Recipe], Any]
