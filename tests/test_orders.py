"""`step.run(order=...)`: one order for all epochs, or a row for each."""

from __future__ import annotations

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import DataError

X = np.random.default_rng(0).normal(size=(10, 3))


def _step(backend: str) -> tuple[gp.Step, nn.Parameter]:
    W = nn.Parameter(np.ones((3, 1)))
    loss = lambda x: ops.mean(ops.square(ops.matmul(x, W)))  # noqa: E731
    return gp.compile_step(loss, optim.SGD([W], lr=0.1), backend=backend), W


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch_size", [4, 5, 10])
def test_a_row_for_each_epoch(backend, batch_size):
    rng = np.random.default_rng(1)
    orders = np.stack([rng.permutation(10) for _ in range(3)])
    step, W = _step(backend)
    together = step.run(X, batch_size=batch_size, order=orders)
    other, V = _step(backend)
    apart = [other.run(X, batch_size=batch_size, order=order) for order in orders]
    assert_same(together, np.concatenate(apart))
    assert_same(W.value, V.value)
    done = []
    step.run(X, batch_size=batch_size, order=orders, progress=lambda i, n: done.append((i, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("order", "match"),
    [
        (np.zeros((2, 3, 4), int), "a row for each"),
        (np.zeros((0, 3), int), "non-empty"),
        (np.zeros((2, 3)), "integer array"),
        (np.array([[0, 1], [2, 10]]), "expected 0 to 9"),
    ],
)
def test_orders_that_are_none_are_refused(order, match):
    with pytest.raises(DataError, match=match):
        _step("numpy")[0].run(X, batch_size=1, order=order)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_is_refused_uses_up_no_order(backend, epochs):
    step, W = _step(backend)
    bad = np.where(X > 1.3, np.nan, X)
    with pytest.raises(DataError, match="nan"):
        step.run(bad, batch_size=4, epochs=epochs)
    with pytest.raises(DataError, match="only 10 samples"):
        step.run(X, batch_size=11, epochs=epochs)
    assert np.array_equal(W.value, np.ones((3, 1)))
    other, V = _step(backend)
    assert np.array_equal(step.run(X, batch_size=4), other.run(X, batch_size=4))
    assert np.array_equal(W.value, V.value)
