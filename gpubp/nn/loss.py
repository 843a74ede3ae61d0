"""Losses of class labels: scores of C classes, and labels or probabilities.

The axis of the classes is the second one, (N, C, ...), or the only one, (C,); labels leave it out.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe, note
from gpubp.errors import DataError, DTypeError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.loss_base import Loss, present, typed
from gpubp.nn.parameter import Buffer


class _LabelLoss(Loss):
    """Base of losses of class labels: weights of the classes, and labels to pass over."""

    @checked
    def __init__(self, weight: ArrayLike | None, ignore_index: int | None, reduction: str) -> None:
        super().__init__(reduction)
        self._register("weight", weight)
        if weight is not None and len(self.weight.shape) != 1:
            raise ShapeError(
                f"{type(self).__name__}: weight must have one number a class, got "
                f"{describe(self.weight)}."
            )
        self.ignore_index = None if ignore_index is None else operator.index(ignore_index)

    def _check(self, input: Any, target: Any) -> None:
        given = f"got scores {describe(input)} and labels {describe(target)}"
        shape = tuple(input.shape)
        wanted = shape[:1] + shape[2:] if len(shape) > 1 else ()
        if not shape or tuple(target.shape) != wanted:
            raise ShapeError(
                f"{type(self).__name__}: {given}, expected shapes (N, C) and (N,), (N, C, ...) and "
                "(N, ...), or (C,) and ()."
            )
        if target.dtype.kind != "i":
            raise DTypeError(
                f"{type(self).__name__}: {given}, expected class indices of int32 or int64. "
                "Convert them with y.astype('int64')."
            )

    def _check_scores(self, input: Any) -> None:
        if input.dtype.kind != "f":
            raise DTypeError(
                f"{type(self).__name__}: got {describe(input)}, expected float logits."
            )
        classes = input.shape[1 if len(input.shape) > 1 else 0] if input.shape else 0
        if self.weight is not None and self.weight.shape != (classes,):
            raise ShapeError(
                f"{type(self).__name__}: got {describe(self.weight)} weights for {classes} classes."
            )

    def _kept(self, target: Any) -> tuple[Any, Any]:
        """Labels with a valid one in place of the ignored, and where they are not ignored."""
        if self.ignore_index is None:
            return target, None
        note("ignore_index", self.ignore_index)
        ignored = ops.equal(target, self.ignore_index)
        return ops.where(ignored, 0, target), ops.logical_not(ignored)

    def _row_weights(self, x: Any, labels: Any, kept: Any) -> Any:
        """What each row counts: its class's weight, 0 if ignored. Labels are checked here too."""
        classes = x.shape[-1]
        if self.weight is None:
            table = np.ones(classes, x.dtype)
        else:
            table = ops.astype(self.weight, x.dtype)
        found = ops.gather(table, labels)
        return found if kept is None else ops.where(kept, found, 0.0)

    def _counts(self, weights: Any, kept: Any) -> Any:
        """What the mean counts: the weights, where they are not all 1."""
        return None if self.weight is None and kept is None else weights


def _classes_last(x: Any) -> Any:
    """(N, C, ...) as (N, ..., C)."""
    ndim = len(x.shape)
    return x if ndim < 3 else ops.transpose(x, (0, *range(2, ndim), 1))


def _is_label(x: Any, labels: Any) -> Any:
    """Booleans of the shape of x (..., C): True at each row's label."""
    return ops.equal(ops.expand_dims(labels, -1), np.arange(x.shape[-1], dtype=labels.dtype))


