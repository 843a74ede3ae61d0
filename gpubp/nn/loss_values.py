"""Losses of predicted values (regression) and distributions, elementwise."""

from __future__ import annotations

import math
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DataError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.loss_base import REDUCTIONS, Loss, present, typed
from gpubp.nn.parameter import Buffer

_RESHAPE = " Reshape the target, for example with y[:, None]."


class MSELoss(Loss):
    """(input - target)^2, reduced over all elements.

    Args:
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
    """

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare two arrays of one shape.

        Raises:
            ShapeError: the shapes differ. Broadcasting here is nearly always a mistake.
        """
        self._same_shapes(input, target, _RESHAPE)
        return self._reduced(ops.square(ops.subtract(input, target)))


class L1Loss(Loss):
    """|input - target|, reduced over all elements; arguments as for MSELoss."""

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare two arrays of one shape. Raises ShapeError if the shapes differ."""
        self._same_shapes(input, target, _RESHAPE)
        return self._reduced(ops.abs(ops.subtract(input, target)))


class HuberLoss(Loss):
    """With d = |input - target|: d^2 / 2 where d is at most delta, else delta (d - delta / 2).

    Huber, "Robust Estimation of a Location Parameter" (1964).

    Args:
        reduction: "mean", "sum" or "none".
        delta: where the square ends; above 0; or a `Buffer` of one float.

    Raises:
        UnknownNameError: any other reduction.
        DataError: delta is not positive.
    """

    @checked
    def __init__(self, reduction: str = "mean", delta: float | Buffer = 1.0) -> None:
        super().__init__(reduction)
        if not 0 < present(delta, "HuberLoss: delta") < math.inf:
            raise DataError(f"HuberLoss: delta must be a number above 0, got {delta}.")
        self.delta = delta

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare two arrays of one shape. Raises ShapeError if the shapes differ."""
        self._same_shapes(input, target, _RESHAPE)
        return self._reduced(_huber(ops.subtract(input, target), self.delta))


class SmoothL1Loss(Loss):
    """With d = |input - target|: d^2 / (2 beta) where d is below beta, else d - beta / 2.

    Girshick, "Fast R-CNN" (2015). It is Huber's loss divided by beta.

    Args:
        reduction: "mean", "sum" or "none".
        beta: where the square ends; 0 gives L1Loss; or a `Buffer` of one float, above 0.

    Raises:
        UnknownNameError: any other reduction.
        DataError: beta is negative.
    """

    @checked
    def __init__(self, reduction: str = "mean", beta: float | Buffer = 1.0) -> None:
        super().__init__(reduction)
        now = present(beta, "SmoothL1Loss: beta")
        if not 0 <= now < math.inf or (now == 0 and isinstance(beta, Buffer)):
            raise DataError(f"SmoothL1Loss: beta must be a number of at least 0, got {beta}.")
        self.beta = beta

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare two arrays of one shape. Raises ShapeError if the shapes differ."""
        self._same_shapes(input, target, _RESHAPE)
        difference = ops.subtract(input, target)
        if not isinstance(self.beta, Buffer) and self.beta == 0:
            return self._reduced(ops.abs(difference))
        scale = typed(1.0 / self.beta, difference.dtype)
        return self._reduced(ops.multiply(_huber(difference, self.beta), scale))


def _huber(difference: Any, delta: float | Buffer) -> Any:
    dtype = difference.dtype
    distance = ops.abs(difference)
    near = ops.multiply(ops.square(difference), 0.5)
    half, delta = typed(0.5 * delta, dtype), typed(delta, dtype)
    far = ops.multiply(ops.subtract(distance, half), delta)
    return ops.where(ops.less(distance, delta), near, far)


