"""Metrics by name, or as functions of the user: numbers computed from all outputs of a data set.

A metric takes targets and the model's outputs of all samples at once, so that none is an average
over batches. Class labels come from outputs by the largest of several, or, for one output a
sample, by a threshold: 0 for losses that take logits, else 0.5. Definitions are those of
scikit-learn (`accuracy_score`, `precision_score(..., zero_division=0)`, `roc_auc_score`, ...).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError, unknown_name, warn

Floats = NDArray[np.float64]
# What the history and `LRMonitor` write.
_TAKEN = re.compile(r"epoch|loss|lr(_\d+)?|val_.*")
UserMetric = Callable[[NDArray[Any], NDArray[Any]], float]


@dataclass(frozen=True)
class Metric:
    """A named number.

    Attributes:
        name: as in the history.
        compute: takes (targets, outputs, threshold).
        named: it is one of `names()`, and no function of the user's.
    """

    name: str
    compute: Callable[[NDArray[Any], NDArray[Any], float], float]
    named: bool = True


def find(metrics: Iterable[str | UserMetric]) -> list[Metric]:
    """Metrics for names and functions.

    Args:
        metrics: names of `names()`, or functions of (targets, outputs) to a number, which are
            called by their `__name__`.

            A function whose name is taken (by another one, or by what the history keeps for itself:
            epoch, loss, lr, val_...) gets another name, with a warning.

    Raises:
        UnknownNameError: no such metric, with the nearest.
        DataError: a name that stands twice.
    """
    found = [_user(m) if callable(m) else _named(m) for m in metrics]
    known = [metric.name for metric in found if metric.named]
    for name in known:
        if known.count(name) > 1:
            raise DataError(f"the metric {name!r} stands twice in metrics; name it once.")
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

    def compute(y: NDArray[Any], outputs: NDArray[Any], threshold: float) -> float:
        value = np.asarray(fn(y, outputs))
        if value.size != 1 or value.dtype.kind not in "fiub":
            raise DataError(
                f"the metric {name} gave {value.dtype} of shape {value.shape}; expected a number."
            )
        return float(value.reshape(()))

    return Metric(name, compute, named=False)


def _named(name: str) -> Metric:
    top = re.fullmatch(r"top_([1-9]\d*)_accuracy", str(name))
    if top:
        k = int(top[1])
        return Metric(name, lambda y, outputs, threshold: top_k_accuracy(y, outputs, k))
    if name in _PLAIN:
        return Metric(name, _PLAIN[name])
    if name in _AVERAGED:
        which, _, average = name.partition("_")
        return Metric(name, lambda y, o, t: _prf(y, o, t, average or "auto")[which])
    raise unknown_name("metric", name, names())


def is_labelled(y: NDArray[Any], outputs: NDArray[Any]) -> bool:
    """Whether targets are one class label for each row of several outputs."""
    return y.dtype.kind == "i" and outputs.ndim > 1 and y.shape == outputs.shape[:-1]


def accuracy_by_itself(
    metrics: Iterable[Metric], y: NDArray[Any], outputs: NDArray[Any]
) -> list[str]:
    """["accuracy"] where it is measured without being asked for: targets are class labels."""
    asked = any(metric.name == "accuracy" for metric in metrics)
    return ["accuracy"] if is_labelled(y, outputs) and not asked else []


def labels(
    name: str, y: NDArray[Any], outputs: NDArray[Any], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True and predicted labels, both flat.

    Args:
        name: of the metric, for errors.
        y: integer labels beside several outputs a sample; or 0 and 1, of any dtype, in the shape
            of the outputs, but for an axis of size 1 at the end.
        outputs: of the model.
        threshold: above it a single output means class 1.

    Raises:
        DataError: neither of the two.
    """
    if is_labelled(y, outputs) and outputs.shape[-1] > 1:
        return y.reshape(-1), outputs.argmax(axis=-1).reshape(-1)
    if y.size == outputs.size and np.isin(y, (0, 1)).all():
        return y.reshape(-1).astype(np.int64), (outputs.reshape(-1) > threshold).astype(np.int64)
    raise DataError(
        f"{name} needs integer class labels and a model with one output a class, or targets of 0 "
        f"and 1 and one output; got targets {y.dtype} {y.shape} and outputs {outputs.shape}. "
        "Leave it out of metrics for other targets."
    )


def accuracy(y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5) -> float:
    """The share of right labels."""
    true, found = labels("accuracy", y, outputs, threshold)
    return float(np.mean(true == found))