class CrossEntropyLoss(_LabelLoss):
    """-log softmax(logits)[label], or -sum(target * log softmax(logits)) for probabilities.

    Args:
        weight: of each class, shape (C,). For labels, the mean is weighted too.
        ignore_index: rows with this label cost nothing and are not counted in the mean. Where all
            rows of a batch have it, the mean is NaN, as torch's, and its gradient 0. Default: none
            (torch's default is -100: pass it where labels hold it).
        reduction: "mean", "sum" or "none".
        label_smoothing: share of the target that is spread evenly over the classes, in [0, 1]
            (Szegedy et al., 2015, arXiv:1512.00567); a number, or a `Buffer` of one float.

    Raises:
        UnknownNameError: any other reduction.
        ShapeError: the weight is not of shape (C,).
        DataError: a weight is not finite, or label_smoothing is outside [0, 1].
    """

    from_logits = True

    @checked
    def __init__(
        self,
        weight: ArrayLike | None = None,
        *,
        ignore_index: int | None = None,
        reduction: str = "mean",
        label_smoothing: float | Buffer = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        if not 0 <= present(label_smoothing, "CrossEntropyLoss: label_smoothing") <= 1:
            raise DataError(
                f"CrossEntropyLoss: label_smoothing must be in [0, 1], got {label_smoothing}."
            )
        self.label_smoothing = label_smoothing

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare logits with labels or with probabilities.

        Args:
            input: logits (N, C), (N, C, ...) or (C,).
            target: integer labels in [0, C) of shape (N,), (N, ...) or (); or floats in [0, 1] of
                input's shape.

        Returns:
            A scalar; for "none" one loss a label.

        Raises:
            ShapeError: other shapes.
            DTypeError: labels that are not integers, logits that are not floats.
            DataError: a label or probability is out of range; ignore_index with probabilities.
        """
        self._check_scores(input)
        if input.shape and tuple(target.shape) == tuple(input.shape) and target.dtype.kind == "f":
            return self._of_probabilities(_classes_last(input), target)
        self._check(input, target)
        return self._of_labels(_classes_last(input), target)

    def _of_labels(self, x: Any, target: Any) -> Any:
        labels, kept = self._kept(target)
        losses = ops.softmax_cross_entropy(x, labels)
        if self.weight is None and kept is None:
            return self._reduced(self._smoothed(losses, x))
        weights = self._row_weights(x, labels, kept)
        losses = self._smoothed(ops.multiply(losses, weights), x)
        if kept is not None:
            losses = ops.where(kept, losses, 0.0)
        return self._reduced(losses, weights)

    def _smoothed(self, losses: Any, x: Any) -> Any:
        """Mixed with the loss of a target that is even over the classes."""
        kept, each = self._shares(x)
        if kept is None:
            return losses
        even = ops.sum(self._weighted(ops.log_softmax(x), "weight"), -1)
        return ops.add(ops.multiply(losses, kept), ops.multiply(even, -each))

    def _shares(self, x: Any) -> tuple[Any, Any]:
        """Of the target: what it keeps, and what each class is given; twice None: all of it."""
        share = self.label_smoothing
        if not isinstance(share, Buffer) and not share:
            return None, None
        return typed(1.0 - share, x.dtype), typed(share / x.shape[-1], x.dtype)

    def _of_probabilities(self, x: Any, target: Any) -> Any:
        if self.ignore_index is not None:
            raise DataError("CrossEntropyLoss: ignore_index needs labels, got probabilities.")
        self._between(target, 0, 1, "target")
        note("one_hot", True)
        wanted = ops.astype(_classes_last(target), x.dtype)
        kept, each = self._shares(x)
        if kept is not None:
            wanted = ops.add(ops.multiply(wanted, kept), each)
        terms = self._weighted(ops.multiply(wanted, ops.log_softmax(x)), "weight")
        return self._reduced(ops.negative(ops.sum(terms, -1)))


class NLLLoss(_LabelLoss):
    """-input[label], where the input holds log-probabilities.

    Args:
        weight: of each class, shape (C,). The mean is weighted too.
        ignore_index: as for CrossEntropyLoss.
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
        ShapeError: the weight is not of shape (C,).
        DataError: a weight is not finite.
    """

    @checked
    def __init__(
        self,
        weight: ArrayLike | None = None,
        *,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, ignore_index, reduction)

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Log-probabilities (N, C), (N, C, ...) or (C,) and labels (N,), (N, ...) or ().

        Raises:
            ShapeError: other shapes.
            DTypeError: labels that are not integers, an input that is not of floats.
            DataError: a label is out of range.
        """
        self._check_scores(input)
        self._check(input, target)
        x = _classes_last(input)
        labels, kept = self._kept(target)
        weights = self._row_weights(x, labels, kept)
        picked = ops.sum(ops.where(_is_label(x, labels), x, 0.0), -1)
        losses = ops.multiply(ops.negative(picked), weights)
        if kept is not None:
            losses = ops.where(kept, losses, 0.0)
        return self._reduced(losses, self._counts(weights, kept))


class MultiMarginLoss(_LabelLoss):
    """The sum over all other classes of max(0, margin - input[label] + input)^p, divided by C.

    Crammer & Singer, "On the algorithmic implementation of multiclass kernel-based vector machines"
    (2001).

    Args:
        p: 1 or 2.
        margin: by how much the label's score should lead; a number, or a `Buffer` of one float.
        weight: of each class, shape (C,).
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
        ShapeError: the weight is not of shape (C,).
        DataError: p is neither 1 nor 2, the margin or a weight is not finite.
    """

    @checked
    def __init__(
        self,
        p: int = 1,
        margin: float | Buffer = 1.0,
        weight: ArrayLike | None = None,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, None, reduction)
        if p not in (1, 2) or not math.isfinite(present(margin, "MultiMarginLoss: margin")):
            raise DataError(
                f"MultiMarginLoss: p must be 1 or 2 and margin finite, got {p} and {margin}."
            )
        self.p = p
        self.margin = margin

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Scores (N, C) or (C,) and labels (N,) or ().

        Raises:
            ShapeError: other shapes.
            DTypeError: labels that are not integers, scores that are not floats.
            DataError: a label is out of range.
        """
        self._check_scores(input)
        self._check(input, target)
        if len(input.shape) > 2:
            raise ShapeError(f"MultiMarginLoss: got scores {describe(input)}, expected (N, C).")
        weights = self._row_weights(input, target, None)
        own = _is_label(input, target)
        picked = ops.sum(ops.where(own, input, 0.0), -1, keepdims=True)
        lead = ops.subtract(input, picked)
        excess = ops.relu(ops.add(lead, typed(self.margin, lead.dtype)))
        excess = ops.where(own, 0.0, ops.square(excess) if self.p == 2 else excess)
        losses = ops.multiply(ops.sum(excess, -1), weights)
        return self._reduced(ops.multiply(losses, 1.0 / input.shape[-1]))
