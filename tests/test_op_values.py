"""Ops against what others say they should be: SciPy, NumPy, and the formulas themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tolerances import assert_close, assert_same

from gpubp import ops
from gpubp.compiler.trace import trace
from gpubp.core import evaluate
from gpubp.ops.spec import SPECS

WIDE = np.array([-1e30, -200.0, -20.0, -3.0, -1e-3, 0.0, 1e-3, 0.7, 3.0, 20.0, 200.0, 1e30])
STABLE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sigmoid": (ops.sigmoid, scipy.special.expit),
    "silu": (ops.silu, lambda x: x * scipy.special.expit(x)),
    "softplus": (ops.softplus, lambda x: np.logaddexp(0.0, x)),
    "softplus far": (lambda x: ops.softplus(x, 1.0, 1e4), lambda x: np.logaddexp(0.0, x)),
    "gelu": (ops.gelu, lambda x: x * scipy.special.ndtr(x)),
    "elu": (ops.elu, lambda x: np.where(x > 0, x, scipy.special.expm1(np.minimum(x, 0)))),
    "tanh": (ops.tanh, lambda x: 2.0 * scipy.special.expit(2.0 * x) - 1.0),
    "erf": (ops.erf, lambda x: 2.0 * scipy.special.ndtr(np.sqrt(2.0) * x) - 1.0),
    "softmax": (ops.softmax, lambda x: scipy.special.softmax(x, axis=-1)),
    "log_softmax": (ops.log_softmax, lambda x: scipy.special.log_softmax(x, axis=-1)),
}


@pytest.mark.parametrize("name", STABLE)
def test_tails_neither_overflow_nor_lose_digits(name: str) -> None:
    ours, theirs = STABLE[name]
    with np.errstate(all="raise", under="ignore"):
        found = ours(WIDE)
    assert_close(found, theirs(WIDE), name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_gradient_saturates(approximate: str, dtype: str) -> None:
    far = np.array([-1e30, -60.0, 60.0, 1e30], dtype)
    with np.errstate(all="raise", under="ignore"):
        grad = evaluate(SPECS["gelu_grad"], [np.ones_like(far), far], {"approximate": approximate})
    assert_same(grad, np.array([0, 0, 1, 1], dtype))


def test_gelu_tanh_definition() -> None:
    x = np.linspace(-4.0, 4.0, 33)
    inner = np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)
    assert_close(ops.gelu(x, "tanh"), 0.5 * x * (1.0 + np.tanh(inner)))


def test_softplus_is_linear_above_its_threshold() -> None:
    x = np.array([0.4, 0.6])
    assert_close(ops.softplus(x, beta=2.0, threshold=1.0), [np.log1p(np.exp(0.8)) / 2.0, 0.6])


def test_cross_entropy_against_scipy() -> None:
    rng = np.random.default_rng(3)
    logits = 100.0 * rng.standard_normal((9, 5))
    labels = rng.integers(0, 5, 9)
    rows = np.arange(9)
    expected = scipy.special.logsumexp(logits, axis=-1) - logits[rows, labels]
    assert_close(ops.softmax_cross_entropy(logits, labels), expected)
    one = ops.softmax_cross_entropy(logits[4], labels[4])
    assert_close(one, expected[4])
    probabilities = scipy.special.softmax(logits, axis=-1)
    probabilities[rows, labels] -= 1.0
    dloss = rng.standard_normal(9)
    grad = evaluate(SPECS["softmax_cross_entropy_grad"], [logits, labels, dloss], {})
    assert_close(grad, probabilities * dloss[:, None])


def test_softmax_along_other_axes() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    for axis in (0, 1, 2, -2):
        assert_close(ops.softmax(x, axis), scipy.special.softmax(x, axis=axis))
        assert_close(ops.log_softmax(x, axis), scipy.special.log_softmax(x, axis=axis))
    assert_close(ops.softmax(x[0, 0]), scipy.special.softmax(x[0, 0]))


def test_sum_of_float32_is_rounded_once() -> None:
    x = np.full(10_000_000, 0.1, np.float32)
    assert ops.sum(x) == np.float32(np.sum(x, dtype=np.float64))


def test_update_rules_against_their_formulas() -> None:
    w, g, m, v = np.random.default_rng(1).random((4, 6))
    assert_close(ops.update.ema(m, g, 0.9), 0.9 * m + 0.1 * g)
    assert_close(ops.update.ema_square(v, g, 0.99), 0.99 * v + 0.01 * g**2)
    assert_close(ops.update.momentum(m, g, 0.8, 0.3), 0.8 * m + 0.7 * g)
    assert_close(ops.update.sgd(w, g, 0.1), w - 0.1 * g)
    expected = w - 0.01 * m / (np.sqrt(v) / 0.5 + 1e-3)
    assert_close(ops.update.adam(w, m, v, 0.01, 0.5, 1e-3), expected)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_getitem_is_numpys(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    assert_same(ops.getitem(x, key), x[key], f"{shape} {key}")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_matmul_is_numpys(data: st.DataObject) -> None:
    shapes = data.draw(
        hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, max_side=3)
    )
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s) for s in shapes.input_shapes)
    assert_close(ops.matmul(a, b), np.asarray(np.matmul(a, b)))


def test_linear_is_a_product_and_a_bias() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((4, 3)), rng.standard_normal(4)
    for shape in ((3,), (5, 3), (2, 5, 3), (0, 3)):
        x = rng.standard_normal(shape)
        assert_close(ops.linear(x, weight, bias), x @ weight.T + bias)
        assert_close(ops.linear(x, weight), x @ weight.T)


def test_integer_array_keys_take_rows() -> None:
    x = np.arange(12.0).reshape(4, 3)
    for key in (np.array([2, 0]), np.array([[1], [3]], np.int32), [3, 3], np.array(2)):
        assert_same(ops.getitem(x, key), x[key])


def test_shape_composites_are_numpys() -> None:
    x = np.arange(6.0).reshape(1, 2, 1, 3)
    assert_same(ops.squeeze(x), np.squeeze(x))
    assert_same(ops.squeeze(x, -2), np.squeeze(x, -2))
    assert_same(ops.expand_dims(x, (0, -1)), np.expand_dims(x, (0, -1)))
    assert_same(ops.ravel(x), x.ravel())
    assert_same(ops.flatten(x, 1), x.reshape(1, 6))
    assert_same(ops.flatten(x, 0, 1), x.reshape(2, 1, 3))
    assert_same(ops.reshape(x, (3, -1)), x.reshape(3, 2))
    assert_same(ops.transpose(x), x.T)
    assert_same(ops.swapaxes(x, 1, -1), np.swapaxes(x, 1, -1))
    assert_same(ops.stack([x, x + 1], -1), np.stack([x, x + 1], -1))
    assert_same(ops.concat([x, x], 2), np.concatenate([x, x], 2))


def test_reductions_are_numpys() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    for axis in (None, 0, -1, (0, 2), (1, -1)):
        for keep in (False, True):
            assert_close(ops.sum(x, axis, keep), np.asarray(x.sum(axis, keepdims=keep)))
            assert_close(ops.mean(x, axis, keep), np.asarray(x.mean(axis, keepdims=keep)))
            assert_same(ops.max(x, axis, keep), np.asarray(x.max(axis, keepdims=keep)))
            assert_same(ops.min(x, axis, keep), np.asarray(x.min(axis, keepdims=keep)))
    for axis in (None, 0, -1):
        for keep in (False, True):
            assert_same(ops.argmax(x, axis, keep), np.asarray(np.argmax(x, axis, keepdims=keep)))
            assert_same(ops.argmin(x, axis, keep), np.asarray(np.argmin(x, axis, keepdims=keep)))


def test_ties_and_nan_in_reductions() -> None:
    x = np.array([[1.0, 3.0, 3.0], [np.nan, 5.0, np.nan]])
    assert_same(ops.argmax(x, 1), np.array([1, 0]))
    assert_same(ops.max(x, 1), np.array([3.0, np.nan]))
    assert_same(ops.min(x, 1), np.array([1.0, np.nan]))


def test_sums_of_integers_and_booleans_are_int64() -> None:
    assert_same(ops.sum(np.array([True, True])), np.array(2))
    assert_same(ops.sum(np.array([2**31 - 1, 1], np.int32)), np.array(2**31))
    assert_same(ops.sum(np.zeros((0, 2), np.float32), 0), np.zeros(2, np.float32))


def test_one_hot_labels_are_rows_of_the_identity() -> None:
    labels = np.array([[1, 0], [2, 1]])
    assert_same(ops.one_hot(labels, 3), np.eye(3, dtype=np.float32)[labels])


def test_dtypes_are_promoted_by_the_rules() -> None:
    i, f, d = np.ones(2, np.int32), np.ones(2, np.float32), np.ones(2, np.float64)
    assert ops.add(i, 1).dtype == np.int32
    assert ops.add(i, 0.5).dtype == np.float32
    assert ops.add(f, 1).dtype == np.float32
    assert ops.add(f, d).dtype == np.float64
    assert ops.divide(i, i).dtype == np.float32
    assert ops.exp(i).dtype == np.float32
    assert ops.square(i).dtype == np.int32
    assert ops.astype(f, "float32") is f
    assert_same(ops.astype(np.array([-1.7, 1.7]), "int32"), np.array([-1, 1], np.int32))


def test_constant_exponents_cost_no_power() -> None:
    graph, _ = trace(lambda x: (x**1, x**2.0, x**3), [np.ones(2)])
    names = [n.spec.name for n in graph.nodes if not n.is_leaf]
    assert sorted(names) == ["power", "square"]
