"""Metrics of labels: accuracy, precision, recall, F1, the area under the ROC curve."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError, warn
from gpubp.train.reading import AS_GIVEN, Floats, Reading, Rows, class_axis, rows_of


def accuracy(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5, how: Reading = AS_GIVEN
) -> float:
    """The share of rows whose label is right; of several labels a row, all of them."""
    rows = rows_of("accuracy", y, outputs, how)
    if rows.spoiled:
        return math.nan
    right = rows.true == rows.found(threshold)
    return _average(right.all(axis=1) if rows.kind == "labels" else right, rows.weights)


def _average(values: NDArray[Any], weights: Floats | None) -> float:
    if weights is not None and not weights.any():
        return math.nan
    return float(np.average(values, axis=0, weights=weights))


def top_k_accuracy(
    y: NDArray[Any], outputs: NDArray[Any], k: int, how: Reading = AS_GIVEN
) -> float:
    """The share of rows whose label is among the k largest outputs; of equals the last win."""
    axis = class_axis(y, outputs)
    if axis is None or not 1 <= k <= outputs.shape[axis] != 1:
        raise DataError(
            f"top_{k}_accuracy needs integer class labels and at least {k} outputs; got targets "
            f"{y.dtype} {y.shape} and outputs {outputs.shape}."
        )
    rows = rows_of(f"top_{k}_accuracy", y, outputs, how)
    if rows.spoiled:
        return math.nan
    best = np.argsort(rows.scores, axis=-1, kind="stable")[:, -k:]
    return _average((best == rows.true[:, None]).any(axis=-1), rows.weights)


def precision_recall_f1(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float, average: str, how: Reading
) -> dict[str, float]:
    """Precision, recall and F1; 0 where they divide by 0.

    "macro" is the mean over the classes that occur in targets or predictions (over all labels,
    where a row has several), "micro" counts over all of them, "auto" is that of class 1 if there
    are two classes, else "macro".
    """
    rows = rows_of("precision, recall and f1", y, outputs, how)
    if rows.spoiled:
        return dict.fromkeys(("precision", "recall", "f1"), math.nan)
    hits, chosen, actual = _counts(rows, threshold, average == "auto" and rows.two_sided)
    if average == "micro":
        hits, chosen, actual = (np.array([a.sum()]) for a in (hits, chosen, actual))
    return {
        "precision": float(_ratio(hits, chosen).mean()),
        "recall": float(_ratio(hits, actual).mean()),
        "f1": float(_ratio(2 * hits, chosen + actual).mean()),
    }


def _counts(rows: Rows, threshold: float, only_yes: bool) -> tuple[Floats, Floats, Floats]:
    """The weight of rows that are rightly found, found, and there, for each class or label."""
    found = rows.found(threshold)
    weights = np.ones(len(found)) if rows.weights is None else rows.weights
    if rows.kind == "labels":
        true, found = rows.true == 1, found == 1
    else:
        classes = np.array([1]) if only_yes else np.union1d(rows.true, found)
        true, found = rows.true[:, None] == classes, found[:, None] == classes
    return weights @ (true & found), weights @ found, weights @ true


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def auc(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5, how: Reading = AS_GIVEN
) -> float:
    """The area under the ROC curve, from ranks (Mann and Whitney, 1947); ties count a half.

    For several classes the mean over classes of one against the rest ("ovr", "macro" in
    scikit-learn), by the outputs if each row sums to 1, else by their softmax; for two outputs by
    their difference. For several labels a row, the mean over labels.

    A class without samples, or without others, has no ROC curve: NaN, with a warning.
    """
    rows = rows_of("auc", y, outputs, how)
    if rows.spoiled:
        return math.nan
    scores, weights = rows.scores.astype(np.float64), rows.weights
    if rows.kind == "binary":
        return _binary_auc(rows.true == 1, scores, weights)
    if rows.two_sided:
        return _binary_auc(rows.true == 1, scores[:, 1] - scores[:, 0], weights)
    if rows.kind == "classes":
        scores = _shares(scores, how.from_logits)
        true = rows.true[:, None] == np.arange(scores.shape[1])
    else:
        true = rows.true == 1
    return float(np.mean([_binary_auc(t, s, weights) for t, s in zip(true.T, scores.T)]))


def _shares(scores: Floats, from_logits: bool | None) -> Floats:
    """Probabilities of the classes."""
    sums = bool((scores >= 0).all()) and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3)
    if sums and not from_logits:
        return scores
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Floats = shares / shares.sum(axis=1, keepdims=True)
    return found


def _binary_auc(positive: NDArray[np.bool_], scores: Floats, weights: Floats | None) -> float:
    _, which = np.unique(scores, return_inverse=True)
    weights = np.ones(len(scores)) if weights is None else weights
    yes = np.bincount(which, weights * positive)
    no = np.bincount(which, weights * ~positive)
    if yes.sum() == 0 or no.sum() == 0:
        warn(
            "auc is not defined, and NaN is taken: it needs samples of every class, and others; a "
            "class has none here."
        )
        return math.nan
    below = np.cumsum(no) - no / 2
    return float(yes @ below / (yes.sum() * no.sum()))
