"""What targets and outputs mean to metrics: classes, one yes or no a sample, or several.

Comes in: targets and outputs of any shape that a loss of `gpubp.nn` takes. Goes out: rows, each
with its label or labels, its scores and its weight; rows with an ignored label are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """How outputs are read; what the loss says (`core.note`), and what the user asks for.

    Attributes:
        from_logits: outputs are logits, else probabilities; None if that is not known.
        ignore_index: a label that does not count.
        one_hot: targets of the outputs' shape are one class each.
        weights: of the samples; None: all alike.
    """

    from_logits: bool | None = None
    ignore_index: int | None = None
    one_hot: bool = False
    weights: NDArray[Any] | None = None

    @property
    def threshold(self) -> float:
        """Above it an output means yes."""
        return 0.0 if self.from_logits else 0.5


AS_GIVEN = Reading()


@dataclass(frozen=True)
class Rows:
    """Targets and outputs as rows.

    Attributes:
        kind: "classes": one of several a row; "binary": yes or no; "labels": several of those.
        true: labels (rows,), or 0 and 1 of shape (rows, labels).
        scores: (rows, classes), (rows,) or (rows, labels).
        weights: (rows,), or None.
    """

    kind: str
    true: NDArray[np.int64]
    scores: NDArray[Any]
    weights: Floats | None

    @property
    def spoiled(self) -> bool:
        """There is nothing to measure: no row, or an output that is NaN."""
        return len(self.true) == 0 or bool(np.isnan(self.scores).any())

    def found(self, threshold: float) -> NDArray[np.int64]:
        """Predicted labels, in the shape of `true`: of equal scores the first wins."""
        if self.kind == "classes":
            return np.asarray(self.scores.argmax(axis=-1), np.int64)
        return np.asarray(self.scores > threshold, np.int64)

    @property
    def two_sided(self) -> bool:
        """There are two classes, of which 1 is the one looked for."""
        return self.kind == "binary" or (self.kind == "classes" and self.scores.shape[1] == 2)


def class_axis(y: NDArray[Any], outputs: NDArray[Any]) -> int | None:
    """The axis of the outputs that holds classes, where targets are one class label for each row.

    It is the second one, as in losses of `gpubp.nn`: (N, C, ...) beside labels (N, ...); or else
    the last: (N, ..., C). None for other targets.
    """
    if y.dtype.kind != "i" or outputs.ndim < 2:
        return None
    if y.shape == outputs.shape[:1] + outputs.shape[2:]:
        return 1
    return outputs.ndim - 1 if y.shape == outputs.shape[:-1] else None


def is_labelled(y: NDArray[Any], outputs: NDArray[Any]) -> bool:
    """Whether targets are one class label for each row of outputs: of several, or yes or no."""
    axis = class_axis(y, outputs)
    return axis is not None and (outputs.shape[axis] > 1 or bool(np.isin(y, (0, 1)).all()))


def rows_of(name: str, y: NDArray[Any], outputs: NDArray[Any], how: Reading) -> Rows:
    """Targets and outputs as rows.

    Args:
        name: of the metric, for errors.
        y: integer class labels beside several outputs; or 0 and 1 (or -1 and 1) of any dtype, in
            the shape of the outputs but for axes of size 1.
        outputs: of the model, a row for each sample.
        how: to read them.

    Raises:
        DataError: targets that are neither.
    """
    axis = class_axis(y, outputs)
    if axis is not None and outputs.shape[axis] > 1:
        return _classes(y, outputs, axis, how)
    if how.one_hot and y.shape == outputs.shape and outputs.ndim > 1 and _is_one_hot(y):
        return _classes(y.argmax(axis=1), outputs, 1, how)
    flat = len(y) == len(outputs) and y.size == outputs.size
    if flat and (np.isin(y, (0, 1)).all() or np.isin(y, (-1, 1)).all()):
        return _yes_or_no(y, outputs, how)
    raise DataError(
        f"{name} needs integer class labels and a model with one output a class, or targets of 0 "
        f"and 1 and one output; got targets {y.dtype} {y.shape} and outputs {outputs.shape}. "
        "Leave it out of metrics for other targets."
    )


def _classes(y: NDArray[Any], outputs: NDArray[Any], axis: int, how: Reading) -> Rows:
    scores = np.moveaxis(outputs, axis, -1).reshape(-1, outputs.shape[axis])
    true, weights = y.reshape(-1).astype(np.int64), _weights(how, len(y), y.size)
    if how.ignore_index is not None:
        kept = true != how.ignore_index
        true, scores = true[kept], scores[kept]
        weights = None if weights is None else weights[kept]
    return Rows("classes", true, scores, weights)


def _yes_or_no(y: NDArray[Any], outputs: NDArray[Any], how: Reading) -> Rows:
    """Several labels a sample stand on the second axis, as classes do."""
    shape = outputs.shape if outputs.ndim >= y.ndim else y.shape
    yes = np.greater(y, 0).astype(np.int64)
    labels = shape[1] if len(shape) > 1 else 1
    if labels == 1:
        return Rows("binary", yes.reshape(-1), outputs.reshape(-1), _weights(how, len(y), y.size))
    true, scores = (
        np.moveaxis(a.reshape(shape), 1, -1).reshape(-1, labels) for a in (yes, outputs)
    )
    return Rows("labels", true, scores, _weights(how, len(y), len(true)))


def _is_one_hot(y: NDArray[Any]) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _weights(how: Reading, samples: int, rows: int) -> Floats | None:
    """The weight of each row: that of its sample."""
    if how.weights is None:
        return None
    return np.repeat(np.asarray(how.weights, np.float64), rows // max(1, samples))
