"""Arguments of odd kinds: objects that are no arrays, arrays where one number belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpubp import data, nn, ops, optim
from gpubp.errors import ArgumentError, DataError, DTypeError, GpubpError, ShapeError
from gpubp.nn import functional
from gpubp.optim import lr_scheduler

X = np.ones((2, 4, 3), np.float32)
TABLE = np.arange(6.0, dtype=np.float32).reshape(3, 2)


class _NoArray:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")


def _milestones(given: Any) -> Any:
    optimizer = optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    return lr_scheduler.MultiStepLR(optimizer, given)


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        (DTypeError, lambda: ops.astype(X, [("a", "b", "c", "d")])),
        (DTypeError, lambda: nn.Linear(3, 2, dtype=["a", ()])),
        (GpubpError, lambda: ops.getitem(X, _NoArray())),
        (GpubpError, lambda: ops.getitem(X, (0, _NoArray()))),
        (GpubpError, lambda: ops.getitem(X, (0, (1, 2)))),
        (GpubpError, lambda: ops.getitem(X, (0, np.array([0.5])))),
        (DataError, lambda: _milestones(np.ones((2, 2), np.int64))),
        (DataError, lambda: _milestones([np.array([1, 2]), np.array([2, 3])])),
        (DataError, lambda: _milestones(["a", 1])),
        (ArgumentError, lambda: functional.embedding([0], TABLE, sparse=np.ones(2))),
        (ArgumentError, lambda: functional.embedding([0], TABLE, scale_grad_by_freq=np.ones(2))),
        (ArgumentError, lambda: functional.embedding([0], TABLE, np.ones(2))),
        (GpubpError, lambda: functional.embedding(nn, TABLE)),
        (ArgumentError, lambda: functional.one_hot([0, 2], np.ones(2))),
        (GpubpError, lambda: functional.one_hot(nn, 3)),
        (ShapeError, lambda: ops.broadcast_to(np.ones((2, 1)), (2, -3))),
        (ShapeError, lambda: ops.broadcast_to(np.float32(1.0), -1)),
        (ShapeError, lambda: ops.group_norm(X, ())),
        (ShapeError, lambda: ops.group_norm(X, (2, 2))),
        (ArgumentError, lambda: nn.ModuleList(np.array(3.0))),
        (ArgumentError, lambda: nn.Sequential().extend(np.array(3.0))),
        (GpubpError, lambda: functional.l1_loss(X, X, weight="heavy")),
        (GpubpError, lambda: data.Standardizer([1.0], _NoArray())),
    ],
)
def test_odd_kinds_are_refused(kind: type[GpubpError], call: Callable[[], Any]) -> None:
    with pytest.raises(kind):
        call()


@pytest.mark.parametrize("bent", [{"T_mult": 0.5}, {"T_mult": 0}, {"T_0": 0}, {"T_0": -2}])
def test_a_state_without_an_end_is_refused(bent: dict[str, Any]) -> None:
    optimizer = optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    made = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2, 2)
    before = made.state_dict()
    with pytest.raises(DataError, match="CosineAnnealingWarmRestarts: T_"):
        made.load_state_dict({**before, **bent})
    assert made.state_dict() == before


def test_lists_are_arrays_in_functional() -> None:
    found = functional.embedding([[0, 2]], TABLE.tolist(), padding_idx=-1)
    np.testing.assert_array_equal(found, TABLE[[[0, 2]]])
    loss = functional.l1_loss(np.array([1.0, 5.0]), np.array([0.0, 2.0]), weight=[1.0, 0.5])
    np.testing.assert_allclose(loss, (1.0 + 1.5) / 1.5)


SQUARE = np.eye(3)


@pytest.mark.parametrize("given", ["no", np.array([True, False]), 1.5, []])
@pytest.mark.parametrize(
    "call",
    [
        lambda b: ops.solve_triangular(SQUARE, SQUARE, upper=b),
        lambda b: ops.solve_triangular(SQUARE, SQUARE, left=b),
        lambda b: ops.solve_triangular(SQUARE, SQUARE, unitriangular=b),
        lambda b: ops.cholesky(SQUARE, upper=b),
        lambda b: ops.put(SQUARE, np.array([1]), np.array([2.0]), b),
        lambda b: ops.sort(SQUARE, stable=b),
        lambda b: ops.argsort(SQUARE, stable=b),
        lambda b: ops.topk(SQUARE, 2, sorted=b),
        lambda b: ops.kthvalue(SQUARE, 2, keepdim=b),
        lambda b: ops.quantile(SQUARE, 0.5, 0, b),
    ],
)
def test_options_are_true_or_false(call: Callable[[Any], Any], given: Any) -> None:
    with pytest.raises(ArgumentError, match=r"expected bool|True or False"):
        call(given)


@pytest.mark.parametrize("k", [1.5, np.datetime64("2020-01-01"), "1"])
def test_quarters_are_whole(k: Any) -> None:
    with pytest.raises(ArgumentError, match=r"whole number|expected int"):
        ops.rot90(SQUARE, k)
