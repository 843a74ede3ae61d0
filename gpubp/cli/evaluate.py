"""`gpubp evaluate`: how good a model is on a file with targets, by class and by column.

Importance is that of L. Breiman, "Random Forests", Machine Learning 45 (2001), section 10: what a
score loses when the values of one column are exchanged between the rows. Calibration is the
expected calibration error of M. P. Naeini et al., AAAI 2015: probabilities in ten equal bins, the
mean distance of the mean probability from the share that is right, weighed by the rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.cli import predict
from gpubp.cli.failures import BAD_DATA, CommandError, of_files

if TYPE_CHECKING:
    from gpubp.data.encoding import Encoding

NAME = "evaluate"
HELP = "measure a saved model on a file with targets"
EPILOG = """
Prints the score beside that of always giving the same answer, for classes the confusion matrix,
precision, recall and f1 of each, and how far probabilities can be trusted, and of the columns of a
CSV file how much the score loses when their values are exchanged between the rows. On the training
data all of that says what was learned by heart, too.

examples:
  gpubp evaluate m.safetensors test.csv
  gpubp evaluate m.safetensors test.csv --repeats 10 --plot confusion.png
"""
_SHOWN, _BINS = 20, 10
_PART = 1 << 16  # rows that are looked at together
_Floats = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    predict.add_reading(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw it (.png, .svg, .pdf)")
    parser.add_argument("--repeats", default=5, type=int, help="exchanges of a column (5), or 0")
    parser.add_argument("--seed", default=0, type=int, help="of the exchanges (0)")
    parser.set_defaults(keep=[])


def run(options: argparse.Namespace) -> int:
    """Evaluate; returns the exit code."""
    from gpubp.cli import show, tables

    model, found = show.open_model(options.model)
    with tables.kept_on_disk(options.on_disk) as folder:
        return _run(options, predict.predictor(model, options), found, folder)


def _run(
    options: argparse.Namespace,
    outputs_of: Callable[[NDArray[Any]], NDArray[Any]],
    found: Encoding,
    folder: Path | None,
) -> int:
    from gpubp.cli import newdata

    with of_files():
        data = newdata.load(found, options, folder)
    for note in data.notes:
        print(f"note: {note}", file=sys.stderr)
    if not len(data.scored):
        raise CommandError(
            BAD_DATA, f"{options.data} has no targets: expected {found.target!r} beside the inputs."
        )
    X, y = _rows(data.X, data.scored, folder), data.targets
    outputs = outputs_of(X)
    print("\n".join([_headline(found, outputs, y), *_details(found, outputs, y)]))
    for line in _importance(options, found, X, y, outputs_of):
        print(line)
    with of_files():
        if options.plot:
            plot(found, outputs, y, options.plot)
    return 0


def _rows(
    X: NDArray[np.float32], rows: NDArray[np.int64], folder: Path | None
) -> NDArray[np.float32]:
    """Some rows of X, which are mapped if X is."""
    from gpubp.data import ondisk

    if len(rows) == len(X):
        return X
    made: NDArray[np.float32] = ondisk.new_array(folder, (len(rows), *X.shape[1:]), X.dtype)
    for start in range(0, len(rows), _PART):
        made[start : start + _PART] = X[rows[start : start + _PART]]
    return made


def _score(found: Encoding, outputs: NDArray[Any], y: NDArray[Any]) -> float:
    """Accuracy, or the root of the mean squared error."""
    if found.task == "classification":
        return float(np.mean(outputs.argmax(axis=1) == y))
    return float(np.sqrt(np.mean((found.predictions(outputs) - _column(y)) ** 2)))


def _column(y: NDArray[Any]) -> _Floats:
    return np.asarray(y, np.float64).reshape(len(y), -1)


def _headline(found: Encoding, outputs: NDArray[Any], y: NDArray[Any]) -> str:
    score, rows = _score(found, outputs, y), f"{len(y):,} rows"
    if found.task == "classification":
        counts = np.bincount(y, minlength=len(found.classes))
        best = int(counts.argmax())
        alone = counts[best] / len(y)
        return f"accuracy {score:.3f} ({rows}; always {found.classes[best]!r}: {alone:.3f})"
    true, errors = _column(y), found.predictions(outputs) - _column(y)
    spread = float(np.sqrt(np.mean((true - true.mean(axis=0)) ** 2)))
    r2 = f"r2 {1 - (score / spread) ** 2:.3f}, " if spread else ""
    mae, bias = float(np.abs(errors).mean()), float(errors.mean())
    errors_of = f"rmse {score:.4g}, mae {mae:.4g}, mean error {bias:.4g}"
    return f"{r2}{errors_of} ({rows}; always the mean: rmse {spread:.4g})"


def confusion(found: Encoding, outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
    """How many rows of each class (first axis) are taken for each (second axis)."""
    n = len(found.classes)
    return np.bincount(y * n + outputs.argmax(axis=1), minlength=n * n).reshape(n, n)


def calibration_error(shares: _Floats, y: NDArray[Any]) -> float:
    """The expected calibration error of the likeliest classes' probabilities."""
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == y
    bins = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, sure - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(y))