class PoissonNLLLoss(Loss):
    """Negative log-likelihood of counts: exp(input) - target * input.

    Args:
        log_input: if False, the input is the rate itself: input - target * log(input + eps).
        full: add Stirling's approximation of log(target!) where the target is above 1:
            target * log(target) - target + log(2 pi target) / 2.
        eps: keeps the logarithm from 0 without log_input.
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
        DataError: eps is not positive.
    """

    @checked
    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        if not 0 < eps < math.inf:
            raise DataError(f"PoissonNLLLoss: eps must be a number above 0, got {eps}.")
        self.log_input = log_input
        self.full = full
        self.eps = eps

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare (log) rates with counts of the same shape.

        Raises:
            ShapeError: the shapes differ.
            DataError: a count is negative, or a rate without log_input.
        """
        self._floats(input)
        self._same_shapes(input, target, _RESHAPE)
        self._between(target, 0, math.inf, "target")
        target = ops.astype(target, input.dtype)
        if self.log_input:
            losses = ops.subtract(ops.exp(input), ops.multiply(target, input))
        else:
            self._between(input, 0, math.inf, "input")
            logs = ops.log(ops.add(input, self.eps))
            losses = ops.subtract(input, ops.multiply(target, logs))
        return self._reduced(ops.add(losses, _stirling(target)) if self.full else losses)


def _stirling(count: Any) -> Any:
    above = ops.greater(count, 1.0)
    safe = ops.where(above, count, 1.0)
    logs = ops.log(safe)
    half = ops.multiply(ops.add(logs, math.log(2.0 * math.pi)), 0.5)
    return ops.where(above, ops.add(ops.subtract(ops.multiply(safe, logs), safe), half), 0.0)


class GaussianNLLLoss(Loss):
    """Negative log-likelihood of normal values: (log var + (input - target)^2 / var) / 2.

    Nix & Weigend, "Estimating the mean and variance of the target probability distribution" (1994).

    Args:
        full: add the constant log(2 pi) / 2.
        eps: the variance is at least this; the gradient passes as if it were not bounded.
        reduction: "mean", "sum" or "none".

    Raises:
        UnknownNameError: any other reduction.
        DataError: eps is not positive.
    """

    @checked
    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if not 0 < eps < math.inf:
            raise DataError(f"GaussianNLLLoss: eps must be a number above 0, got {eps}.")
        self.full = full
        self.eps = eps

    @of_arrays
    def forward(self, input: Any, target: Any, var: Any) -> Any:
        """Compare means with values of the same shape, given the variances.

        Args:
            input: the predicted means.
            target: the values.
            var: of input's shape, or with sizes of 1, or without the last axis.

        Raises:
            ShapeError: the shapes do not fit.
            DataError: a variance is negative.
        """
        self._floats(input)
        self._same_shapes(input, target, _RESHAPE)
        self._between(var, 0, math.inf, "var")
        var = self._fitted(input, var)
        floor = ops.maximum(var, self.eps)
        bounded = ops.add(var, ops.stop_gradient(ops.subtract(floor, var)))
        distance = ops.square(ops.subtract(input, target))
        losses = ops.multiply(ops.add(ops.log(bounded), ops.divide(distance, bounded)), 0.5)
        return self._reduced(
            ops.add(losses, 0.5 * math.log(2.0 * math.pi)) if self.full else losses
        )

    def _fitted(self, input: Any, var: Any) -> Any:
        given, wanted = tuple(var.shape), tuple(input.shape)
        if given != wanted and given == wanted[:-1]:
            return ops.expand_dims(var, -1)
        if len(given) != len(wanted) or any(n not in (1, m) for n, m in zip(given, wanted)):
            raise ShapeError(
                f"GaussianNLLLoss: got input {describe(input)} and var {describe(var)}, expected "
                "one shape, sizes of 1, or a missing last axis."
            )
        return var


class KLDivLoss(Loss):
    """target * (log target - input), where the input holds log-probabilities.

    Kullback & Leibler, "On Information and Sufficiency" (1951).

    Args:
        reduction: "batchmean" (the sum divided by the first size: the divergence itself), "mean"
            (over all elements, torch's default), "sum" or "none".
        log_target: whether the target holds log-probabilities too.

    Raises:
        UnknownNameError: any other reduction.
    """

    reductions = (*REDUCTIONS, "batchmean")

    @checked
    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Compare log-probabilities with probabilities of the same shape.

        Raises:
            ShapeError: the shapes differ, or there are no samples to take a mean of.
        """
        self._floats(input)
        self._same_shapes(input, target)
        target = ops.astype(target, input.dtype)
        if self.log_target:
            losses = ops.multiply(ops.exp(target), ops.subtract(target, input))
        else:
            positive = ops.where(ops.equal(target, 0.0), 1.0, target)
            entropy = ops.multiply(target, ops.log(positive))
            losses = ops.subtract(entropy, ops.multiply(target, input))
        return self._reduced(losses)
