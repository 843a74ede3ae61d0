"""Losses of yes-or-no targets, one or several a sample."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from gpubp import ops
from gpubp.arguments import checked
from gpubp.nn.arrays import of_arrays
from gpubp.nn.loss_base import Loss
from gpubp.ops.composite import log1p_exp

# torch bounds the logarithms so, where a probability is exactly 0 or 1.
_LOWEST_LOG = -100.0


class BCELoss(Loss):
    """-(target log input + (1 - target) log(1 - input)); the input holds probabilities.

    Logarithms are at least -100, as in torch; where they are bounded the gradient is 0. For a model
    that ends in a sigmoid, leave the sigmoid out and use BCEWithLogitsLoss: it is exact everywhere.

    Args:
        weight: of each element; broadcasts to the input.
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
        DataError: a weight is not finite.
    """

    @checked
    def __init__(self, weight: ArrayLike | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._register("weight", weight)

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare probabilities with targets in [0, 1] of the same shape.

        Raises:
            ShapeError: the shapes differ, or the weight does not fit.
            DataError: a number is outside [0, 1].
        """
        self._floats(input)
        self._same_shapes(input, target)
        self._between(input, 0, 1, "input")
        self._between(target, 0, 1, "target")
        target = ops.astype(target, input.dtype)
        yes = ops.multiply(target, _bounded_log(input))
        no = ops.multiply(ops.subtract(1.0, target), _bounded_log_of_rest(input))
        return self._reduced(self._weighted(ops.negative(ops.add(yes, no)), "weight"))


def _bounded_log(p: Any) -> Any:
    positive = ops.greater(p, 0.0)
    logs = ops.log(ops.where(positive, p, 1.0))
    return ops.where(positive, ops.clip(logs, _LOWEST_LOG), _LOWEST_LOG)


def _bounded_log_of_rest(p: Any) -> Any:
    """log(1 - p), without cancellation for small p."""
    positive = ops.less(p, 1.0)
    logs = ops.log1p(ops.negative(ops.where(positive, p, 0.0)))
    return ops.where(positive, ops.clip(logs, _LOWEST_LOG), _LOWEST_LOG)


class BCEWithLogitsLoss(Loss):
    """BCELoss of sigmoid(input), without overflow or cancellation.

    target log(1 + exp(-input)) + (1 - target) log(1 + exp(input)).

    Args:
        weight: of each element; broadcasts to the input.
        pos_weight: of the first term; broadcasts to the input.
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
        DataError: a weight is not finite.
    """

    from_logits = True

    @checked
    def __init__(
        self,
        weight: ArrayLike | None = None,
        *,
        reduction: str = "mean",
        pos_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(reduction)
        self._register("weight", weight)
        self._register("pos_weight", pos_weight)

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare logits with targets in [0, 1] of the same shape.

        Raises:
            ShapeError: the shapes differ, or a weight does not fit.
            DataError: a target is outside [0, 1].
        """
        self._floats(input)
        self._same_shapes(input, target)
        self._between(target, 0, 1, "target")
        yes, no = _both_terms(input, ops.astype(target, input.dtype))
        losses = ops.add(self._weighted(yes, "pos_weight"), no)
        return self._reduced(self._weighted(losses, "weight"))


def _both_terms(logits: Any, target: Any) -> tuple[Any, Any]:
    """-t log(sigmoid(x)) and -(1 - t) log(sigmoid(-x)): each exact, however small."""
    yes = ops.multiply(target, log1p_exp(ops.negative(logits)))
    return yes, ops.multiply(ops.subtract(1.0, target), log1p_exp(logits))


class MultiLabelSoftMarginLoss(Loss):
    """BCEWithLogitsLoss, averaged over the classes (the last axis) of each sample.

    Args:
        weight: of each class; broadcasts to the input.
        reduction: "mean", "sum" or "none", over the samples.

    Raises:
        UnknownNameError: any other reduction.
        DataError: a weight is not finite.
    """

    from_logits = True

    @checked
    def __init__(self, weight: ArrayLike | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._register("weight", weight)

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare logits (N, C) or (C,) with targets 0 or 1 of the same shape.

        Raises:
            ShapeError: the shapes differ, or the weight does not fit.
            DataError: a target is outside [0, 1].
        """
        self._floats(input)
        self._same_shapes(input, target)
        self._between(target, 0, 1, "target")
        yes, no = _both_terms(input, ops.astype(target, input.dtype))
        return self._reduced(ops.mean(self._weighted(ops.add(yes, no), "weight"), -1))


class SoftMarginLoss(Loss):
    """log(1 + exp(-target * input)); targets are 1 or -1.

    Args:
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
    """

    from_logits = True

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare two arrays of one shape.

        Raises:
            ShapeError: the shapes differ.
            DataError: a target is outside [-1, 1].
        """
        self._floats(input)
        self._same_shapes(input, target)
        self._between(target, -1, 1, "target")
        margin = ops.multiply(ops.negative(ops.astype(target, input.dtype)), input)
        return self._reduced(log1p_exp(margin))