def _details(found: Encoding, outputs: NDArray[Any], y: NDArray[Any]) -> list[str]:
    """Class by class; of a regression nothing."""
    if found.task != "classification":
        return []
    from gpubp import ops

    counts = confusion(found, outputs, y)
    labels = [str(label) for label in found.classes]
    width = max(map(len, [*labels, "1,000"]))
    lines = []
    if len(labels) <= _SHOWN:
        lines += ["", "rows: true class, columns: predicted"]
        lines.append("  ".join([" " * width, *(f"{label:>{width}}" for label in labels)]))
        for label, row in zip(labels, counts, strict=True):
            lines.append("  ".join([f"{label:<{width}}", *(f"{n:>{width},}" for n in row)]))
    lines += ["", f"{'class':<{width}}  precision  recall     f1   rows"]
    hits, chosen, actual = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    for i in np.argsort(-actual, kind="stable")[:_SHOWN]:
        precision, recall = hits[i] / max(chosen[i], 1), hits[i] / max(actual[i], 1)
        f1 = 2 * hits[i] / max(chosen[i] + actual[i], 1)
        lines.append(
            f"{labels[i]:<{width}}  {precision:9.3f}  {recall:6.3f}  {f1:5.3f}  {actual[i]:5,}"
        )
    if len(labels) > _SHOWN:
        lines.append(f"... and {len(labels) - _SHOWN} classes more")
    shares = np.asarray(ops.softmax(outputs.astype(np.float64), 1))
    error = calibration_error(shares, y)
    sure = shares.max(axis=1).mean()
    return [*lines, "", f"probabilities: {sure:.3f} on average, calibration error {error:.3f}"]


def _importance(
    options: argparse.Namespace,
    found: Encoding,
    X: NDArray[Any],
    y: NDArray[Any],
    outputs_of: Callable[[NDArray[Any]], NDArray[Any]],
) -> list[str]:
    """The columns of a CSV file, from the most important on."""
    if not found.columns or options.repeats < 1 or len(X) < 2:
        return []
    rng = np.random.default_rng(options.seed)
    classes = found.task == "classification"
    before, losses, start = _score(found, outputs_of(X), y), [], 0
    for column in found.columns:
        mine = slice(start, start + column.width)
        start += column.width
        scores = []
        for _ in range(options.repeats):
            outputs = _exchanged(X, mine, rng.permutation(len(X)), outputs_of)
            scores.append(_score(found, outputs, y))
        losses.append((before - np.array(scores)) * (1 if classes else -1))
    order = sorted(range(len(losses)), key=lambda i: -float(losses[i].mean()))
    what = "accuracy lost" if classes else "rmse gained"
    width = max(len(column.name) for column in found.columns)
    lines = ["", f"{what} when a column is exchanged between the rows ({options.repeats} times)"]
    for i in order[:_SHOWN]:
        mean, spread = losses[i].mean(), losses[i].std()
        lines.append(f"{found.columns[i].name:<{width}}  {mean:9.4g}  +- {spread:.2g}")
    if len(order) > _SHOWN:
        lines.append(f"... and {len(order) - _SHOWN} columns more")
    return lines


def _exchanged(
    X: NDArray[Any],
    mine: slice,
    order: NDArray[np.int64],
    outputs_of: Callable[[NDArray[Any]], NDArray[Any]],
) -> NDArray[Any]:
    """The outputs where some inputs of each row are those of another, part by part."""
    parts = []
    for start in range(0, len(X), _PART):
        part = np.array(X[start : start + _PART])
        part[:, mine] = X[order[start : start + _PART], mine]
        parts.append(outputs_of(part))
    return np.concatenate(parts)


def plot(found: Encoding, outputs: NDArray[Any], y: NDArray[Any], path: str) -> Any:
    """Draw the confusion matrix, or predicted against true; returns the figure."""
    from gpubp import pictures

    figure = pictures.new_figure("--plot", 6, 5.4)
    axes = figure.subplots()
    if found.task == "classification":
        counts = confusion(found, outputs, y)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(picture, label="share of the class")
        ticks, labels = range(len(found.classes)), [str(c) for c in found.classes]
        axes.set_xticks(ticks, labels, rotation=45, ha="right")
        axes.set_yticks(ticks, labels)
        for i, j in np.argwhere(counts) if len(labels) <= _SHOWN else []:
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", color=color)
        axes.set(xlabel="predicted", ylabel="true")
    else:
        true, predicted = _column(y), found.predictions(outputs)
        ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
        axes.plot(ends, ends, color="gray", lw=1, zorder=1)
        axes.scatter(true, predicted, s=9, alpha=0.5, zorder=2)
        axes.set(xlabel=f"true {found.target}", ylabel="predicted")
    axes.set_title(f"{found.target}: {_headline(found, outputs, y)}", fontsize=9, wrap=True)
    pictures.save(figure, path)
    return figure
