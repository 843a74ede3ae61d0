"""Distances of vectors, and losses of anchors that should be nearer to one than to another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.loss_base import Loss, present, typed
from gpubp.nn.module import Module
from gpubp.nn.parameter import Buffer
from gpubp.ops.spec import broadcast_shape, normalized_axis


class CosineSimilarity(Module):
    """x1 x2 / max(|x1| |x2|, eps) along an axis.

    Args:
        dim: the axis of the vectors.
        eps: the least length of each.
    """

    @checked
    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    @of_arrays
    def forward(self, x1: Any, x2: Any) -> Any:
        """Arrays that broadcast; the result has not the axis.

        Raises:
            DTypeError: they are not of floats. ShapeError: they do not broadcast.
        """
        for x in (x1, x2):
            if x.dtype.kind != "f":
                raise DTypeError(f"CosineSimilarity: got {describe(x)}, expected floats.")
        axis = normalized_axis(self.dim, max(len(x1.shape), len(x2.shape)), "CosineSimilarity")
        at = axis - max(len(x1.shape), len(x2.shape))
        if min(len(x1.shape), len(x2.shape)) < -at or x1.shape[at] != x2.shape[at]:  # one repeats
            shape = broadcast_shape(x1, x2)
            x1, x2 = ops.broadcast_to(x1, shape), ops.broadcast_to(x2, shape)
        lengths = [ops.maximum(ops.norm(x, 2, at, keepdims=True), self.eps) for x in (x1, x2)]
        units = [ops.divide(x, length) for x, length in zip((x1, x2), lengths)]
        return ops.sum(ops.multiply(*units), at)


class PairwiseDistance(Module):
    """The p-norm of x1 - x2 + eps along the last axis.

    Args:
        p: the norm's order.
        eps: added to each difference, so that equal vectors have a gradient.
        keepdim: leave the axis as size 1.
    """

    @checked
    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    @of_arrays
    def forward(self, x1: Any, x2: Any) -> Any:
        """Vectors (N, D) or (D,) that broadcast."""
        gap = ops.add(ops.subtract(x1, x2), self.eps)
        return ops.norm(gap, self.norm, -1, self.keepdim)


class TripletMarginWithDistanceLoss(Loss):
    """max(0, distance(anchor, positive) - distance(anchor, negative) + margin).

    Args:
        distance_function: of two arrays, one number a sample; default is `PairwiseDistance()`.
        margin: by how much the negative should be farther; a number, or a `Buffer` of one float.
        swap: the negative's distance is the smaller one of those to anchor and positive
            (Balntas et al., 2016).
        reduction: "mean", "sum" or "none".

    Raises:
        DataError: the margin is not positive.
        UnknownNameError: any other reduction.
    """

    @checked
    def __init__(
        self,
        *,
        distance_function: Callable[..., Any] | None = None,
        margin: float | Buffer = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        if not 0 < present(margin, f"{type(self).__name__}: margin") < math.inf:
            raise DataError(f"{type(self).__name__}: margin must be above 0, got {margin}.")
        self.distance_function = distance_function or PairwiseDistance()
        self.margin, self.swap = margin, swap

    @of_arrays
    def forward(self, anchor: Any, positive: Any, negative: Any) -> Any:
        """Three arrays that broadcast, the last axis being that of vectors.

        Raises:
            ShapeError: they have not as many dimensions.
        """
        self._floats(anchor)
        if len({len(x.shape) for x in (anchor, positive, negative)}) != 1:
            given = ", ".join(describe(x) for x in (anchor, positive, negative))
            raise ShapeError(f"{type(self).__name__}: got {given}, expected as many dimensions.")
        distance = self.distance_function
        near, far = distance(anchor, positive), distance(anchor, negative)
        if self.swap:
            far = ops.minimum(far, distance(positive, negative))
        gap = ops.subtract(near, far)
        return self._reduced(ops.clip(ops.add(gap, typed(self.margin, gap.dtype)), 0.0))


class TripletMarginLoss(TripletMarginWithDistanceLoss):
    """max(0, |anchor - positive| - |anchor - negative| + margin), by p-norms.

    Args:
        margin: by how much the negative should be farther; a number, or a `Buffer` of one float.
        p: the norm's order.
        eps: added to each difference.
        swap: see `TripletMarginWithDistanceLoss`.
        reduction: "mean", "sum" or "none".
    """

    @checked
    def __init__(
        self,
        margin: float | Buffer = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            distance_function=PairwiseDistance(p, eps).forward,
            margin=margin,
            swap=swap,
            reduction=reduction,
        )
        self.p, self.eps = p, eps


class MultiLabelMarginLoss(Loss):
    """The sum over labels j and other classes i of max(0, 1 - (x[j] - x[i])) / C.

    Args:
        reduction: "mean", "sum" or "none".
    """

    @checked
    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Scores (N, C) or (C,), and labels of the same shape: those before the first -1 count.

        Raises:
            ShapeError: the shapes differ. ArgumentError: labels are no integers.
        """
        self._floats(input)
        self._same_shapes(input, target)
        if target.dtype.kind != "i":
            raise ArgumentError(f"MultiLabelMarginLoss: labels are {describe(target)}.")
        if len(input.shape) not in (1, 2):
            raise ShapeError(f"MultiLabelMarginLoss: got {describe(input)}, expected (N, C).")
        single = len(input.shape) == 1
        scores = ops.reshape(input, (1, -1)) if single else input
        labels = ops.reshape(target, (1, -1)) if single else target
        count = scores.shape[1]
        counted = ops.equal(ops.cumsum(ops.astype(ops.less(labels, 0), "int64"), 1), 0)
        safe = ops.maximum(labels, 0)
        chosen = ops.one_hot(safe, count, scores.dtype)
        chosen = ops.multiply(chosen, ops.expand_dims(ops.astype(counted, scores.dtype), -1))
        other = ops.equal(ops.sum(chosen, 1, keepdims=True), 0.0)
        own = ops.sum(ops.multiply(chosen, ops.expand_dims(scores, 1)), -1, keepdims=True)
        # Not clip, whose gradient at its end is 1: at the margin torch's is 0.
        cost = ops.relu(ops.add(ops.subtract(ops.expand_dims(scores, 1), own), 1.0))
        both = ops.logical_and(other, ops.expand_dims(counted, -1))
        found = ops.multiply(ops.sum(ops.where(both, cost, 0.0), (1, 2)), 1.0 / count)
        return self._reduced(ops.reshape(found, ()) if single else found)
