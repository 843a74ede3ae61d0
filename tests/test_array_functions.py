"""Array functions by torch's and NumPy's names: corners, gradients, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import ops
from gpubp.errors import ArgumentError, DTypeError, ShapeError

X = np.array([[1.0, -2.0, 0.0], [0.0, 5.0, -0.5]])


def slope(fn: Callable[[Any], Any], x: Any) -> Any:
    return gp.compile(gp.grad(lambda x: ops.sum(fn(x))), backend="numba")(np.asarray(x, np.float64))


def test_gradients_of_products_with_zeros() -> None:
    assert slope(ops.prod, [2.0, 0.0, 3.0]).tolist() == [0.0, 6.0, 0.0]
    assert slope(ops.prod, [2.0, 0.0, 0.0]).tolist() == [0.0, 0.0, 0.0]
    assert slope(lambda x: ops.prod(x, 1), X).tolist() == [[0.0, 0.0, -2.0], [-2.5, 0.0, 0.0]]
    assert ops.prod(np.zeros((0, 2))) == 1.0


@pytest.mark.parametrize("ord", [1, 2, 3, np.inf])
def test_norms_have_no_slope_at_zero(ord: float) -> None:
    assert slope(lambda x: ops.norm(x, ord), np.zeros(4)).tolist() == [0.0] * 4
    assert np.isfinite(slope(lambda x: ops.norm(x, ord, 1), X)).all()
    np.testing.assert_allclose(ops.norm(X, ord, 1), np.linalg.norm(X, ord, 1), rtol=1e-15)


def test_norms_of_large_numbers_do_not_overflow() -> None:
    assert ops.norm(np.float32([3e30, 4e30])) == np.float32(5e30)
    assert ops.hypot(np.float32(3e30), np.float32(4e30)) == np.float32(5e30)


def test_spreads() -> None:
    np.testing.assert_allclose(ops.var(X, 1), X.var(1, ddof=1))
    np.testing.assert_allclose(ops.std(X, correction=0), X.std())
    assert np.isnan(ops.var(np.ones(1)))
    assert slope(lambda x: ops.std(x), np.ones(3)).tolist() == [0.0] * 3
    assert ops.var(np.array([1.0, 2.0]), correction=2) == np.inf, "no freedom, but a spread"


def test_slopes_where_a_factor_is_zero() -> None:
    x, y = np.zeros(5), np.array([2.0, 0.5, 0.0, -1.0, np.inf])
    by_x, by_y = gp.grad(lambda x, y: ops.sum(ops.xlogy(x, y)), (0, 1))(x, y)
    assert by_x.tolist() == [np.log(2.0), np.log(0.5), 0.0, 0.0, 0.0]
    assert by_y.tolist() == [0.0] * 5
    assert ops.xlogy(x, y).tolist() == [0.0] * 5 and np.isnan(ops.xlogy(0.0, np.nan))


def test_the_angle_of_the_origin_has_no_slope() -> None:
    signs = np.array([0.0, 0.0, -0.0, -0.0]), np.array([0.0, -0.0, 0.0, -0.0])
    for backend in ("numpy", "numba"):
        found = gp.compile(gp.grad(lambda y, x: ops.sum(ops.atan2(y, x)), (0, 1)), backend=backend)(
            *signs
        )
        assert [g.tolist() for g in found] == [[0.0] * 4] * 2


def test_logarithms_of_sums_at_infinity() -> None:
    x = np.array([[-np.inf, -np.inf], [np.inf, 1.0], [1000.0, 1000.0]])
    assert ops.logsumexp(x, 1).tolist() == [-np.inf, np.inf, 1000.0 + np.log(2.0)]
    assert ops.logaddexp(-np.inf, -np.inf) == -np.inf
    np.testing.assert_allclose(slope(lambda x: ops.logsumexp(x), [0.0, 0.0]), [0.5, 0.5])


def test_rounding_and_remainders_follow_their_signs() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999998, 4194304.5, 0.49999997], np.float32)
    for backend in ("numpy", "numba"):
        assert_same(gp.compile(ops.round, backend=backend)(x), np.round(x))
    a, b = np.array([5.0, -5.0, 5.0, -5.0, 3.0]), np.array([3.0, 3.0, -3.0, -3.0, np.inf])
    assert_same(np.asarray(ops.remainder(a, b)), np.remainder(a, b))
    assert_same(np.asarray(ops.fmod(a, b)), np.fmod(a, b))
    i, j = np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])
    assert_same(np.asarray(ops.floor_divide(i, j)), i // j)
    assert_same(np.asarray(ops.remainder(i, j)), i % j)
    assert ops.round(np.float64(2.675), decimals=2) == 2.68
    assert np.signbit(ops.copysign(1.0, -0.0)) and not ops.signbit(np.float32(0.0))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bij,bjk", [(2, 3, 4), (2, 4, 5)]),
        ("ii->i", [(3, 3)]),
        ("ij->", [(2, 3)]),
        ("i,j,k->kij", [(2,), (3,), (4,)]),
        ("...ij,...kj->...ik", [(2, 1, 3, 4), (5, 6, 4)]),
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)]),
        ("ijk,jil->kl", [(3, 2, 4), (2, 3, 5)]),
        ("bhqe,bhke->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ],
)
def test_einsum_is_that_of_numpy(equation: str, shapes: list[Any]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in shapes]
    fn = gp.compile(lambda *a: ops.einsum(equation, *a), backend="numba")
    np.testing.assert_allclose(fn(*arrays), np.einsum(equation, *arrays), rtol=1e-12)
    found = gp.grad(lambda a: ops.sum(ops.einsum(equation, a, *arrays[1:]) ** 2))(arrays[0])
    step = 1e-6 * rng.standard_normal(shapes[0])
    ends = [np.sum(np.einsum(equation, arrays[0] + s, *arrays[1:]) ** 2) for s in (step, -step)]
    np.testing.assert_allclose(np.sum(found * step), (ends[0] - ends[1]) / 2, rtol=1e-5)


def test_makers_stand_in_programs() -> None:
    def fn(x: Any) -> Any:
        grid = ops.meshgrid(ops.arange(3, dtype="float32"), ops.linspace(0.0, 1.0, 2))
        return x + ops.eye(3, 2) + grid[0] + grid[1] + ops.full((3, 2), 0.5) + ops.zeros(2)

    x = np.ones((3, 2), np.float32)
    assert_same(gp.compile(fn, backend="numba")(x), np.asarray(fn(x)))
    assert ops.zeros_like(np.ones(2, np.int32)).dtype == np.int32
    assert ops.full(2, 0.1, "float64")[0] == 0.1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.einsum("ij,jk->ik", X), ArgumentError, "2 operands"),
        (lambda: ops.einsum("i->i", X), ShapeError, "names the axes"),
        (lambda: ops.einsum("ij,kj->ik", X, X.T), ShapeError, "the sizes"),
        (lambda: ops.einsum("ij->ii", X), ArgumentError, "twice"),
        (lambda: ops.einsum("i1->i", X), ArgumentError, "letters"),
        (lambda: ops.norm(X.astype(int)), DTypeError, "expected floats"),
        (lambda: ops.norm(X, "fro"), ArgumentError, "expected a number"),
        (lambda: ops.split(X, 0), ArgumentError, "at least 1"),
        (lambda: ops.split(X, [1, 3], 1), ShapeError, "do not add up"),
        (lambda: ops.chunk(X, 0), ArgumentError, "at least 1"),
        (lambda: ops.roll(X, (1, 2)), ArgumentError, "as many dims"),
        (lambda: ops.tril(X[0]), ShapeError, "expected matrices"),
        (lambda: ops.unflatten(X, 1, (2, 2)), ShapeError, "cannot be"),
        (lambda: ops.repeat_interleave(X, [1, 2, 3], 0), ArgumentError, "one for each"),
        (lambda: ops.arange("a"), ArgumentError, "expected a number"),
        (lambda: ops.arange(3, 0, 0), ArgumentError, "step is 0"),
        (lambda: ops.arange(float("nan")), ArgumentError, "finite"),
        (lambda: ops.arange(0, 1, float("inf")), ArgumentError, "finite"),
        (lambda: ops.arange(2**70, 2**70 + 3), ArgumentError, "int64"),
        (lambda: ops.arange(0, 1, 5e-324), ShapeError, "larger than any memory"),
        (lambda: ops.arange(10**18), ShapeError, "larger than any memory"),
        (lambda: ops.bincount(np.array([10**16])), ShapeError, "larger than any memory"),
        (lambda: ops.scatter_add(X[0], np.zeros(X[0].shape, int), 10**16), ShapeError, "memory"),
        (lambda: ops.meshgrid(X[0], indexing="ji"), ArgumentError, "'ij' or 'xy'"),
        (lambda: ops.clamp(X), ArgumentError, "min or max"),
        (lambda: ops.outer(X, X), ShapeError, "two vectors"),
        (lambda: ops.round(X, decimals=1.5), ArgumentError, "whole number"),
    ],
)
def test_calls_that_cannot_work(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_remainders_are_exact_where_quotients_round() -> None:
    """3.5 / -0.7 rounds to -5, though the float -0.7 is a little below -0.7."""
    a, b = np.array([3.5, 1e4, 88.0, 7.0, -7.0]), np.array([-0.7, 0.3, 0.9999999, np.inf, 2.0])
    i = np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).min, 2**60 + 1, -7, 7])
    j = np.array([10, -1, 3, 0, -2])
    for x, y in ((a, b), (a.astype(np.float32), b.astype(np.float32)), (i, j)):
        with np.errstate(all="ignore"):
            expected = x % y, np.fmod(x, y), x // y
        found = gp.compile(lambda x, y: (x % y, ops.fmod(x, y), x // y), backend="numba")(x, y)
        for mine, wanted in zip(found, expected, strict=True):
            assert_same(np.asarray(mine), wanted)


def test_norms_below_one_have_no_gradient_by_zeros() -> None:
    slope = gp.grad(lambda x: ops.vector_norm(x, 0.5))
    assert_same(np.asarray(slope(np.zeros(3))), np.zeros(3))
    assert_close(np.asarray(slope(np.array([0.0, 4.0, 1.0]))), np.array([0.0, 1.5, 3.0]))
