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
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("absent", [False, True])
def test_metrics_of_several_outputs_equal_scikit_learns(seed, classes, absent):
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
def test_metrics_of_one_output_equal_scikit_learns(seed, shape, dtype):
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
def test_regression_metrics_equal_scikit_learns(outputs):
    rng = np.random.default_rng(outputs)
    y = rng.normal(size=(50, outputs))
    found = y + 0.3 * rng.normal(size=y.shape)
    for name, expected in {
        "mse": theirs.mean_squared_error(y, found),
        "rmse": theirs.root_mean_squared_error(y, found),
        "mae": theirs.mean_absolute_error(y, found),
        "r2": theirs.r2_score(y, found),
    }.items():
        assert _ours(name, y, found) == pytest.approx(expected), name


def test_r2_of_constant_targets():
    y = np.ones((5, 2))
    found = np.stack([np.ones(5), np.arange(5.0)], axis=1)
    assert _ours("r2", y, found) == theirs.r2_score(y, found) == 0.5


# --- random cases of every shape, with weights, ignored labels and ties ---


def _drawn(rng, kind):
    """(y, outputs, labels as scikit-learn takes them, scores, rows' weights, how, threshold)."""
    n, classes, length = int(rng.integers(6, 40)), int(rng.integers(2, 6)), int(rng.integers(1, 5))
    digits = int(rng.integers(0, 4))  # few digits: ties
    w = rng.uniform(0.1, 2.0, n) if rng.integers(2) else None
    per_row = w
    if kind == "classes":
        shape = (n, classes, length) if rng.integers(2) else (n, classes)
        outputs = np.round(rng.normal(size=shape), digits)
        y = rng.integers(0, classes, (n, *shape[2:]))
        ignored = int(rng.choice([-100, 0])) if rng.integers(2) else None
        if ignored == -100:
            y[rng.random(y.shape) < 0.3] = -100
        kept = np.ones(y.shape, bool) if ignored is None else y != ignored
        scores = np.moveaxis(outputs, 1, -1)[kept]
        if w is not None:
            per_row = np.broadcast_to(w.reshape(-1, *[1] * (y.ndim - 1)), y.shape)[kept]
        how = metrics.Reading(from_logits=True, ignore_index=ignored, weights=w)
        return y, outputs, y[kept], scores, per_row, how, 0.0
    labels = 1 if kind == "binary" else int(rng.integers(2, 5))
    outputs = np.round(rng.normal(size=(n, labels)), digits)
    y = rng.integers(0, 2, (n, labels))
    threshold = float(rng.choice([0.0, 0.5, -0.3]))
    true, scores = (y[:, 0], outputs[:, 0]) if labels == 1 else (y, outputs)
    given = y * 2 - 1 if rng.integers(2) else y
    dtype = rng.choice(["int64", "float32", "float64"])
    return given.astype(dtype), outputs, true, scores, w, metrics.Reading(weights=w), threshold


def _expected(true, scores, w, threshold):
    classes = scores.shape[1] if scores.ndim == 2 and true.ndim == 1 else None
    found = (scores > threshold).astype(int) if classes is None else scores.argmax(axis=1)
    single = "binary" if true.ndim == 1 and classes in (None, 2) else "macro"
    out = {"accuracy": theirs.accuracy_score(true, found, sample_weight=w)}
    scorers = {
        "precision": theirs.precision_score,
        "recall": theirs.recall_score,
        "f1": theirs.f1_score,
    }
    for name, score in scorers.items():
        for suffix, average in (("", single), ("_macro", "macro"), ("_micro", "micro")):
            out[name + suffix] = score(
                true, found, average=average, zero_division=0, sample_weight=w
            )
    if classes is not None and classes > 2:
        for k in range(1, classes):
            out[f"top_{k}_accuracy"] = theirs.top_k_accuracy_score(
                true, scores, k=k, labels=range(classes), sample_weight=w
            )
    columns = true if true.ndim == 2 else true[:, None] == np.arange(classes or 2)
    if (columns.any(axis=0) & ~columns.all(axis=0)).all():
        given = scores
        if classes is not None:
            given = scores[:, 1] - scores[:, 0] if classes == 2 else _softmax(scores)
        out["auc"] = theirs.roc_auc_score(
            true, given, multi_class="ovr", average="macro", sample_weight=w
        )
    return out


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["classes", "binary", "labels"])
@pytest.mark.parametrize("seed", range(60))
def test_random_classifications_score_as_scikit_learns(kind, seed):
    rng = np.random.default_rng([seed, len(kind)])
    y, outputs, true, scores, w, how, threshold = _drawn(rng, kind)
    if len(true) == 0:
        pytest.skip("every label is ignored")
    for name, expected in _expected(true, scores, w, threshold).items():
        metric = metrics.metric(name, threshold=threshold, weighted=True)
        assert metric.of(y, outputs, how) == pytest.approx(expected, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("weighted", [False, True])
def test_random_regressions_score_as_scikit_learns(seed, weighted):
    rng = np.random.default_rng(seed)
    n, outputs = int(rng.integers(2, 30)), int(rng.integers(1, 4))
    y = rng.normal(size=(n, outputs))
    y[:, 0] = y[0, 0] if rng.integers(2) else y[:, 0]
    found = y + rng.normal(size=y.shape) * rng.integers(0, 2, outputs)
    w = rng.uniform(0.1, 2.0, n)
    given = {"sample_weight": w} if weighted else {}
    for name, expected in {
        "mse": theirs.mean_squared_error(y, found, **given),
        "rmse": theirs.root_mean_squared_error(y, found, **given),
        "mae": theirs.mean_absolute_error(y, found, **given),
        "r2": theirs.r2_score(y, found, **given),
    }.items():
        metric = metrics.metric(name, weighted=weighted)
        how = metrics.Reading(weights=w)
        assert metric.of(y, found, how) == pytest.approx(expected, rel=1e-9, abs=1e-12), name


def test_columns_standardised_as_standard_scaler():
    from sklearn.preprocessing import StandardScaler

    from gpubp.data import Standardizer

    X = np.random.default_rng(0).normal(3.0, 5.0, size=(40, 3))
    X[:, 1] = 7.0
    expected = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(Standardizer.fit(X).transform(X), expected, rtol=1e-12, atol=1e-12)
