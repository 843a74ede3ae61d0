"""Random graphs for Hypothesis: small, of all kinds of ops, with values that stay near [-1, 1].

Every step keeps values bounded and smooth enough that rounding cannot grow: products of factors
below 1, means instead of sums, matrix products divided by their inner size. Whatever is compared,
truncated or used as an index comes straight from an input, so that no rounding can flip it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from graph_pool import BIG_SHAPES, BINARY, DETACHED, MAX_SIZE, SHAPES, UNARY, Pool
from hypothesis import strategies as st

from gpubp import ops
from gpubp.core import Array, Graph, tracing


def _unary(pool: Pool) -> Any:
    x = pool.pick()
    return pool.one_of(UNARY if pool.smooth else UNARY + DETACHED)(x)


def _binary(pool: Pool) -> Any:
    a = pool.pick()
    assert a is not None

    def fits(b: Array) -> bool:
        try:
            return math.prod(np.broadcast_shapes(a.shape, b.shape)) <= MAX_SIZE
        except ValueError:
            return False

    b = pool.pick(fits)
    return pool.one_of(BINARY)(*((a, b) if pool.flip() else (b, a)))


def _reduce(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.ndim > 0 and v.size > 0)
    if x is None:
        return None
    axes = pool.draw(st.sets(st.integers(0, x.ndim - 1), min_size=1))
    axis = None if pool.flip() else tuple(sorted(axes))
    keep = pool.flip()
    count = x.size if axis is None else math.prod(x.shape[a] for a in axis)
    scaled = lambda v, axis, keepdims: ops.sum(v, axis, keepdims) * (1.0 / count)  # noqa: E731
    return pool.one_of([ops.mean, scaled, ops.max, ops.min])(x, axis, keepdims=keep)


def _reshape(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.size > 1)
    if x is None:
        return None
    divisors = [d for d in range(1, x.size + 1) if x.size % d == 0]
    first = pool.one_of(divisors)
    rest = [(first, x.size // first), (x.size,), (1, first, x.size // first)]
    return ops.reshape(x, pool.one_of(rest))


def _transpose(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.ndim > 1)
    if x is None:
        return None
    return ops.transpose(x, pool.draw(st.permutations(range(x.ndim))))


def _slice(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.ndim > 0 and v.size > 1)
    if x is None:
        return None
    key: list[Any] = []
    for n in x.shape:
        start = pool.draw(st.integers(0, n - 1))
        stop = pool.draw(st.integers(start + 1, n))
        choices: list[Any] = [slice(None), slice(start, stop), slice(None, None, -1)]
        choices += [slice(start, stop, 2), slice(stop - 1, start - 1 if start else None, -2), start]
        key.append(pool.one_of(choices))
    return x[tuple(key)]


def _broadcast(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.size * 3 <= MAX_SIZE and v.ndim < 3)
    if x is None:
        return None
    grown = [pool.one_of([2, 3]) if n == 1 else n for n in x.shape]
    shape = (*([pool.one_of([1, 3])] if pool.flip() else []), *grown)
    return ops.broadcast_to(x, shape)


def _concat(pool: Pool) -> Any:
    a = pool.pick(lambda v: v.ndim > 0 and v.size * 2 <= MAX_SIZE)
    if a is None:
        return None
    axis = pool.draw(st.integers(0, a.ndim - 1))

    def fits(v: Array) -> bool:
        apart = (v.shape[:axis], v.shape[axis + 1 :]) == (a.shape[:axis], a.shape[axis + 1 :])
        return v.ndim == a.ndim and apart and v.size * 2 <= MAX_SIZE

    return ops.concat([a, pool.pick(fits)], axis)


def _gather(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.ndim > 0 and v.size * 2 <= MAX_SIZE and 0 not in v.shape)
    if x is None:
        return None
    axis = pool.draw(st.integers(0, x.ndim - 1))
    shape = pool.one_of([(2,), (4,), (2, 2), ()])
    if x.size // x.shape[axis] * math.prod(shape) > MAX_SIZE or x.ndim - 1 + len(shape) > 3:
        return None
    return ops.gather(x, pool.integers(shape, x.shape[axis]), axis)


def _scatter(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.ndim > 0 and 0 not in v.shape)
    if x is None:
        return None
    size = pool.one_of([1, 4, 6])
    if x.size // x.shape[0] * size > MAX_SIZE:
        return None
    return ops.scatter_add(x, pool.integers(x.shape[:1], size), size) * (1.0 / x.shape[0])


def _matmul(pool: Pool) -> Any:
    a = pool.pick(lambda v: v.ndim >= 2 and 0 not in v.shape)
    if a is None:
        return None

    def fits(b: Array, flipped: bool) -> bool:
        if b.ndim < 2 or 0 in b.shape or b.shape[-1 if flipped else -2] != a.shape[-1]:
            return False
        try:
            batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            return False
        columns = b.shape[-2 if flipped else -1]
        return math.prod(batch) * a.shape[-2] * columns <= MAX_SIZE

    flipped = pool.flip()
    b = pool.pick(lambda v: fits(v, flipped))
    if b is None:
        b, flipped = a, True
        if not fits(b, True):
            return None
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if flipped else b) * (1.0 / a.shape[-1])


def _softmax(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.ndim >= 1 and 0 not in v.shape)
    if x is None:
        return None
    axis = pool.draw(st.integers(0, x.ndim - 1))
    if pool.flip():
        return ops.softmax(x, axis)
    return ops.log_softmax(x, axis) * (0.5 / (1.0 + math.log(x.shape[axis])))


def _cross_entropy(pool: Pool) -> Any:
    x = pool.pick(lambda v: v.ndim == 2 and 0 not in v.shape)
    if x is None:
        return None
    labels = pool.integers(x.shape[:1], x.shape[1])
    return ops.softmax_cross_entropy(x, labels) * (0.5 / (1.0 + math.log(x.shape[1])))


def _where(pool: Pool) -> Any:
    source = pool.one_of(pool.values[: pool.sources])
    other = pool.one_of([0.0, 0.25])
    condition = ops.greater(source, other) if pool.flip() else ops.less_equal(source, other)
    a = pool.pick(lambda v: v.shape == source.shape or v.ndim == 0)
    b = pool.pick(lambda v: v.shape == source.shape or v.ndim == 0)
    return None if a is None or b is None else ops.where(condition, a, b)


def _cast(pool: Pool) -> Any:
    if pool.smooth:
        return None
    source = pool.one_of(pool.values[: pool.sources])
    there = pool.one_of(["bool", "int32", "int64", "float32"])
    scaled = source * 2.0 if there != "bool" else ops.greater(source, 0.1)
    return ops.astype(ops.astype(scaled, there), source.dtype) * 0.5


def _noise(pool: Pool) -> Any:
    x = pool.pick()
    assert x is not None
    if pool.flip():
        return ops.dropout(x, 0.25, generator=pool.generator) * 0.75
    return (x + ops.uniform(x.shape, x.dtype, pool.generator)) * 0.5


def _update(pool: Pool) -> Any:
    """A value of a slot's shape, to be written to it."""
    if not pool.slots:
        return None
    slot = pool.one_of(pool.slots)
    x = pool.pick(lambda v: v.shape == slot.shape)
    old = Array(pool.graph, pool.graph.slot(slot))
    return old if x is None else old * 0.5 + x * 0.5


