"""Sums over terms that are made as they are added (variances, sums of products), and short rows.

The CPU backend makes many rows of terms at a time and adds four by four; what it adds is the same
for any number of workers, and right where rows, columns and pieces end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu import NumbaBackend

RNG = np.random.default_rng(31)
COLUMNS = (1, 2, 3, 5, 8, 16, 33, 100, 127, 128, 129, 600, 1500)


def by_workers(fn: Callable[..., Any], *arrays: Any) -> list[Any]:
    """The results of 1, 2 and 3 workers."""
    return [gp.compile(fn, backend=NumbaBackend(workers=n))(*arrays) for n in (1, 2, 3)]


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", [1, 3, 50, 4099])
def test_sums_down_columns_of_made_terms(rows: int, columns: int) -> None:
    x = RNG.normal(3, 2, (rows, columns)).astype(np.float32)
    mean = x.mean(0)
    first, *others = by_workers(lambda x, m: ops.sum(ops.square(x - m) * 0.5, axis=0), x, mean)
    exact = (np.square((x - mean).astype(np.float64)) * 0.5).sum(0)
    np.testing.assert_allclose(first, exact, rtol=4e-7, atol=1e-12)
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_sums_along_rows_of_made_terms(rows: int, columns: int) -> None:
    x = RNG.normal(size=(rows, columns)).astype(np.float32)
    weight = RNG.normal(size=columns).astype(np.float32)
    first, *others = by_workers(lambda x, w: ops.sum(x * w, axis=1), x, weight)
    exact = (x.astype(np.float64) * weight).sum(1)
    np.testing.assert_allclose(first, exact, rtol=1e-6, atol=1e-6 * np.sqrt(columns))
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("inner", [1, 2, 3, 5, 7, 8, 9])
def test_short_rows_are_turned(inner: int, dtype: str) -> None:
    """Images with few channels, as they are laid out for convolutions."""
    x = (RNG.normal(size=(5, inner, 30, 41)) * 9).astype(dtype)
    for axes in ((0, 2, 3, 1), (3, 0, 2, 1), (0, 3, 2, 1), (2, 3, 0, 1)):
        for found in by_workers(lambda x, axes=axes: ops.transpose(x, axes) + 1, x):
            np.testing.assert_array_equal(found, x.transpose(axes) + 1)
    part = x[:, :, 3:29, 2:40:3]
    for found in by_workers(lambda x: ops.transpose(x[:, :, 3:29, 2:40:3], (0, 2, 3, 1)) + 1, x):
        np.testing.assert_array_equal(found, part.transpose(0, 2, 3, 1) + 1)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3), (2, 3, 0)])
@pytest.mark.parametrize("axis", [0, 1])
def test_sums_of_no_terms_are_0(shape: tuple[int, ...], axis: int) -> None:
    x, weight = np.zeros(shape, np.float32), np.ones(shape[-1], np.float32)
    for found in by_workers(lambda x, w: ops.sum(x * w, axis=axis), x, weight):
        np.testing.assert_array_equal(found, (x * weight).sum(axis))
