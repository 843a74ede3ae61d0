"""Sums, extremes and softmax of rows: whole eights, what is left over, NaN and infinity."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops

LENGTHS = (1, 7, 8, 9, 16, 31, 100)


def rows(length: int, dtype: str) -> np.ndarray:
    """Nine rows, of which some hold NaN or infinity."""
    x = (np.random.default_rng(length).standard_normal((9, length)) * 50).astype(dtype)
    if x.dtype.kind == "f":
        x[2, length // 2] = np.nan
        x[3, 0], x[4, -1] = np.inf, -np.inf
        x[5], x[6] = np.nan, -np.inf
        x[7, -1] = np.nan
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
@pytest.mark.parametrize("length", LENGTHS)
def test_extremes_of_rows_are_numpys(length, dtype):
    x = rows(length, dtype)
    most, least = gp.compile(lambda a: (ops.max(a, axis=-1), ops.min(a, axis=-1)), backend="numba")(
        x
    )
    np.testing.assert_array_equal(np.asarray(most), x.max(axis=-1))
    np.testing.assert_array_equal(np.asarray(least), x.min(axis=-1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", LENGTHS)
def test_sums_of_made_rows_are_exact_to_the_last_bits(length, dtype):
    x = np.random.default_rng(length).standard_normal((70, length)).astype(dtype)
    got = np.asarray(gp.compile(lambda a: ops.sum(a * a, axis=-1), backend="numba")(x))
    wide = (x * x).astype(np.longdouble).sum(axis=-1)
    np.testing.assert_allclose(got, wide.astype(dtype), rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", LENGTHS)
def test_softmax_of_rows_follows_the_reference(length, dtype):
    x = rows(length, dtype)
    functions = lambda a: (ops.softmax(a), ops.log_softmax(a))  # noqa: E731
    wanted = gp.compile(functions, backend="numpy")(x)
    for got, right in zip(gp.compile(functions, backend="numba")(x), wanted):
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(np.asarray(got), np.asarray(right), rtol=16 * eps, atol=8 * eps)
