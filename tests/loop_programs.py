"""Random programs with loops: what a seed chooses is the same for a loop and for Python's own.

A program takes a carry, arrays to run over, and arrays that bodies use from around. Values stay
near [-1, 1], as in `generated.py`. What is compared or used as an index comes from integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpubp as gp
from gpubp import ops

Fn = Callable[..., Any]
Random = np.random.Generator


def in_python(body: Fn, carry: Any, xs: Any, reverse: bool = False) -> Any:
    """What `gp.scan` is; for one array to run over, and an array of each round."""
    found: dict[int, Any] = {}
    rounds = range(xs.shape[0])
    for t in reversed(rounds) if reverse else rounds:
        carry, found[t] = body(carry, xs[t])
    return carry, ops.stack([found[t] for t in rounds])


UNARY: Sequence[Fn] = (
    ops.tanh,
    ops.sin,
    ops.sigmoid,
    lambda x: x * x * 0.5,
    lambda x: ops.relu(x) * 0.9,
    lambda x: ops.exp(-ops.abs(x)),
    lambda x: x[::-1],
    lambda x: ops.softmax(x, -1),
    lambda x: x - ops.mean(x, axis=-1, keepdims=True),
    lambda x: ops.mean(x, axis=0, keepdims=True) * x,
    lambda x: ops.cumsum(x, -1) * (1.0 / x.shape[-1]),
    lambda x: ops.roll(x, 1, -1),
    lambda x: ops.concat([x[..., 1:], x[..., :1]], -1),
    lambda x: ops.max(x, axis=-1, keepdims=True) * x,
    lambda x: gp.checkpoint(lambda v: ops.tanh(v) * v)(x),
    lambda x: ops.layer_norm(x, x.shape[-1:]) * 0.3,
)
BINARY: Sequence[Fn] = (
    lambda a, b: a * b,
    lambda a, b: (a + b) * 0.5,
    lambda a, b: a - b * 0.5,
    ops.maximum,
    lambda a, b: ops.where(ops.sigmoid(a) > 0.45, a, b * 0.5),
    lambda a, b: a / (1.5 + b * b),
    lambda a, b: ops.concat([a[..., :1], b[..., 1:]], -1),
)


def _fitted(x: Any, shape: tuple[int, ...]) -> Any:
    """A value of this shape, of an array of any."""
    x_shape = tuple(x.shape)
    if x_shape == shape:
        return x
    if len(x_shape) == len(shape) and x_shape[:-1] == shape[:-1] and x_shape[-1] > shape[-1]:
        return x[..., : shape[-1]]
    if len(x_shape) == 2 and len(shape) == 2 and x_shape[::-1] == shape:
        return ops.transpose(x)
    return ops.broadcast_to(ops.reshape(ops.mean(x), (1,) * len(shape)), shape)


class Program:
    """A program of a seed.

    Args:
        seed: chooses everything.
        dtype: of its floats.

    Attributes:
        arrays: its arguments.
    """

    def __init__(self, seed: int, dtype: str = "float64") -> None:
        rng = np.random.default_rng(seed)
        self.seed, self.dtype = seed, dtype
        self.rows, self.columns = (int(rng.choice(s)) for s in ((1, 2, 3, 5), (1, 2, 3, 4, 6)))
        self.time, self.inner = (int(rng.choice(s)) for s in ((1, 2, 3, 5), (1, 2, 3)))
        self.reverse = bool(rng.integers(2))
        n, m, t = self.rows, self.columns, self.time
        shapes = (n, m), (n, m), (t, n, m), (m, m), (m,), (self.inner, n, m)
        self.arrays: list[NDArray[Any]] = [
            (rng.standard_normal(s) / 2).astype(dtype) for s in shapes
        ]

    def value(self, scan: Fn, *arrays: Any) -> Any:
        """A scalar: of the carry at the end, and of all rounds.

        Args:
            scan: `gp.scan`, or `in_python`.
            *arrays: as `arrays`.
        """
        first, second, xs, *around = arrays

        def body(carry: Any, x: Any) -> Any:
            rng = np.random.default_rng([self.seed, 1])
            count, known, other = carry
            pool = [known, other, x, *around[1:2]]
            for _ in range(int(rng.integers(1, 6))):
                pool.append(self._made(rng, scan, pool, around, count, 2))
            picked = [pool[int(rng.integers(len(pool)))] for _ in range(3)]
            shape = (self.rows, self.columns)
            new = ops.tanh(known * 0.5 + _fitted(pool[-1], shape) * 0.5)
            swapped = bool(rng.integers(2))
            kept = _fitted(picked[1], shape) if rng.integers(3) else known
            after = (count + 1, *((kept, new) if swapped else (new, kept)))
            stacked = picked[2] if rng.integers(3) else pool[-1]
            return after, stacked

        start = ops.astype(ops.sum(first * 0.0), "int64")
        (count, a, b), ys = scan(body, (start, first, second), xs, reverse=self.reverse)
        total = ops.mean(ys * ys) + ops.mean(a * b) + ops.mean(ops.sin(a))
        return total + ops.astype(count, self.dtype) * 0.125

    def _made(
        self, rng: Random, scan: Fn, pool: Sequence[Any], around: Any, count: Any, depth: int
    ) -> Any:
        x, y = (pool[int(rng.integers(len(pool)))] for _ in range(2))
        kind = int(rng.integers(10))
        if kind < 3:
            return UNARY[int(rng.integers(len(UNARY)))](x)
        if kind < 5:
            return BINARY[int(rng.integers(len(BINARY)))](x, _fitted(y, tuple(x.shape)))
        if kind < 7:
            return self._product(rng, x, y, around[0])
        if kind == 7:
            even = ops.astype(count % 2, self.dtype)
            return x * even + ops.where(ops.equal(count, 1), x * 0.5, 0.25)
        if kind == 8:
            index = ops.reshape(count % x.shape[0], (1,)) + np.zeros(x.shape[0], np.int64)
            return ops.gather(x, index, 0) * 0.7
        return self._nested(rng, scan, x, y, around, count, depth)

    def _product(self, rng: Random, x: Any, y: Any, weight: Any) -> Any:
        m = self.columns
        if len(x.shape) == 2 and rng.integers(3) == 0:
            scores = ops.softmax(x @ ops.transpose(_fitted(y, tuple(x.shape))), -1)
            return scores @ x
        turned = ops.transpose(weight) if rng.integers(2) else weight
        if len(x.shape) == 1:
            return ops.reshape(ops.reshape(x, (1, m)) @ turned, (m,)) * (1.0 / m)
        return x @ turned * (1.0 / m)

    def _nested(
        self, rng: Random, scan: Fn, x: Any, y: Any, around: Any, count: Any, depth: int
    ) -> Any:
        if depth == 0:
            return ops.tanh(x)
        x, y = (_fitted(v, (self.rows, self.columns)) for v in (x, y))
        seed = int(rng.integers(1 << 30))

        def body(state: Any, row: Any) -> Any:
            own = np.random.default_rng(seed)
            pool = [state, row, y]
            for _ in range(int(own.integers(1, 4))):
                pool.append(self._made(own, scan, pool, around, count, depth - 1))
            state = ops.tanh(state * 0.3 + _fitted(pool[-1], (self.rows, self.columns)))
            return state, state * y

        last, ys = scan(body, x, around[2], reverse=bool(rng.integers(2)))
        return last + ops.mean(ys, axis=0) * 0.5
