"""Losses as modules: predictions and targets to a scalar, or to one loss a row."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.core import describe
from gpubp.errors import DTypeError, ShapeError, unknown_name
from gpubp.nn.module import Module

REDUCTIONS = ("mean", "sum", "none")


class _Loss(Module):
    """Base of losses: holds `reduction` and applies it."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise unknown_name("reduction", reduction, REDUCTIONS)
        self.reduction = reduction

    def _reduced(self, losses: Any) -> Any:
        if self.reduction == "none":
            return losses
        return ops.mean(losses) if self.reduction == "mean" else ops.sum(losses)


class MSELoss(_Loss):
    """(input - target)^2, reduced over all elements.

    Args:
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
    """

    def forward(self, input: Any, target: Any) -> Any:
        """Compare two arrays of one shape.

        Raises:
            ShapeError: the shapes differ. Broadcasting here is nearly always a mistake.
        """
        if tuple(input.shape) != tuple(target.shape):
            raise ShapeError(
                f"MSELoss: got input {describe(input)} and target {describe(target)}, expected "
                "equal shapes. Reshape the target, for example with y[:, None]."
            )
        return self._reduced(ops.square(ops.subtract(input, target)))


class CrossEntropyLoss(_Loss):
    """-log softmax(logits)[label], reduced over the rows; targets are class indices.

    Args:
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
    """

    def forward(self, input: Any, target: Any) -> Any:
        """Logits (N, C) and integer labels (N,) in [0, C) to a scalar, or to (N,) for "none".

        Raises:
            ShapeError: other shapes.
            DTypeError: labels that are not integers, logits that are not floats.
        """
        given = f"got logits {describe(input)} and labels {describe(target)}"
        if len(input.shape) != 2 or tuple(target.shape) != tuple(input.shape[:1]):
            raise ShapeError(f"CrossEntropyLoss: {given}, expected shapes (N, C) and (N,).")
        if target.dtype.kind != "i":
            raise DTypeError(
                f"CrossEntropyLoss: {given}, expected class indices of int32 or int64. "
                "Convert them with y.astype('int64')."
            )
        if input.dtype.kind != "f":
            raise DTypeError(f"CrossEntropyLoss: {given}, expected float logits.")
        return self._reduced(ops.softmax_cross_entropy(input, target))
