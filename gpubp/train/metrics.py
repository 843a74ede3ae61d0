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
from gpubp.train.classification import accuracy, auc, precision_recall_f1, top_k_accuracy
from gpubp.train.numbers import TAKEN
from gpubp.train.reading import AS_GIVEN, Reading, is_labelled
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

    def of(self, y: Any, outputs: Any, how: Reading = AS_GIVEN) -> float:
        """Its value.

        Args:
            y: targets.
            outputs: of the model, for all samples.
            how: to read them.

        Raises:
            DataError: a metric by name, and several arrays of targets or of outputs.
        """
        if self.named and isinstance(y, (tuple, list, dict)):
            raise DataError(
                f"{self.name} needs one array of targets, and there is a {type(y).__name__} of "
                "them. Pass a function of (targets, outputs)."
            )
        if self.named and not isinstance(outputs, np.ndarray):
            raise DataError(
                f"{self.name} is of one array of outputs, and the model gives "
                f"{shown(outputs)} of several. Pass a function of (targets, outputs)."
            )
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
        if known.count(name) > 1 or TAKEN.fullmatch(name):
            why = "stands twice" if known.count(name) > 1 else "has a name that the history keeps"
            raise DataError(f"the metric {name!r} {why}; give it another label.")
    return [m if m.named else replace(m, name=_free_name(m.name, known)) for m in found]


def _free_name(name: str, known: list[str]) -> str:
    """A name that the history has a place for; `known` grows by it."""
    free = f"metric_{name}" if TAKEN.fullmatch(name) else name
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
        average = average or "auto"
        return Metric(
            name,
            lambda y, o, t=0.5, how=AS_GIVEN: precision_recall_f1(y, o, t, average, how)[which],
        )
    raise unknown_name("metric", name, names())


def accuracy_by_itself(metrics: Iterable[Metric], y: Any, outputs: Any) -> list[str]:
    """["accuracy"] where it is measured without being asked for: targets are class labels."""
    if not (isinstance(y, np.ndarray) and isinstance(outputs, np.ndarray)):
        return []
    asked = any(metric.name == "accuracy" for metric in metrics)
    return ["accuracy"] if is_labelled(y, outputs) and not asked else []


_PLAIN: dict[str, Compute] = {
    "accuracy": accuracy,
    "auc": auc,
    "mae": mae,
    "mse": mse,
    "r2": r2,
    "rmse": rmse,
}
_AVERAGED = [f"{m}{a}" for m in ("precision", "recall", "f1") for a in ("", "_macro", "_micro")]
