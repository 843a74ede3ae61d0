"""Every tolerance of the tests, stated once by dtype; none is ever scaled to make a test pass."""

from __future__ import annotations

from typing import Any

import numpy as np

RTOL = {"float32": 1e-5, "float64": 1e-12}
ATOL = {"float32": 1e-6, "float64": 1e-13}

# Of the largest expected value, for whole models and trajectories against PyTorch, whose sums
# run in another order.
ORACLE = {"float32": 1e-4, "float64": 1e-10}

# Central differences in float64: with this step, truncation and rounding both stay below 1e-8.
GRADIENT_STEP = 1e-6
GRADIENT_RTOL = 1e-6
GRADIENT_ATOL = 1e-8


def assert_same(actual: Any, expected: Any, what: str = "") -> None:
    """Equal in shape, dtype and every value; NaN equals NaN."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} != {expected.dtype}"
    np.testing.assert_array_equal(actual, expected, err_msg=what, strict=True)


def assert_close(actual: Any, expected: Any, what: str = "") -> None:
    """Equal in shape and dtype, and in value within the dtype's tolerance."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    name = str(expected.dtype)
    if name not in RTOL:
        assert_same(actual, expected, what)
        return
    np.testing.assert_allclose(actual, expected, RTOL[name], ATOL[name], err_msg=what, strict=True)


def assert_product(actual: Any, a: Any, b: Any, what: str = "") -> None:
    """A matrix product agrees with the exact one, within the dtype's tolerance of |A| |B|.

    An entry is a sum, and rounding is relative to the sizes of its terms, not to what is left of
    them (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.5). Two
    libraries that add in different orders differ by as much.
    """
    wide = [np.asarray(x, np.longdouble) for x in (a, b)]
    assert_sums(actual, np.matmul(*wide), np.matmul(*map(np.abs, wide)), what)


def assert_sums(actual: Any, exact: Any, sizes: Any, what: str = "") -> None:
    """Sums agree with exact ones, within the dtype's tolerance of the sum of their terms' sizes."""
    name = str(actual.dtype)
    assert actual.shape == exact.shape, f"{what}: {actual.shape} != {exact.shape}"
    excess = np.abs(actual - exact) - (RTOL[name] * sizes + ATOL[name])
    assert (excess <= 0).all(), f"{what}: beyond the tolerance by {excess.max()}"  # nor NaN


def assert_gradient(actual: Any, numeric: Any, what: str = "") -> None:
    """A float64 gradient agrees with central differences."""
    np.testing.assert_allclose(
        actual, numeric, GRADIENT_RTOL, GRADIENT_ATOL, err_msg=what, strict=True
    )
