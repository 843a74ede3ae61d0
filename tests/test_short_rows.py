"""Sums over short rows, with elementwise ops inside or not: several at a time, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu import NumbaBackend

CASES: tuple[tuple[tuple[int, ...], Any], ...] = (
    ((5, 16), 0),
    ((1000, 16), 0),
    ((64, 5, 7, 3), (0, 1, 2)),
    ((7, 130, 9), 1),
    ((3, 40, 128), 1),  # as long as short rows may be in float32
    ((3, 40, 200), 1),
    ((100, 600), 0),
    ((33, 1), 0),
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_sums_over_short_rows(shape: tuple[int, ...], axis: Any, dtype: str) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    mean = x.mean(axis=axis, keepdims=True)

    def f(x: Any, mean: Any) -> Any:
        return ops.sum(ops.square(x - mean) * 2 + 1, axis), ops.mean(ops.tanh(x) * mean, axis)

    expected = gp.compile(f, backend="numpy")(x.astype("f8"), mean.astype("f8"))
    first = gp.compile(f, backend=NumbaBackend(workers=1))(x, mean)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for found, right in zip(first, expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance)
    for workers in (2, 3):
        again = gp.compile(f, backend=NumbaBackend(workers=workers))(x, mean)
        for found, same in zip(again, first, strict=True):
            np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 2, 3, 6, 16, 31, 32, 33])
def test_sums_of_columns_that_are_joined(columns: int, dtype: str) -> None:
    for rows in (0, 1, 5, 130, 4099):
        x = np.random.default_rng(rows).normal(size=(2, rows, columns)).astype(dtype)
        found = [
            gp.compile(lambda x: ops.sum(x, 1), backend=NumbaBackend(workers=n))(x)
            for n in (1, 2, 3)
        ]
        tolerance = 1e-6 if dtype == "float32" else 1e-13
        right = x.astype("f8").sum(1)
        np.testing.assert_allclose(found[0], right, rtol=tolerance, atol=tolerance * rows**0.5)
        for again in found[1:]:
            np.testing.assert_array_equal(again, found[0])
