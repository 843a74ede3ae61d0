"""Random chains of views that end in an op which reads them: attention's reshapes, and stranger.

A chain is made backwards: from the shape that the op wants to an array that is given. So every
chain is valid, and reads its source in an order that no test author would have thought of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpubp as gp
from gpubp import ops

Shape = tuple[int, ...]
View = Callable[[Any], Any]
MOST = 3000  # elements of a source


@dataclass
class Program:
    """A function of arrays, and arrays to call it with.

    Attributes:
        seed: what it was made from.
        arrays: arguments.
        fn: of the arguments, made of `gp.ops`.
        text: what was drawn, for messages.
    """

    seed: int
    arrays: list[NDArray[Any]] = field(default_factory=list)
    fn: Callable[..., Any] = lambda *_: None
    text: list[str] = field(default_factory=list)

    def gradient(self, *arrays: Any) -> Any:
        """Of a sum over the result, by every argument of floats."""
        at = tuple(i for i, a in enumerate(self.arrays) if a.dtype.kind == "f")
        return gp.grad(lambda *xs: ops.sum(ops.sin(self.fn(*xs))), at)(*arrays)

    def __str__(self) -> str:
        given = ", ".join(f"{a.dtype}{a.shape}" for a in self.arrays)
        return f"seed {self.seed}: ({given}) {' '.join(self.text)}"


class _Draw:
    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.program = Program(seed)
        self.dtype = dtype

    def shape(self, low: int, high: int, most: int = 4) -> Shape:
        return tuple(int(n) for n in self.rng.integers(1, most + 1, self.rng.integers(low, high)))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def views(self, shape: Shape, make: Callable[[Shape], NDArray[Any]]) -> Callable[..., Any]:
        """A function of the program's arguments that gives an array of this shape: views of a new
        argument, or of what an elementwise op made of it.
        """
        chain: list[View] = []
        computed_at = int(self.rng.integers(0, 12))
        for i in range(int(self.rng.integers(0, 6))):
            view, shape, text = self._before(shape)
            chain.insert(0, view)
            self.program.text.append(text)
            if i == computed_at:
                chain.insert(0, ops.negative if make is self.floats else ops.copy)
        position = len(self.program.arrays)
        self.program.arrays.append(make(shape))

        def read(*arguments: Any) -> Any:
            value = arguments[position]
            for view in chain:
                value = view(value)
            return value

        return read

    def floats(self, shape: Shape) -> NDArray[Any]:
        return self.rng.normal(size=shape).astype(self.dtype)

    def below(self, limit: int) -> Callable[[Shape], NDArray[Any]]:
        wide = np.int64 if self.chance(0.5) else np.int32
        return lambda shape: self.rng.integers(0, limit, shape).astype(wide)

    def _before(self, shape: Shape) -> tuple[View, Shape, str]:
        """A view whose result has `shape`, and the shape that it is taken of."""
        kinds = [self._transpose, self._reshape, self._slice, self._broadcast, self._pick]
        while True:
            view, before, text = kinds[self.rng.integers(len(kinds))](shape)
            if math.prod(before) <= MOST and len(before) <= 8:
                return view, before, text

    def _transpose(self, shape: Shape) -> tuple[View, Shape, str]:
        axes = [int(a) for a in self.rng.permutation(len(shape))]
        before = tuple(shape[axes.index(i)] for i in range(len(shape)))
        return (lambda x: ops.transpose(x, tuple(axes))), before, f"transpose{tuple(axes)}"

    def _reshape(self, shape: Shape) -> tuple[View, Shape, str]:
        """Axes split, merged, or of size 1."""
        before = list(shape)
        for _ in range(int(self.rng.integers(1, 4))):
            at = int(self.rng.integers(0, len(before) + 1))
            if at < len(before) - 1 and self.chance(0.5):
                before[at : at + 2] = [before[at] * before[at + 1]]
            elif at < len(before) and before[at] > 1 and self.chance(0.7):
                by = int(
                    self.rng.choice([d for d in range(1, before[at] + 1) if before[at] % d == 0])
                )
                before[at : at + 1] = [by, before[at] // by]
            else:
                before.insert(at, 1)
        return (lambda x: ops.reshape(x, shape)), tuple(before), f"reshape{shape}"

    def _slice(self, shape: Shape) -> tuple[View, Shape, str]:
        keys, before = [], []
        for n in shape:
            step = int(self.rng.choice([1, 1, 1, 2, -1, -2, 3]))
            first, rest = (int(i) for i in self.rng.integers(0, 3, 2))
            size = first + (n - 1) * abs(step) + 1 + rest
            stop = first + (n - 1) * abs(step) + 1
            key = slice(first, stop, step)
            if step < 0:
                key = slice(stop - 1, first - 1 if first else None, step)
            keys.append(key)
            before.append(size)
        text = ",".join(f"{k.start}:{k.stop}:{k.step}" for k in keys)
        return (lambda x: x[tuple(keys)] if keys else x), tuple(before), f"[{text}]"

    def _broadcast(self, shape: Shape) -> tuple[View, Shape, str]:
        before = tuple(1 if self.chance(0.4) else n for n in shape)
        drop = int(self.rng.integers(0, len(shape) + 1)) if self.chance(0.4) else 0
        return (lambda x: ops.broadcast_to(x, shape)), before[drop:], f"broadcast_to{shape}"

    def _pick(self, shape: Shape) -> tuple[View, Shape, str]:
        at, size = int(self.rng.integers(0, len(shape) + 1)), int(self.rng.integers(1, 4))
        which = int(self.rng.integers(-size, size))
        key = (*[slice(None)] * at, which)
        return (lambda x: x[key]), (*shape[:at], size, *shape[at:]), f"pick{at}"


def _matmul(draw: _Draw) -> Callable[..., Any]:
    """Two stacks of matrices whose batch axes broadcast; the result is often read transposed."""
    batch = draw.shape(0, 4, 3)
    m, k, n = (int(i) for i in draw.rng.integers(1, 6, 3))
    mine, other = (tuple(1 if draw.chance(0.2) else i for i in batch) for _ in range(2))
    skipped = int(draw.rng.integers(0, len(batch) + 1)) if draw.chance(0.3) else 0
    a = draw.views((*mine, m, k), draw.floats)
    b = draw.views((*other[skipped:], k, n), draw.floats)
    if draw.chance(0.5):
        return lambda *xs: ops.swapaxes(ops.matmul(a(*xs), b(*xs)), -1, -2)
    return lambda *xs: ops.matmul(a(*xs), b(*xs))


def _attention(draw: _Draw) -> Callable[..., Any]:
    """Multi-head attention as it is written in ops."""
    size, length, heads, width = (int(i) for i in draw.rng.integers(1, 5, 4))
    x = draw.views((size, length, heads * width), draw.floats)

    def attend(*xs: Any) -> Any:
        split = ops.swapaxes(x(*xs).reshape(size, length, heads, width), 1, 2)
        scores = ops.softmax(ops.matmul(split, ops.swapaxes(split, -1, -2)))
        return ops.swapaxes(ops.matmul(scores, split), 1, 2).reshape(size, length, heads * width)

    return attend


def _elementwise(draw: _Draw) -> Callable[..., Any]:
    shape = draw.shape(0, 7, 3)
    read = [draw.views(shape, draw.floats) for _ in range(int(draw.rng.integers(1, 4)))]

    def add(*xs: Any) -> Any:
        total = ops.tanh(read[0](*xs))
        for other in read[1:]:
            total = total * 0.5 + other(*xs)
        return total

    return add


def _reduce(draw: _Draw) -> Callable[..., Any]:
    shape = draw.shape(1, 7, 4)
    x = draw.views(shape, draw.floats)
    axes = tuple(i for i in range(len(shape)) if draw.chance(0.5))
    name = str(draw.rng.choice(["sum", "max", "min", "mean"]))
    keep = draw.chance(0.5)
    before = draw.chance(0.5)

    def reduced(*xs: Any) -> Any:
        value = x(*xs)
        return getattr(ops, name)(ops.square(value) if before else value, axes, keep) + 1.0

    return reduced


def _gather(draw: _Draw) -> Callable[..., Any]:
    shape = draw.shape(1, 5, 4)
    axis = int(draw.rng.integers(0, len(shape)))
    x = draw.views(shape, draw.floats)
    at = draw.views(draw.shape(0, 3), draw.below(shape[axis]))
    return lambda *xs: ops.gather(x(*xs), at(*xs), axis)


def _cross_entropy(draw: _Draw) -> Callable[..., Any]:
    shape = draw.shape(1, 5, 4)
    logits = draw.views(shape, draw.floats)
    labels = draw.views(shape[:-1], draw.below(shape[-1]))
    return lambda *xs: ops.softmax_cross_entropy(logits(*xs), labels(*xs))


def _softmax(draw: _Draw) -> Callable[..., Any]:
    x = draw.views(draw.shape(1, 6, 4), draw.floats)
    name = "softmax" if draw.chance(0.5) else "log_softmax"
    return lambda *xs: getattr(ops, name)(x(*xs))


def _concat(draw: _Draw) -> Callable[..., Any]:
    shape = draw.shape(1, 5, 3)
    axis = int(draw.rng.integers(0, len(shape)))
    more = (*shape[:axis], shape[axis] + 1, *shape[axis + 1 :])
    a, b = draw.views(shape, draw.floats), draw.views(more, draw.floats)
    return lambda *xs: ops.concat([a(*xs), b(*xs)], axis)


READERS = (
    _matmul, _attention, _elementwise, _reduce, _gather, _cross_entropy, _softmax, _concat,
)  # fmt: skip


def program(seed: int, dtype: str = "float64") -> Program:
    """The program of a seed; every reader has its turn."""
    draw = _Draw(seed, dtype)
    reader = READERS[seed % len(READERS)]
    draw.program.text.append(reader.__name__)
    draw.program.fn = reader(draw)
    return draw.program
