"""Pools over many windows against torch's, in float64: values, indices, gradients, refusals.

At once, by the NumPy references: every backend is compared with these elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops
from gpubp.errors import GpubpError

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
functional = torch.nn.functional

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
IMAGES = {
    1: RNG.standard_normal((2, 3, 11)),
    2: RNG.standard_normal((2, 3, 9, 7)),
    3: RNG.standard_normal((2, 2, 5, 6, 7)),
}
RTOL, ATOL = 1e-12, 1e-13
AXES = pytest.mark.parametrize("axes", [1, 2, 3])


def both(name: str, axes: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return getattr(ops, f"{name}{axes}d"), getattr(functional, f"{name}{axes}d")


def agree(mine: Callable[..., Any], theirs: Callable[..., Any], x: Any, what: str) -> None:
    """Values, and the gradient of a sum with random weights."""
    leaf = torch.tensor(x, requires_grad=True)
    expected = theirs(leaf)
    found = np.asarray(mine(x))
    assert found.shape == tuple(expected.shape), what
    np.testing.assert_allclose(found, expected.detach().numpy(), RTOL, ATOL, err_msg=what)
    weight = np.random.default_rng(1).standard_normal(found.shape)
    (slope,) = torch.autograd.grad((expected * torch.tensor(weight)).sum(), leaf)
    pulled = gp.grad(lambda x: ops.sum(mine(x) * weight))(x)
    np.testing.assert_allclose(pulled, slope.numpy(), RTOL, ATOL, err_msg=f"{what}: gradient")


def of(f: Callable[..., Any], *rest: Any, **named: Any) -> Callable[..., Any]:
    """f of its first argument, with all others given now."""
    return lambda x: f(x, *rest, **named)


@AXES
def test_the_largest(axes: int) -> None:
    x, (mine, theirs) = IMAGES[axes], both("max_pool", axes)
    refused = 0
    choices = itertools.product((2, 3), (None, 1, 3), (0, 1, 2), (1, 2), (False, True))
    for kernel, stride, padding, dilation, ceil in choices:
        given = (kernel, stride, padding, dilation, ceil)
        try:
            expected = theirs(torch.tensor(x), *given, return_indices=True)[1].numpy()
        except RuntimeError:
            refused += 1
            with pytest.raises(GpubpError):
                mine(x, *given)
            continue
        np.testing.assert_array_equal(mine(x, *given, True)[1], expected, err_msg=str(given))
        agree(of(mine, *given), of(theirs, *given), x, str(given))
    assert refused > 0


@AXES
def test_averages(axes: int) -> None:
    x, (mine, theirs) = IMAGES[axes], both("avg_pool", axes)
    choices = itertools.product(
        (2, 3), (None, 1, 2, 3), (0, 1), (False, True), (False, True), (None, 7, -2)
    )
    for *given, divisor in choices:
        if axes > 1:
            given.append(divisor)
        agree(of(mine, *given), of(theirs, *given), x, str(given))


@AXES
def test_power_averages(axes: int) -> None:
    mine, theirs = both("lp_pool", axes)
    choices = itertools.product((1, 2, 3, 1.5, np.inf, -np.inf), (2, 3), (None, 2), (False, True))
    for given in choices:
        x = np.abs(IMAGES[axes]) if given[0] in (3, 1.5) else IMAGES[axes]
        agree(of(mine, *given), of(theirs, *given), x, str(given))
    zeros = np.zeros_like(IMAGES[axes])
    agree(lambda x: mine(x, 2, 2), lambda x: theirs(x, 2.0, 2), zeros, "zeros")


@AXES
def test_windows_by_the_size_of_the_result(axes: int) -> None:
    x = IMAGES[axes]
    for name in ("adaptive_avg_pool", "adaptive_max_pool"):
        mine, theirs = both(name, axes)
        for size in (1, 2, 3, 4, 5, 7):
            agree(of(mine, size), of(theirs, size), x, f"{name} {size}")
    for size in (1, 2, 3, 4, 5, 7):
        expected = theirs(torch.tensor(x), size, True)[1].numpy()
        np.testing.assert_array_equal(mine(x, size, True)[1], expected)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_at_given_samples(axes: int, dtype: str) -> None:
    x, (mine, theirs) = IMAGES[axes].astype(dtype), both("fractional_max_pool", axes)
    for kernel, size in itertools.product((1, 2), (2, 3)):
        samples = RNG.random((*x.shape[:2], axes)).astype(dtype)
        given = torch.tensor(samples)
        expected = theirs(torch.tensor(x), kernel, size, None, True, given)
        found = mine(x, kernel, size, None, True, samples)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b.numpy())
        if dtype == "float64":
            agree(
                of(mine, kernel, size, _random_samples=samples),
                of(theirs, kernel, size, _random_samples=given),
                x,
                f"{kernel} {size}",
            )


@AXES
def test_undone(axes: int) -> None:
    x, (mine, theirs) = IMAGES[axes], both("max_unpool", axes)
    pool = both("max_pool", axes)[1]
    for kernel, stride, size in ((2, 2, x.shape[2:]), (3, 1, None), (3, 2, x.shape)):
        y, index = pool(torch.tensor(x), kernel, stride, return_indices=True)
        given = (kernel, stride, 0, size)
        agree(
            of(mine, index.numpy(), *given),
            of(theirs, index, *given),
            y.numpy(),
            str(given),
        )
