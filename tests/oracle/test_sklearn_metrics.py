"""Metrics against scikit-learn's, on outputs with ties, absent classes and several shapes."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.train import metrics

theirs = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
pytestmark = pytest.mark.oracle


def _ours(name, y, outputs, threshold=0.5):
    return metrics.find([name])[0].compute(y, outputs, threshold)


def _multi(seed, classes=4, absent=False):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, classes)).astype(np.float32)
    y = rng.integers(0, classes - absent, 60)
    return y, logits


def _softmax(z):
    e = np.exp(z.astype(np.float64))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("absent", [False, True])
def test_of_several_outputs(seed, classes, absent):
    y, logits = _multi(seed, classes, absent and classes > 2)
    found = logits.argmax(axis=1)
    assert _ours("accuracy", y, logits) == pytest.approx(theirs.accuracy_score(y, found))
    scores = {
        "precision": theirs.precision_score,
        "recall": theirs.recall_score,
        "f1": theirs.f1_score,
    }
    for name, score in scores.items():
        for average in ("macro", "micro"):
            expected = score(y, found, average=average, zero_division=0)
            assert _ours(f"{name}_{average}", y, logits) == pytest.approx(expected), name
        average = "binary" if classes == 2 else "macro"
        expected = score(y, found, average=average, zero_division=0)
        assert _ours(name, y, logits) == pytest.approx(expected), name
    for k in range(1, classes):
        if classes == 2:
            continue
        expected = theirs.top_k_accuracy_score(y, logits, k=k, labels=range(classes))
        assert _ours(f"top_{k}_accuracy", y, logits) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("probabilities", [False, True])
def test_auc_of_several_outputs(seed, probabilities):
    y, logits = _multi(seed)
    shares = _softmax(logits)
    expected = theirs.roc_auc_score(y, shares, multi_class="ovr", average="macro")
    given = shares if probabilities else logits
    assert _ours("auc", y, given) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(80,), (80, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_of_one_output(seed, shape, dtype):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, shape).astype(dtype)
    logits = np.round(rng.normal(size=shape), 1).astype(np.float32)  # with ties
    flat, found = y.reshape(-1), (logits > 0).reshape(-1)
    for name, expected in {
        "accuracy": theirs.accuracy_score(flat, found),
        "precision": theirs.precision_score(flat, found),
        "recall": theirs.recall_score(flat, found),
        "f1": theirs.f1_score(flat, found),
        "f1_macro": theirs.f1_score(flat, found, average="macro"),
        "auc": theirs.roc_auc_score(flat, logits.reshape(-1)),
    }.items():
        assert _ours(name, y, logits, 0.0) == pytest.approx(expected), name


@pytest.mark.parametrize("outputs", [1, 3])
def test_of_numbers(outputs):
    rng = np.random.default_rng(outputs)
    y = rng.normal(size=(50, outputs))
    found = y + 0.3 * rng.normal(size=y.shape)
    for name, expected in {
        "mse": theirs.mean_squared_error(y, found),
        "rmse": theirs.mean_squared_error(y, found) ** 0.5,
        "mae": theirs.mean_absolute_error(y, found),
        "r2": theirs.r2_score(y, found),
    }.items():
        assert _ours(name, y, found) == pytest.approx(expected), name


def test_r2_of_constant_targets():
    y = np.ones((5, 2))
    found = np.stack([np.ones(5), np.arange(5.0)], axis=1)
    assert _ours("r2", y, found) == theirs.r2_score(y, found) == 0.5


def test_columns_standardised_as_standard_scaler():
    from sklearn.preprocessing import StandardScaler

    from gpubp.data import Standardizer

    X = np.random.default_rng(0).normal(3.0, 5.0, size=(40, 3))
    X[:, 1] = 7.0
    expected = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(Standardizer.fit(X).transform(X), expected, rtol=1e-12, atol=1e-12)
