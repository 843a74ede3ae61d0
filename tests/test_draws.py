"""Random numbers in a range, random whole numbers, and random classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops
from gpubp.errors import DataError, DTypeError, ShapeError

WEIGHTS = np.float32([[0.0, 1.0, 3.0, 0.0, 4.0], [2.0, 0.0, 0.0, 0.5, 0.0]])
DRAWS: list[Callable[[], Any]] = [
    lambda: ops.uniform((7, 5), low=-3.0, high=-1.0),
    lambda: ops.randint(-4, 9, (7, 5)),
    lambda: ops.multinomial(WEIGHTS, 2),
    lambda: ops.multinomial(WEIGHTS, 6, replacement=True),
]


def shares(found: Any, classes: int) -> Any:
    return np.bincount(np.ravel(found), minlength=classes) / np.size(found)


@pytest.mark.parametrize("draw", DRAWS)
def test_programs_draw_what_calls_draw(draw: Callable[[], Any]) -> None:
    gp.manual_seed(3)
    at_once = [np.asarray(draw()) for _ in range(2)]
    assert (at_once[0] != at_once[1]).any()
    for backend in ("numpy", "numba"):
        gp.manual_seed(3)
        program = gp.compile(draw, backend=backend)
        for expected in at_once:
            np.testing.assert_array_equal(program(), expected)


def test_numbers_are_spread_evenly_over_their_range() -> None:
    gp.manual_seed(0)
    x = ops.uniform((20_000,), "float64", low=2.0, high=6.0)
    assert 2.0 <= x.min() < 2.01 and 5.99 < x.max() < 6.0
    np.testing.assert_allclose(shares((x - 2.0).astype(int), 4), 0.25, atol=0.01)
    assert ops.uniform((3,), low=1.5, high=1.5).tolist() == [1.5] * 3


def test_whole_numbers_are_spread_evenly_over_their_range() -> None:
    gp.manual_seed(0)
    x = ops.randint(-2, 3, (20_000,), "int32")
    assert x.dtype == np.int32 and set(x.tolist()) == {-2, -1, 0, 1, 2}
    np.testing.assert_allclose(shares(x + 2, 5), 0.2, atol=0.01)
    assert (ops.randint(7, 8, (4, 2)) == 7).all()
    wide = ops.randint(-(2**52), 2**52, (1000,))
    assert wide.min() < -(2**51) and wide.max() > 2**51 and (wide % 2 == 1).any()


def test_classes_come_in_proportion_to_their_weights() -> None:
    gp.manual_seed(0)
    found = ops.multinomial(WEIGHTS, 20_000, replacement=True)
    assert found.shape == (2, 20_000) and found.dtype == np.int64
    for row, weights in zip(found, WEIGHTS):
        chances = weights / weights.sum()
        np.testing.assert_allclose(shares(row, 5), chances, atol=0.012)
        assert not shares(row, 5)[weights == 0].any()


def test_no_class_comes_twice_without_replacement() -> None:
    gp.manual_seed(0)
    found = ops.multinomial(np.tile(WEIGHTS[0], (20_000, 1)), 3)
    assert (np.sort(found, 1) == [1, 2, 4]).all()
    np.testing.assert_allclose(shares(found[:, 0], 5), WEIGHTS[0] / 8, atol=0.012)
    rest = found[found[:, 0] == 4, 1]  # what comes next, of 1 and 3
    np.testing.assert_allclose(shares(rest, 3), [0.0, 0.25, 0.75], atol=0.02)


def test_classes_have_no_gradient() -> None:
    def drawn(p: Any) -> Any:
        return ops.sum(p * ops.astype(ops.multinomial(p, 1), "float32"))

    slope = gp.compile(gp.grad(drawn), backend="numpy")(np.float32([0.0, 1.0, 0.0]))
    assert slope.tolist() == [1.0, 1.0, 1.0]  # of the product alone: 1 was drawn


def test_cat_is_concat() -> None:
    a, b = np.ones((2, 3)), np.zeros((2, 1))
    np.testing.assert_array_equal(ops.cat([a, b], dim=1), ops.concat([a, b], 1))
    np.testing.assert_array_equal(ops.cat([a, a]), ops.concat([a, a], 0))


def test_impossible_draws_are_refused() -> None:
    with pytest.raises(DataError, match=r"low is 2\.0, which is above high, 1\.0"):
        ops.uniform((2,), low=2.0, high=1.0)
    with pytest.raises(DataError, match="high must be a finite number"):
        ops.uniform((2,), high=np.inf)
    with pytest.raises(DataError, match="low is 3 and high 3"):
        ops.randint(3, 3, (2,))
    with pytest.raises(DataError, match=r"low \+ 2\*\*53"):
        ops.randint(0, 2**53 + 1, (2,))
    with pytest.raises(DTypeError, match="whole numbers"):
        ops.randint(0, 3, (2,), "float32")
    with pytest.raises(DTypeError, match="int32 does not hold the numbers from 0 to 2147483648"):
        ops.randint(0, 2**31 + 1, (2,), "int32")
    with pytest.raises(ShapeError, match=r"weights \(\.\.\., classes\)"):
        ops.multinomial(np.float32(1.0), 1)
    with pytest.raises(ShapeError, match="num_samples is 6, expected 1 to 5"):
        ops.multinomial(WEIGHTS, 6)
    with pytest.raises(DataError, match="below 0 or not finite"):
        ops.multinomial(np.float32([1.0, -1.0]), 1)
    with pytest.raises(DataError, match="fewer than 3 weights above 0"):
        ops.multinomial(WEIGHTS, 3)
    with pytest.raises(DataError, match="fewer than 1 weights"):
        ops.multinomial(np.zeros(3, "f"), 1, replacement=True)
