"""What a model is worth: metrics in the units of the data, beside what needs no model at all."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli.summary import counted
from gpubp.errors import unknown_name
from gpubp.train import metrics as known_metrics

if TYPE_CHECKING:
    from gpubp.cli.dataset import Dataset
    from gpubp.data.encoding import Encoding
    from gpubp.train import Trainer
    from gpubp.train.metrics import UserMetric

_OF_NUMBERS = ("mae", "mse", "r2", "rmse")


def metrics(
    options: argparse.Namespace, found: Encoding, drawn: bool = True
) -> list[str | UserMetric]:
    """What `--metrics` names, for `Trainer.fit`: of numbers, in the units of the target.

    Where curves are drawn or kept for the dashboard, how good the model is on what it is trained on
    is measured, too: accuracy, or r2. `drawn`: whether such curves may be asked for.

    Raises:
        UnknownNameError: no such metric, or none for this task.
    """
    numbers = found.task == "regression"
    known = [n for n in known_metrics.names() if (n in _OF_NUMBERS) == numbers]
    if drawn and (options.plot or any(where.startswith("run:") for where in options.log)):
        asked = [*options.metrics, "r2" if numbers else "accuracy"]
    else:
        asked = options.metrics
    for name in asked:
        known_metrics.find([name])
        if (name in _OF_NUMBERS) != numbers:
            raise unknown_name(f"metric for {found.task}", name, known)
    return [_in_units(name, found) if numbers else name for name in dict.fromkeys(asked)]


def _in_units(name: str, found: Encoding) -> UserMetric:
    metric = known_metrics.find([name])[0]

    def compute(y: NDArray[Any], outputs: NDArray[Any]) -> float:
        return float(metric.compute(found.predictions(y), found.predictions(outputs), 0.5))

    compute.__name__ = name
    return compute


def result(options: argparse.Namespace, data: Dataset, trainer: Trainer) -> tuple[str, str | None]:
    """The last line, and a warning if the model is no better than none.

    The line has accuracy, or r2 and rmse, then the metrics that were asked for, then the number of
    samples, and what one gets by always giving the same answer: the most frequent class or the mean
    of the training part.
    """
    part, (_, y) = data.judged
    values = measured(options, data, trainer)
    names = list(values)
    shown = ", ".join(f"{name} {_format(name, values[name])}" for name in names)
    name, answer, baseline = _baseline(data.encoding, data.train[1], y)
    samples = counted(len(y), data.unit)
    alone = f"{_format(name, baseline)}" if name == "accuracy" else f"{name} {baseline:.4g}"
    line = f"{part} {shown} ({samples}; always {answer}: {alone})"
    better = values[name] > baseline if name == "accuracy" else values[name] < baseline
    if better:
        return line, None
    return line, f"the model is no better than always giving {answer} ({alone})."


def measured(options: argparse.Namespace, data: Dataset, trainer: Trainer) -> dict[str, float]:
    """Accuracy, or r2 and rmse, and the metrics that were asked for, of what is judged."""
    _, (X, y) = data.judged
    plain = ["accuracy"] if data.encoding.task == "classification" else ["r2", "rmse"]
    if len(y) == 1:
        plain = [name for name in plain if name != "r2"]  # of one number it is not defined
    names = list(dict.fromkeys([*plain, *options.metrics]))
    asked = argparse.Namespace(metrics=names)
    values = trainer.evaluate(X, y, metrics(asked, data.encoding, drawn=False))
    return {name: values[name] for name in names}


def _format(name: str, value: float) -> str:
    return f"{value:.4g}" if name in ("rmse", "mae", "mse") else f"{value:.3f}"


def _baseline(found: Encoding, kept: NDArray[Any], y: NDArray[Any]) -> tuple[str, str, float]:
    """(metric, what is always answered, the metric of that)."""
    if found.task == "classification":
        most = int(np.bincount(kept).argmax())
        return "accuracy", repr(found.classes[most]), float(np.mean(y == most))
    true = found.predictions(y)
    mean = found.predictions(kept).mean(axis=0)
    return "rmse", "the mean", float(np.sqrt(np.mean((true - mean) ** 2)))


def of_predictions(found: Encoding, outputs: NDArray[Any], targets: NDArray[Any]) -> str:
    """How good predictions are whose targets are known: class indices, or numbers."""
    predicted = found.predictions(outputs)
    if found.task == "classification":
        right = np.mean(found.known_labels(predicted.tolist()) == targets)
        return f"accuracy {right:.3f} ({len(targets)} samples)"
    true = np.asarray(targets, np.float64).reshape(len(predicted), -1)
    rmse = known_metrics.mse(true, predicted) ** 0.5
    return f"r2 {known_metrics.r2(true, predicted):.3f}, rmse {rmse:.4g} ({len(targets)} samples)"
