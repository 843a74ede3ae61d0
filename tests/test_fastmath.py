"""The functions of the CPU kernels stay within the bounds that `fastmath` states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf, expit, ndtr

import gpubp as gp
from gpubp import ops

BOUNDS: dict[str, tuple[Callable[..., Any], float, tuple[float, float]]] = {
    "exp": (np.exp, 3e-7, (-87.3, 88.7)),
    "expm1": (np.expm1, 3e-7, (-87.3, 88.7)),
    "tanh": (np.tanh, 3e-7, (-20.0, 20.0)),
    "sigmoid": (expit, 3e-7, (-87.3, 87.3)),
    "erf": (erf, 4e-7, (-6.0, 6.0)),
    "log": (np.log, 2e-7, (1e-30, 1e30)),
    "log1p": (np.log1p, 2e-7, (-0.999, 1e30)),
}
SLOPE_BOUND = 3e-7  # absolute


def compiled(name: str) -> Callable[[Any], NDArray[Any]]:
    """The op as a program; not verified, because that takes long on millions of elements."""
    return gp.compile(getattr(ops, name), backend="numba", options=gp.Options(verify=False))


def points(low: float, high: float) -> NDArray[np.float32]:
    """A million numbers over the range, and a million that crowd around zero."""
    even = np.linspace(low, high, 1_000_001)
    near = np.concatenate([-np.logspace(-30, 0, 500_000), np.logspace(-30, 0, 500_000)])
    found = np.concatenate([even, near]).astype(np.float32)
    return found[(found >= low) & (found <= high)]


@pytest.mark.parametrize("name", BOUNDS)
def test_relative_error_is_within_the_stated_bound(name: str) -> None:
    reference, bound, (low, high) = BOUNDS[name]
    x = points(low, high)
    actual = compiled(name)(x).astype(np.float64)
    exact = reference(x.astype(np.float64))
    error = np.max(np.abs(actual - exact) / np.maximum(np.abs(exact), 1e-37))
    assert error <= bound, f"{name}: {error:.2e}"


@pytest.mark.parametrize("name", BOUNDS)
def test_fast_math_keeps_limits_and_nan(name: str) -> None:
    reference = BOUNDS[name][0]
    x = np.array([np.inf, -np.inf, np.nan, 0.0, 1000.0, -1000.0], np.float32)
    with np.errstate(all="ignore"):
        expected = reference(x)
    actual = compiled(name)(x)
    if name.startswith("log"):  # of 1000 there is no limit: it is in the test above
        actual, expected = np.delete(actual, 4), np.delete(expected, 4)
    np.testing.assert_array_equal(actual, expected)


def test_the_slope_of_gelu_is_near_its_formula() -> None:
    """Absolute: it has a zero, and goes to 0 and 1."""
    x = points(-20.0, 20.0)
    slope = gp.compile(
        gp.grad(lambda a: ops.sum(ops.gelu(a))), backend="numba", options=gp.Options(verify=False)
    )
    wide = x.astype(np.float64)
    exact = ndtr(wide) + wide * np.exp(-0.5 * wide * wide) / np.sqrt(2.0 * np.pi)
    assert np.max(np.abs(slope(x) - exact)) <= SLOPE_BOUND
    ends = slope(np.array([np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(ends, [1.0, 0.0, np.nan])


@pytest.mark.parametrize("name", ["exp", "sigmoid"])
def test_below_the_smallest_normal_number(name: str) -> None:
    """Rounded to the steps that are left, and 0 after the last one; nothing comes back from there.

    2^n has two factors, whose exponents must not reach the sign, however low x is.
    """
    for dtype, low, end in ((np.float32, -87.4, -104.5), (np.float64, -708.5, -746.0)):
        x = np.concatenate([
            np.linspace(low, end, 5000), np.linspace(end, -300.0 if end > -200 else -1500.0, 5000),
            -np.logspace(3.2, 38 if dtype is np.float32 else 300, 500),
        ]).astype(dtype)  # fmt: skip
        with np.errstate(all="ignore"):
            exact = np.exp(x.astype(np.longdouble)).astype(dtype)
        found = compiled(name)(x)
        assert np.max(np.abs(found - exact)) <= np.finfo(dtype).smallest_subnormal
        assert not found[x < end - 1].any()


def test_exp_of_float64_is_right_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-708.3, 709.78, 1_000_001), np.linspace(-1, 1, 1_000_001)])
    exact = np.exp(x.astype(np.longdouble))
    assert np.max(np.abs(compiled("exp")(x) - exact) / exact) <= 5e-16
    ends = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 709.79, -750.0, 1e300, -1e300])
    with np.errstate(all="ignore"):
        expected = np.exp(ends)
    np.testing.assert_array_equal(compiled("exp")(ends), expected)


def test_sigmoid_of_float64_is_right_to_the_last_digits() -> None:
    x = np.linspace(-700.0, 700.0, 1_000_001)
    np.testing.assert_allclose(compiled("sigmoid")(x), expit(x), rtol=2e-15)