def top_k_accuracy(y: NDArray[Any], outputs: NDArray[Any], k: int) -> float:
    """The share of samples whose label is among the k largest outputs; of equals the first win."""
    if not is_labelled(y, outputs) or k > outputs.shape[-1]:
        raise DataError(
            f"top_{k}_accuracy needs integer class labels and at least {k} outputs; got targets "
            f"{y.dtype} {y.shape} and outputs {outputs.shape}."
        )
    best = np.argsort(-outputs, axis=-1, kind="stable")[..., :k]
    return float(np.mean((best == y[..., None]).any(axis=-1)))


def _prf(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float, average: str
) -> dict[str, float]:
    """Precision, recall and F1; 0 where they divide by 0.

    "macro" is the mean over the classes that occur in targets or predictions, "micro" counts over
    all of them, "auto" is that of class 1 if there are two classes, else "macro".
    """
    true, found = labels("precision, recall and f1", y, outputs, threshold)
    classes = np.union1d(true, found)
    binary = outputs.shape[-1] == 2 or not (is_labelled(y, outputs) and outputs.shape[-1] > 1)
    if average == "auto":
        classes, average = (np.array([1]), "macro") if binary else (classes, "macro")
    hits = np.array([np.sum((true == c) & (found == c)) for c in classes], np.float64)
    chosen = np.array([np.sum(found == c) for c in classes], np.float64)
    actual = np.array([np.sum(true == c) for c in classes], np.float64)
    if average == "micro":
        hits, chosen, actual = (np.array([a.sum()]) for a in (hits, chosen, actual))
    return {
        "precision": float(_ratio(hits, chosen).mean()),
        "recall": float(_ratio(hits, actual).mean()),
        "f1": float(_ratio(2 * hits, chosen + actual).mean()),
    }


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def auc(y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5) -> float:
    """The area under the ROC curve, from ranks (Mann and Whitney, 1947); ties count a half.

    For several classes the mean over classes of one against the rest ("ovr", "macro" in
    scikit-learn), by the outputs if each row sums to 1, else by their softmax; for two outputs by
    their difference.

    A class without samples, or without others, has no ROC curve: NaN, with a warning.
    """
    true, _ = labels("auc", y, outputs, threshold)
    if not (is_labelled(y, outputs) and outputs.shape[-1] > 1):
        return _binary_auc(true == 1, outputs.reshape(-1).astype(np.float64))
    scores = outputs.reshape(-1, outputs.shape[-1]).astype(np.float64)
    if scores.shape[1] == 2:
        return _binary_auc(true == 1, scores[:, 1] - scores[:, 0])
    shares = scores
    if (scores < 0).any() or not np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
    return float(np.mean([_binary_auc(true == c, shares[:, c]) for c in range(scores.shape[1])]))


def _binary_auc(positive: NDArray[np.bool_], scores: Floats) -> float:
    count = int(positive.sum())
    others = len(positive) - count
    if count == 0 or others == 0:
        warn(
            "auc is not defined, and NaN is taken: it needs samples of every class, and others; a "
            "class has none here."
        )
        return math.nan
    _, which, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(ties) - (ties - 1) / 2
    total = ranks[which][positive].sum()
    return float((total - count * (count + 1) / 2) / (count * others))


def _pair(name: str, y: NDArray[Any], outputs: NDArray[Any]) -> tuple[Floats, Floats]:
    """Targets and outputs as float64, (samples, outputs)."""
    if y.size != outputs.size or len(y) != len(outputs):
        raise DataError(f"{name} needs one target an output; got {y.shape} and {outputs.shape}.")
    return y.reshape(len(y), -1).astype(np.float64), outputs.reshape(len(y), -1).astype(np.float64)


def mse(y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5) -> float:
    """The mean of (target - output)^2."""
    a, b = _pair("mse", y, outputs)
    return float(np.mean((a - b) ** 2))


def mae(y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5) -> float:
    """The mean of |target - output|."""
    a, b = _pair("mae", y, outputs)
    return float(np.mean(np.abs(a - b)))


def r2(y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5) -> float:
    """1 - sum((target - output)^2) / sum((target - mean)^2), the mean over the outputs.

    A constant target gives 1 if it is met exactly, else 0, as in scikit-learn.
    """
    a, b = _pair("r2", y, outputs)
    rest, spread = ((a - b) ** 2).sum(axis=0), ((a - a.mean(axis=0)) ** 2).sum(axis=0)
    constant = np.where(rest == 0, 1.0, 0.0)
    return float(
        np.mean(np.where(spread > 0, 1 - rest / np.where(spread > 0, spread, 1), constant))
    )


_PLAIN: dict[str, Callable[[NDArray[Any], NDArray[Any], float], float]] = {
    "accuracy": accuracy,
    "auc": auc,
    "mae": mae,
    "mse": mse,
    "r2": r2,
    "rmse": lambda y, outputs, threshold: float(np.sqrt(mse(y, outputs))),
}
_AVERAGED = [f"{m}{a}" for m in ("precision", "recall", "f1") for a in ("", "_macro", "_micro")]