STEPS: list[Callable[[Pool], Any]] = [
    _unary,
    _unary,
    _binary,
    _binary,
    _binary,
    _reduce,
    _reshape,
    _transpose,
    _slice,
    _broadcast,
    _concat,
    _gather,
    _scatter,
    _matmul,
    _matmul,
    _softmax,
    _cross_entropy,
    _where,
    _cast,
    _noise,
    _update,
]


@st.composite
def pools(draw: Any, dtype: str = "float64", smooth: bool = False, steps: int = 10) -> Pool:
    """A graph with data; outputs and writes are set."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = Pool(draw, Graph(), dtype, rng, smooth)
    shapes = SHAPES if draw(st.integers(0, 4)) else SHAPES + BIG_SHAPES * 2
    for i in range(draw(st.integers(1, 4))):
        pool.add_source(pool.one_of(shapes), as_slot=i > 0 and pool.flip())
    with tracing(pool.graph):
        for _ in range(draw(st.integers(1, steps))):
            made = pool.one_of(STEPS)(pool)
            if made is not None:
                pool.values.append(made)
    _finish(pool)
    return pool


def _finish(pool: Pool) -> None:
    count = min(3, len(pool.values))
    pool.graph.outputs = [v.node for v in pool.values[-count:]]
    for slot in pool.slots:
        new = pool.pick(lambda v, shape=slot.shape: v.shape == shape)  # type: ignore[misc]
        if new is not None and pool.flip():
            pool.graph.writes.append((slot, new.node))
