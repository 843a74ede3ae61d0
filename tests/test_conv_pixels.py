"""Convolutions of one channel with few filters, whose lanes are pixels: what each result reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.backends.numba_cpu.encode_conv import pays

RNG = np.random.default_rng(0)
SHAPES = [
    ((3, 1, 9, 29), (6, 1, 5, 5)),
    ((2, 1, 6, 48), (7, 1, 3, 3)),
    ((4, 1, 5, 20), (13, 1, 1, 1)),
]


def test_lanes_are_what_fills_more_of_them() -> None:
    assert pays(28, filters=6, width=16)
    assert not pays(28, filters=16, width=16)
    assert not pays(12, filters=6, width=16)  # a vector would reach over the end of a line
    assert not pays(17, filters=12, width=16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("images", "weights"), SHAPES)
def test_a_number_that_is_not_finite_reaches_its_own_windows_alone(
    images: Any, weights: Any, dtype: str
) -> None:
    x, w = RNG.normal(size=images).astype(dtype), RNG.normal(size=weights).astype(dtype)
    x[0, 0, 2, -1], x[1, 0, 3, 4] = np.inf, np.nan

    def f(x: Any, w: Any) -> Any:
        return ops.conv2d(x, w, padding=1)

    def gradient(x: Any, w: Any) -> Any:
        return gp.grad(lambda w: ops.sum(f(x, w) * 0.5))(w)

    for fn in (f, gradient):
        right = np.asarray(gp.compile(fn, backend="numpy")(x, w))
        found = np.asarray(gp.compile(fn, backend=NumbaBackend(workers=1))(x, w))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(right))
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


def test_bias_and_activation_are_part_of_the_line() -> None:
    x, w, b = RNG.normal(size=(5, 1, 8, 31)), RNG.normal(size=(11, 1, 3, 3)), RNG.normal(size=11)
    for activation in (ops.relu, ops.tanh, lambda y: y, lambda y: ops.sigmoid(y) * y):
        for args in ((x, w, b), (x, w)):

            def f(*args: Any, activation: Any = activation) -> Any:
                return activation(ops.conv2d(*args))

            right = gp.compile(f, backend="numpy")(*args)
            for workers in (1, 2, 3):
                found = gp.compile(f, backend=NumbaBackend(workers=workers))(*args)
                np.testing.assert_allclose(found, right, rtol=1e-11, atol=1e-11)
