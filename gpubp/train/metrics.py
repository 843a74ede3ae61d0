"""Metrics by name, or as functions of the user: numbers computed from all outputs of a data set.

A metric takes targets and the model's outputs of all samples at once, so that none is an average
over batches. Class labels come from outputs by the largest of several, or, where one output is a
yes or no, by a threshold: 0 for losses that take logits, else 0.5, or the one that is asked for.
Definitions are those of scikit-learn (`accuracy_score`, `precision_score(..., zero_division=0)`,
`roc_auc_score`, ...): several labels a sample are right only together, and averages are over
labels. Labels that the loss ignores are left out. An output that is NaN makes a metric NaN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import shown
from gpubp.errors import ArgumentError, DataError, unknown_name, warn
from gpubp.train.reading import (
    AS_GIVEN,
    Floats,
    Reading,
    Rows,
    class_axis,
    is_labelled,
    rows_of,
)
from gpubp.train.regression import mae, mse, r2, rmse

__all__ = [
    "Metric",
    "Reading",
    "UserMetric",
    "accuracy",
    "auc",
    "find",
    "mae",
    "metric",
    "mse",
    "names",
    "r2",
    "rmse",
    "top_k_accuracy",
]

# What the history and `LRMonitor` write.
_TAKEN = re.compile(r"epoch|loss|lr(_\d+)?|val_.*")
UserMetric = Callable[[NDArray[Any], NDArray[Any]], float]


class Compute(Protocol):
    """From targets and outputs to a number."""

    def __call__(
        self,
        y: NDArray[Any],
        outputs: NDArray[Any],
        threshold: float = 0.5,
        how: Reading = AS_GIVEN,
        /,
    ) -> float: ...


@dataclass(frozen=True)
class Metric:
    """A named number.

    Attributes:
        name: as in the history.
        compute: takes (targets, outputs, threshold, how to read them).
        threshold: above which an output means yes; None: what the loss says.
        weighted: by the samples' weights, where there are any.
        named: it is one of `names()`, and no function of the user's.
    """

    name: str
    compute: Compute
    threshold: float | None = None
    weighted: bool = False
    named: bool = True

    def of(self, y: NDArray[Any], outputs: NDArray[Any], how: Reading = AS_GIVEN) -> float:
        """Its value.

        Args:
            y: targets.
            outputs: of the model, for all samples.
            how: to read them.
        """
        threshold = how.threshold if self.threshold is None else self.threshold
        how = how if self.weighted else replace(how, weights=None)
        return self.compute(y, outputs, threshold, how)


def metric(
    name: str, *, threshold: float | None = None, weighted: bool = False, label: str | None = None
) -> Metric:
    """A metric with options, for the argument `metrics` of `fit` and `evaluate`.

    Args:
        name: of `names()`.
        threshold: an output above it means yes; in the units of the outputs, logits or
            probabilities. Default: 0 for losses that take logits, else 0.5.
        weighted: by the sample weights that `fit` and `evaluate` are given.
        label: its name in the history; default: `name`, with what was asked for.

    Raises:
        UnknownNameError: no such metric, with the nearest.
        DataError: a threshold that is not a finite number.
    """
    found = _named(name)
    if threshold is not None and not math.isfinite(threshold):
        raise DataError(f"{name}: threshold is {threshold}, expected a finite number.")
    if label is None:
        label = f"weighted_{name}" if weighted else name
        label += "" if threshold is None else f"_at_{threshold:g}"
    return replace(found, name=label, threshold=threshold, weighted=weighted)


def find(metrics: Iterable[str | UserMetric | Metric]) -> list[Metric]:
    """Metrics for names and functions.

    Args:
        metrics: names of `names()`, metrics with options (`metric`), or functions of (targets,
            outputs) to a number, which are called by their `__name__`.

            A function whose name is taken (by another one, or by what the history keeps for itself:
            epoch, loss, lr, val_...) gets another name, with a warning.

    Raises:
        UnknownNameError: no such metric, with the nearest.
        DataError: a name that stands twice.
    """
    found = [
        m if isinstance(m, Metric) else _user(m) if callable(m) else _named(m) for m in metrics
    ]
    known = [metric.name for metric in found if metric.named]
    for name in known:
        if known.count(name) > 1 or _TAKEN.fullmatch(name):
            why = "stands twice" if known.count(name) > 1 else "has a name that the history keeps"
            raise DataError(f"the metric {name!r} {why}; give it another label.")
    return [m if m.named else replace(m, name=_free_name(m.name, known)) for m in found]


def _free_name(name: str, known: list[str]) -> str:
    """A name that the history has a place for; `known` grows by it."""
    free = f"metric_{name}" if _TAKEN.fullmatch(name) else name
    count = 1
    while free in known:
        count += 1
        free = f"{name}_{count}"
    if free != name:
        warn(
            f"a metric cannot be called {name!r} here, for that name is taken: it is recorded as "
            f"{free!r}. Give functions names of their own (def, or fn.__name__ = ...)."
        )
    known.append(free)
    return free


def names() -> list[str]:
    """The names of all metrics."""
    return [*_PLAIN, "top_5_accuracy", *_AVERAGED]


def _user(fn: UserMetric) -> Metric:
    name = getattr(fn, "__name__", type(fn).__name__)

    def compute(
        y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5, how: Reading = AS_GIVEN, /
    ) -> float:
        value = np.asarray(fn(y, outputs))
        if value.size != 1 or value.dtype.kind not in "fiub":
            raise DataError(
                f"the metric {name} gave {value.dtype} of shape {value.shape}; expected a number."
            )
        return float(value.reshape(()))

    return Metric(name, compute, named=False)


def _named(name: str) -> Metric:
    if not isinstance(name, str):
        raise ArgumentError(
            f"a metric is {shown(name)}, expected a name, a function of (targets, outputs), or a "
            "gpubp.train.metric."
        )
    top = re.fullmatch(r"top_([1-9]\d*)_accuracy", str(name))
    if top:
        k = int(top[1])
        return Metric(name, lambda y, o, t=0.5, how=AS_GIVEN: top_k_accuracy(y, o, k, how))
    if name in _PLAIN:
        return Metric(name, _PLAIN[name])
    if name in _AVERAGED:
        which, _, average = name.partition("_")
        return Metric(
            name, lambda y, o, t=0.5, how=AS_GIVEN: _prf(y, o, t, average or "auto", how)[which]
        )
    raise unknown_name("metric", name, names())


def accuracy(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5, how: Reading = AS_GIVEN
) -> float:
    """The share of rows whose label is right; of several labels a row, all of them."""
    rows = rows_of("accuracy", y, outputs, how)
    if rows.spoiled:
        return math.nan
    right = rows.true == rows.found(threshold)
    return _average(right.all(axis=1) if rows.kind == "labels" else right, rows.weights)


def accuracy_by_itself(
    metrics: Iterable[Metric], y: NDArray[Any], outputs: NDArray[Any]
) -> list[str]:
    """["accuracy"] where it is measured without being asked for: targets are class labels."""
    asked = any(metric.name == "accuracy" for metric in metrics)
    return ["accuracy"] if is_labelled(y, outputs) and not asked else []


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


def _prf(
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


_PLAIN: dict[str, Compute] = {
    "accuracy": accuracy,
    "auc": auc,
    "mae": mae,
    "mse": mse,
    "r2": r2,
    "rmse": rmse,
}
_AVERAGED = [f"{m}{a}" for m in ("precision", "recall", "f1") for a in ("", "_macro", "_micro")]
