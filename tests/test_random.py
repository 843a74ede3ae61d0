"""Philox against its published answers, and what is built on it against statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from tolerances import assert_same

from gpubp import ops
from gpubp.compiler.grad import value_and_grad
from gpubp.compiler.trace import evaluate_graph, trace
from gpubp.core import bind
from gpubp.ops.random import Generator, philox
from gpubp.ops.spec import SPECS

# The known-answer vectors of Random123 (tests/kat_vectors): counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def _philox_words(counter: Any, key: Any) -> tuple[int, ...]:
    arrays = tuple(np.array([c], np.uint64) for c in counter)
    return tuple(int(w[0]) for w in philox(arrays, key))  # type: ignore[arg-type]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(counter: Any, key: Any, words: Any) -> None:
    assert _philox_words(counter, key) == words


def _element(op: str, dtype: str, state: tuple[int, int], stream: int, i: int) -> float:
    """One element from the definition in words, in Python integers."""
    seed, counter = state
    per = 4 if (op, dtype) == ("uniform", "float32") else 2
    block = i // per
    words = _philox_words(
        (
            block & 0xFFFFFFFF,
            block >> 32,
            counter & 0xFFFFFFFF,
            (stream & 0xFFFFFFFF) ^ ((counter >> 32) & 0xFFFFFFFF),
        ),
        (seed & 0xFFFFFFFF, seed >> 32),
    )
    if per == 4:
        return (words[i % 4] >> 8) * 2.0**-24
    a, b = words[2 * (i % 2)], words[2 * (i % 2) + 1]
    if op == "uniform":
        return ((a << 32 | b) >> 11) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log((a + 1) * 2.0**-32))
    return float(radius * np.cos(2.0 * np.pi * b * 2.0**-32))


@pytest.mark.parametrize("op", ["uniform", "normal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elements_follow_the_definition(op: str, dtype: str) -> None:
    state, stream = (0x123456789ABCDEF, 0x7654321076543210), 5
    out = bind(SPECS[op], np.array(state), shape=(3, 3), dtype=dtype, stream=stream)
    expected = [_element(op, dtype, state, stream, i) for i in range(9)]
    assert_same(out, np.array(expected, dtype).reshape(3, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_have_their_distribution(dtype: str) -> None:
    generator = Generator(7)
    u = ops.uniform(20_000, dtype, generator).astype(np.float64)
    z = ops.normal((100, 200), dtype, generator).astype(np.float64).ravel()
    assert u.min() >= 0.0
    assert u.max() < 1.0
    assert scipy.stats.kstest(u, "uniform").pvalue > 0.01
    assert scipy.stats.kstest(z, "norm").pvalue > 0.01
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.02


def test_a_draw_advances_the_counter() -> None:
    a, b = Generator(1), Generator(1)
    first, second = ops.uniform(8, generator=a), ops.uniform(8, generator=a)
    assert list(a.state.value) == [1, 2]
    assert not np.array_equal(first, second)
    assert_same(ops.uniform(8, generator=b), first)
    assert_same(ops.uniform(8, generator=a.manual_seed(1)), first)


def test_shorter_draws_are_prefixes() -> None:
    long = ops.normal(33, generator=Generator(3))
    assert_same(ops.normal(10, generator=Generator(3)), long[:10])


def test_manual_seed_seeds_the_default() -> None:
    generator = ops.manual_seed(2**63 - 1)
    first = ops.normal(5)
    assert list(generator.state.value) == [2**63 - 1, 1]
    ops.manual_seed(2**63 - 1)
    assert_same(ops.normal(5), first)


def test_a_trace_advances_the_counter_once_a_run() -> None:
    generator, other = Generator(1), Generator(2)

    def f(x: Any) -> Any:
        return (
            x + ops.uniform(4, generator=generator),
            ops.uniform(4, generator=generator),
            ops.uniform(4, generator=other),
        )

    graph, _ = trace(f, [np.zeros(4, np.float32)])
    (first, _), (second, _) = graph.writes
    assert first is generator.state
    assert second is other.state
    assert list(generator.state.value) == [1, 0]
    runs = [evaluate_graph(graph, [np.zeros(4, np.float32)]) for _ in range(2)]
    assert list(generator.state.value) == [1, 2]
    assert list(other.state.value) == [2, 2]
    assert not np.array_equal(runs[0][0], runs[0][1])
    assert not np.array_equal(runs[0][0], runs[1][0])
    assert_same(runs[0][0], ops.uniform(4, generator=Generator(1)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_zeroes_its_share_and_scales_the_rest(dtype: str) -> None:
    x = np.full((100, 100), 3.0, dtype)
    out = ops.dropout(x, 0.25, generator=Generator(0))
    assert set(np.unique(out)) == {0.0, np.dtype(dtype).type(4.0)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    assert out.dtype == x.dtype


def test_dropout_at_its_ends() -> None:
    x = np.ones((3, 3), np.float32)
    assert ops.dropout(x, 0.0) is x
    assert ops.dropout(x, 0.5, training=False) is x
    assert_same(ops.dropout(x, 1.0), np.zeros_like(x))
    assert_same(ops.dropout(np.array([np.inf]), 1.0), np.zeros(1))


def test_dropout_uses_one_mask_forward_and_backward() -> None:
    generator = Generator(4)
    x = np.arange(1.0, 41.0)

    def total(a: Any) -> Any:
        out = ops.dropout(a, 0.5, generator=generator)
        return ops.sum(out), out

    (_, out), gradient = value_and_grad(total, has_aux=True)(x)
    assert_same(gradient, out / x)
    assert 0 < np.count_nonzero(out) < x.size
