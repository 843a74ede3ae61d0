"""Sums over samples and positions are made in two steps, the first without a barrier before it."""

from __future__ import annotations

import re

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.compiler.tall_sums import LEAST

rng = np.random.default_rng(0)
IMAGES = rng.standard_normal((16, 12, 12, 8))
assert IMAGES.size >= LEAST


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [(0, 1, 2), (0, 1), (0, 1, 2, 3), (1, 2), 0, (0, 2), -1])
@pytest.mark.parametrize("fn", [ops.sum, ops.mean])
def test_values_are_those_of_numpy(fn, axis, keepdims, dtype):
    x = (IMAGES + 3).astype(dtype)
    found = gp.compile(lambda x: fn(x * x, axis, keepdims) + 1, backend="numba")(x)
    expected = getattr(np, fn.__name__)(np.square(x.astype("float64")), axis, keepdims=keepdims) + 1
    assert found.shape == expected.shape and found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == "float32" else 1e-13)


def test_the_mean_of_sevens_is_seven():
    mean = gp.compile(lambda x: ops.mean(x, (0, 1, 2)), backend="numba")
    for shape in ((12, 37, 5, 8), (3, 77, 81, 3)):
        assert (mean(np.full(shape, 7, np.float32)) == 7).all()


def test_sums_that_would_gain_nothing_stay_as_they_are():
    def sums(x, axis):
        graph = gp.compile(lambda x: ops.sum(x, axis), backend="numba").explain(
            x, after="axis_order"
        )
        return len(re.findall(r"= sum\(", graph))

    assert sums(IMAGES, (0, 1, 2)) == 2
    assert sums(IMAGES, (1, 2)) == sums(IMAGES, (0, 2)) == sums(IMAGES, (0, 1, 2, 3)) == 1
    assert sums(IMAGES[:2], (0, 1, 2)) == sums(IMAGES.reshape(-1, 8), 0) == 1
    assert sums(IMAGES.astype("int64"), (0, 1, 2)) == 1
    assert sums(rng.standard_normal((300, 4, 16)), (0, 1)) == 1  # hardly fewer than there are


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1024, 2053, 5000])
@pytest.mark.parametrize(("m", "n"), [(33, 5), (5, 128), (100, 100), (300, 300)])
def test_products_over_many_rows_are_those_of_numpy(m, n, rows, dtype):
    """2,053 is a prime; of 100 x 100 neither is narrow, and of 300 x 300 there are many."""
    draw = np.random.default_rng(rows + m)
    x, y = draw.normal(size=(rows, m)).astype(dtype), draw.normal(size=(rows, n)).astype(dtype)
    expected = np.tanh(x.astype("float64")).T @ np.sin(y.astype("float64"))
    plain = gp.compile(lambda x, y: ops.tanh(x).T @ ops.sin(y), backend="numba")
    turned = gp.compile(lambda x, y: (ops.tanh(x).T @ ops.sin(y)).T * 2.0, backend="numba")
    both = gp.compile(lambda x, y: [p := ops.tanh(x).T @ ops.sin(y), p.T], backend="numba")
    rtol = 1e-4 if dtype == "float32" else 1e-11
    for found in (plain(x, y), turned(x, y).T / 2, both(x, y)[0], both(x, y)[1].T):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-2 * rtol * rows)
    split = "reduce" in plain.explain(x, y, after="memory_plan")
    assert split == (min(m, n) <= 64 and rows != 2053)


def test_gradients_of_recurrent_weights_are_made_in_pieces():
    def trained(backend):
        gp.manual_seed(0)
        lstm = nn.LSTM(5, 12, batch_first=True, dtype="float64")
        head = nn.Linear(12, 3, dtype="float64")
        parameters = [*lstm.parameters(), *head.parameters()]
        loss_fn = nn.CrossEntropyLoss()
        step = gp.compile_step(
            lambda x, t: loss_fn(head(lstm(x)[0][:, -1]), t),
            optim.Adam(parameters, lr=0.01),
            backend=backend,
        )
        x = np.random.default_rng(2).normal(size=(32, 50, 5))
        step.run(x, np.arange(32) % 3, batch_size=32, epochs=3)
        return [p.value for p in parameters]

    expected = trained("numpy")
    first = trained(NumbaBackend(1))
    for a, b, c, d in zip(expected, first, trained(NumbaBackend(2)), trained(NumbaBackend(3))):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(b, c)
        np.testing.assert_array_equal(b, d)


def trained(workers):
    """Losses and state of a network whose statistics and bias gradients are such sums."""
    gp.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3),
        nn.Flatten(), nn.Linear(400, 3),
    )  # fmt: skip
    loss_fn = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda x, t: loss_fn(model(x), t),
        optim.SGD(model.parameters(), lr=0.05),
        backend=NumbaBackend(workers) if workers else "numpy",
    )
    images = np.random.default_rng(1).standard_normal((40, 3, 12, 12), np.float32)
    losses = step.run(images, np.arange(40) % 3, batch_size=16, epochs=3, seed=1)
    return {"losses": losses, **model.state_dict()}


def test_training_has_the_same_bits_for_any_number_of_workers():
    expected, reference = trained(1), trained(None)
    for name, value in reference.items():
        np.testing.assert_allclose(expected[name], value, rtol=1e-4, atol=1e-5)
    for workers in (2, 3):
        for name, value in trained(workers).items():
            np.testing.assert_array_equal(value, expected[name])


def test_statistics_of_a_convolution_need_no_barrier_behind_it():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    images = np.zeros((16, 3, 32, 32), np.float32)
    text = gp.compile(model, backend="numba").explain(images, after="memory_plan")
    behind, barrier = text[text.index("= conv<") :].splitlines()[2:4]
    assert "= reduce<sum>(" in behind and barrier == "SYNC"
