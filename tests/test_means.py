"""A mean is the sum divided by the number of its terms, in float64, and rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_integers import BACKENDS, ON_ALL
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import DTypeError, ShapeError

SHAPES: list[tuple[tuple[int, ...], Any]] = [
    ((7,), None), ((49,), 0), ((1000,), None), ((12345,), None), ((1, 3), 1), ((300, 7), 0),
    ((300, 7), 1), ((41, 3, 5), (0, 1)), ((6, 49, 11), 1), ((3, 5, 41), (0, 2)), ((2, 5000), 1),
    ((4097, 3), 0),
]  # fmt: skip


@ON_ALL
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_the_mean_of_equal_numbers_is_that_number(
    shape: tuple[int, ...], axis: Any, dtype: str, backend: str
) -> None:
    compiled = gp.compile(
        lambda x: (ops.mean(x, axis), ops.mean(x * 1.0, axis, keepdims=True)),
        backend=BACKENDS[backend](),
    )
    # Sums of float32 are exact in float64; of float64 those of whole numbers are.
    for value in (7.0, 0.1, -3e-30) if dtype == "float32" else (7.0, -1024.0):
        x = np.full(shape, value, dtype)
        for found in compiled(x):
            assert np.all(np.asarray(found) == x.flat[0]), value


@ON_ALL
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_a_mean_is_rounded_once(shape: tuple[int, ...], axis: Any, backend: str) -> None:
    """Of float32 to the last bit, but where columns are added four rows at a time, or in turn."""
    x = np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)
    compiled = gp.compile(lambda x: ops.mean(x, axis), backend=BACKENDS[backend]())
    wanted = np.mean(x, axis, dtype=np.float64).astype(np.float32)
    last = (axis in (None, 1, (1, 2)) and len(shape) < 3) or shape == (7,)
    exactly = last or (backend in ("numpy", "cuda") and axis != (0, 2))
    (assert_same if exactly else assert_close)(np.asarray(compiled(x)), np.asarray(wanted))


@ON_ALL
def test_losses_and_normalisation(backend: str) -> None:
    target = BACKENDS[backend]()
    x = np.full((49, 3), 7, np.float32)
    zero = np.zeros_like(x)
    assert float(gp.compile(nn.L1Loss(), backend=target)(x, zero)) == 7.0
    assert float(gp.compile(nn.MSELoss(), backend=target)(x, zero)) == 49.0
    norm = nn.BatchNorm1d(3, momentum=None)
    assert not np.any(np.asarray(gp.compile(norm, backend=target)(x)))
    np.testing.assert_array_equal(norm.running_mean.value, [7, 7, 7])
    np.testing.assert_array_equal(norm.running_var.value, [0, 0, 0])
    layer = nn.LayerNorm(49)
    assert not np.any(np.asarray(gp.compile(layer, backend=target)(x.T.copy())))


@ON_ALL
@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
def test_gradients_of_means_divide_by_n(axis: Any, backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(7, 3, 5))

    def fn(x: Any) -> Any:
        return ops.sum(ops.square(ops.mean(x, axis)))

    axes = tuple(range(3)) if axis is None else axis
    mean = np.mean(x, axes, keepdims=True)
    wanted: NDArray[Any] = np.broadcast_to(2 * mean * mean.size / x.size, x.shape)
    found = gp.compile(gp.grad(fn), backend=BACKENDS[backend]())(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-13)
    curved = gp.compile(gp.grad(lambda x: ops.sum(gp.grad(fn)(x) * x)), backend="numpy")(x)
    np.testing.assert_allclose(curved, 2 * wanted, rtol=1e-13)


def test_integers_and_nothing_have_no_mean() -> None:
    with pytest.raises(DTypeError, match="expected floats"):
        ops.mean(np.arange(3))
    with pytest.raises(ShapeError, match="no elements"):
        gp.compile(lambda x: ops.mean(x, 0))(np.zeros((0, 3)))
