"""Losses of distances and of pairs of samples; targets are 1 (alike) or -1."""

from __future__ import annotations

import math
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DataError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.loss_base import Loss, present, typed
from gpubp.nn.parameter import Buffer

# Keeps the length of a zero vector from 0; torch's constant.
_TINY = 1e-12


class _MarginLoss(Loss):
    """Base of losses with a margin."""

    @checked
    def __init__(self, margin: float | Buffer, reduction: str) -> None:
        super().__init__(reduction)
        if not math.isfinite(present(margin, f"{type(self).__name__}: margin")):
            raise DataError(f"{type(self).__name__}: margin must be finite, got {margin}.")
        self.margin = margin


class HingeEmbeddingLoss(_MarginLoss):
    """input where the target is 1, max(0, margin - input) where it is -1.

    Args:
        margin: distances beyond it cost nothing; a number, or a `Buffer` of one float.
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
    """

    @checked
    def __init__(self, margin: float | Buffer = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(margin, reduction)

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Distances and targets of one shape.

        Raises:
            ShapeError: the shapes differ.
            DataError: a target is outside [-1, 1].
        """
        self._floats(input)
        self._same_shapes(input, target)
        self._between(target, -1, 1, "target")
        apart = ops.clip(ops.subtract(typed(self.margin, input.dtype), input), 0.0)
        far = ops.where(ops.equal(target, 1), 0.0, apart)
        near = ops.where(ops.equal(target, -1), 0.0, input)
        return self._reduced(ops.add(far, near))


class MarginRankingLoss(_MarginLoss):
    """max(0, -target (input1 - input2) + margin): which of two should be ranked higher.

    Args:
        margin: by how much; a number, or a `Buffer` of one float.
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
    """

    @checked
    def __init__(self, margin: float | Buffer = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(margin, reduction)

    @of_arrays
    def forward(self, input1: Any, input2: Any, target: Any) -> Any:
        """Three arrays of one shape; the target is 1 if input1 should be the larger, else -1.

        Raises:
            ShapeError: the shapes differ.
            DataError: a target is outside [-1, 1].
        """
        self._floats(input1)
        self._same_shapes(input1, input2)
        self._same_shapes(input1, target)
        self._between(target, -1, 1, "target")
        lead = ops.multiply(ops.astype(target, input1.dtype), ops.subtract(input1, input2))
        return self._reduced(ops.clip(ops.subtract(typed(self.margin, lead.dtype), lead), 0.0))


class CosineEmbeddingLoss(_MarginLoss):
    """1 - cos(input1, input2) where the target is 1, max(0, cos - margin) where it is -1.

    Args:
        margin: cosines up to it cost nothing for target -1; a number, or a `Buffer` of one float.
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
    """

    @checked
    def __init__(self, margin: float | Buffer = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(margin, reduction)

    @of_arrays
    def forward(self, input1: Any, input2: Any, target: Any) -> Any:
        """Vectors (N, D) and targets (N,), or one pair (D,) and a scalar.

        Raises:
            ShapeError: other shapes.
            DataError: a target is outside [-1, 1].
        """
        self._floats(input1)
        self._same_shapes(input1, input2)
        if len(input1.shape) not in (1, 2) or tuple(target.shape) != tuple(input1.shape[:-1]):
            raise ShapeError(
                f"CosineEmbeddingLoss: got inputs {describe(input1)} and target "
                f"{describe(target)}, expected (N, D) and (N,), or (D,) and a scalar."
            )
        self._between(target, -1, 1, "target")
        cosine = _cosine(input1, input2)
        near = ops.where(ops.equal(target, 1), ops.subtract(1.0, cosine), 0.0)
        apart = ops.clip(ops.subtract(cosine, typed(self.margin, cosine.dtype)), 0.0)
        return self._reduced(ops.add(near, ops.where(ops.equal(target, -1), apart, 0.0)))


def _cosine(a: Any, b: Any) -> Any:
    lengths = [ops.add(ops.sum(ops.square(v), -1), _TINY) for v in (a, b)]
    return ops.divide(ops.sum(ops.multiply(a, b), -1), ops.sqrt(ops.multiply(*lengths)))
