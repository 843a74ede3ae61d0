"""Whose gradient it is where numbers are alike, at margins, and where there is nothing.

Right values are torch's (2.13.0), by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import ArgumentError, ShapeError
from gpubp.nn import functional

INF, NAN = np.inf, np.nan
backends = pytest.mark.parametrize("backend", BACKENDS)


def slope(fn: Any, x: Any, backend: str) -> Any:
    return gp.compile(gp.grad(lambda x: ops.sum(fn(x))), backend=backend)(np.asarray(x, np.float64))


@backends
def test_a_median_of_everything_is_shared_by_all_that_equal_it(backend: str) -> None:
    for x, expected in (
        ([1.0, 2.0, 2.0, 3.0, 0.0], [0.0, 0.5, 0.5, 0.0, 0.0]),
        ([INF, INF, 1.0], [0.5, 0.5, 0.0]),
        ([-INF, -INF, -INF, 2.0], [1 / 3, 1 / 3, 1 / 3, 0.0]),
        ([NAN, 1.0, NAN], [0.5, 0.0, 0.5]),
        ([[0.1, 0.1, 0.1], [0.1, 5.0, -1.0]], [[0.25, 0.25, 0.25], [0.25, 0.0, 0.0]]),
    ):
        assert_close(slope(ops.median, x, backend), np.array(expected))
    assert_close(slope(ops.nanmedian, [NAN, 2.0, 2.0], backend), np.array([0.0, 0.5, 0.5]))
    along = slope(lambda x: ops.median(x, 0)[0], [2.0, 1.0, 2.0, 0.0, 2.0], backend)
    assert sorted(along) == [0.0, 0.0, 0.0, 0.0, 1.0], "by an axis it is one element's"
    assert ops.median(np.full(3, 0.1)) == 0.1, "not their mean, which is rounded"
    assert ops.median(np.array([3, 1, 2, 2])).dtype == np.int64


@backends
def test_of_equal_maxima_in_a_bag_the_first_has_the_gradient(backend: str) -> None:
    table = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, 2.0]])

    def by_rows(table: Any) -> Any:
        return functional.embedding_bag(np.array([[0, 1, 2], [2, 1, 0]]), table, mode="max")

    def by_offsets(table: Any) -> Any:
        ids, starts = np.array([0, 1, 2, 2, 1, 0]), np.array([0, 3])
        return functional.embedding_bag(ids, table, starts, mode="max")

    for bags in (by_rows, by_offsets):
        expected = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        assert_close(slope(bags, table, backend), expected)


@backends
def test_a_margin_that_is_just_kept_has_no_gradient(backend: str) -> None:
    loss, labels = nn.MultiLabelMarginLoss(), np.array([[0, -1, -1]])
    found = slope(lambda x: loss(x, labels), [[1.0, 0.0, 0.5]], backend)
    assert_close(found, np.array([[-1 / 3, 0.0, 1 / 3]]))


@backends
def test_nothing_heard_says_nothing_but_nothing(backend: str) -> None:
    """CTC of sequences without an element: 0 for no labels, infinite for some."""
    scores = np.log(np.full((2, 3, 3), 1 / 3))
    labels, times, sizes = np.array([[1], [1], [1]]), np.array([0, 0, 2]), np.array([0, 1, 1])
    for zero_infinity, lost in ((False, INF), (True, 0.0)):
        loss = nn.CTCLoss(reduction="none", zero_infinity=zero_infinity)
        fn = gp.compile(lambda x, loss=loss: loss(x, labels, times, sizes), backend=backend)
        assert_close(fn(scores), np.array([0.0, lost, -np.log(3 / 9)]))


@backends
def test_norms_of_negative_order_have_a_slope_beside_zeros(backend: str) -> None:
    for order in (-1, -2.5):
        norm = gp.compile(lambda x, p=order: ops.norm(x, p), backend=backend)
        assert norm(np.array([-1.0, 1.0, 0.0])) == 0.0
        found = slope(lambda x, p=order: ops.norm(x, p), [-1.0, 1.0, 0.0], backend)
        assert found.tolist() == [0.0] * 3
    assert_close(slope(lambda x: ops.norm(x, -1), [-1.0, 1.0, 2.0], backend), [-0.16, 0.16, 0.04])


@backends
def test_sums_and_parts_of_nothing(backend: str) -> None:
    logs = gp.compile(lambda x: (ops.logsumexp(x, 1), ops.logsumexp(x)), backend=backend)
    rows, everything = logs(np.zeros((2, 0), np.float32))
    assert rows.tolist() == [-INF, -INF] and everything == -INF and rows.dtype == np.float32
    assert [p.shape for p in ops.chunk(np.zeros((3, 0)), 4, 1)] == [(3, 0)] * 4
    made = gp.compile(lambda x: ops.diag_embed(x, 2, 1, 0), backend=backend)
    assert_close(made(np.zeros((0,))), np.zeros((2, 2)))
    assert slope(lambda x: ops.diag_embed(x, -1), np.zeros((3, 0)), backend).shape == (3, 0)


def test_two_axes_are_two() -> None:
    x = np.ones((2, 2))
    for axes in ((0, 0), (1, -1), (0,), (0, 1, 1)):
        with pytest.raises(ShapeError, match="two different ones"):
            ops.rot90(x, 1, axes)
    for axes in ((0, 0), (1, -2), (-1, 2)):
        with pytest.raises(ShapeError, match="two different ones"):
            ops.diag_embed(x, 0, *axes)


def test_weights_that_are_removed_are_asked_for() -> None:
    x = np.zeros((2, 3, 4), np.float32)
    for gone in ("bias_k", "bias_v"):
        attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        setattr(attention, gone, None)
        with pytest.raises(ArgumentError, match=f"{gone} is None"):
            attention(x, x, x)
        with pytest.raises(ArgumentError, match=f"{gone} is None"):
            gp.compile(lambda x, m=attention: m(x, x, x))(x)
        attention.bias_k = attention.bias_v = None
        assert attention(x, x, x)[0].shape == x.shape
    attention = nn.MultiheadAttention(4, 2)
    attention.in_proj_weight = None
    with pytest.raises(ArgumentError, match="in_proj_weight"):
        attention(x, x, x)
    conv = nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
    conv.weight = None
    with pytest.raises(ArgumentError, match="got None"):
        conv(np.zeros((1, 2, 4, 4), np.float32))
