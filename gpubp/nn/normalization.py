"""Normalisation: each feature or sample brought to mean 0 and variance 1, then scaled and moved.

Variances are the mean of squared distances from the mean (two passes, biased), as in torch. The
running statistics of BatchNorm1d are buffers, which train mode moves on with every call: at once
on NumPy arrays, at the end of each step in a compiled program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DataError, DTypeError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.init import filled
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter


class BatchNorm1d(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias, with statistics over the batch.

    Ioffe & Szegedy, "Batch Normalization" (2015, arXiv:1502.03167). In train mode mean and variance
    are the batch's, and the running ones move: running = (1 - momentum) running + momentum batch,
    with the batch's unbiased variance. In eval mode the running ones are used.

    Args:
        num_features: C of the input (N, C) or (N, C, L).
        eps: added to the variance.
        momentum: share of the new batch in the running statistics; None: their plain average.
        affine: whether to scale by `weight` and add `bias`.
        track_running_stats: if False, the batch's statistics are used in eval mode too.
        dtype: float32 or float64.
        bias: whether to add `bias`, where affine.

    Attributes:
        weight, bias: parameters of shape (C,), first 1 and 0; or None.
        running_mean, running_var: buffers of shape (C,), first 0 and 1; or None.
        num_batches_tracked: int64 scalar buffer; or None.

    Raises:
        ShapeError: num_features is below 1.
        DataError: eps or momentum is out of range.
    """

    @checked
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = "float32",
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ShapeError(f"BatchNorm1d needs num_features of at least 1, got {num_features}.")
        if momentum is not None and not 0 <= momentum <= 1:
            raise DataError(f"BatchNorm1d: momentum must be in [0, 1] or None, got {momentum}.")
        self.num_features = num_features
        self.eps = _checked_eps("BatchNorm1d", eps)
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        ones = filled(num_features, 1.0, dtype)
        self.weight: Parameter | None = Parameter(ones) if affine else None
        self.bias: Parameter | None = Parameter(0 * ones) if affine and bias else None
        self.running_mean: Any = None
        self.running_var: Any = None
        self.num_batches_tracked: Any = None
        if track_running_stats:
            self.register_buffer("running_mean", 0 * ones)
            self.register_buffer("running_var", ones)
            self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (N, C) or (N, C, L) to the same shape.

        Raises:
            ShapeError: another shape, or one value a channel where the batch's variance is needed.
        """
        shape = tuple(x.shape)
        if len(shape) not in (2, 3) or shape[1] != self.num_features:
            raise ShapeError(
                f"BatchNorm1d: got x {describe(x)}, expected (N, {self.num_features}) or "
                f"(N, {self.num_features}, L)."
            )
        wide = (1, self.num_features, *[1] * (len(shape) - 2))
        if self.training or not self.track_running_stats:
            mean, var = self._batch_statistics(x)
        else:
            mean = ops.reshape(self.running_mean, wide)
            var = ops.reshape(self.running_var, wide)
        y = ops.multiply(ops.subtract(x, mean), _inverse_root(var, self.eps))
        return _scaled(y, self.weight, self.bias, wide)

    def _batch_statistics(self, x: Any) -> tuple[Any, Any]:
        axes = (0,) if len(x.shape) == 2 else (0, 2)
        count = math.prod(x.shape[a] for a in axes)
        if count < 2:
            raise ShapeError(
                f"BatchNorm1d: got x {describe(x)}, and the variance of a batch needs more than "
                "one value a channel. Use larger batches, drop_last=True, or eval()."
            )
        mean = ops.mean(x, axes, keepdims=True)
        var = ops.mean(ops.square(ops.subtract(x, mean)), axes, keepdims=True)
        if self.training and self.track_running_stats:
            self._track(mean, ops.multiply(var, count / (count - 1)))
        return mean, var

    def _track(self, mean: Any, var: Any) -> None:
        """Move the running statistics on by one batch; `var` is unbiased."""
        ops.assign(self.num_batches_tracked, ops.add(self.num_batches_tracked, 1))
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            batch = ops.stop_gradient(ops.reshape(new, running.shape))
            if self.momentum is None:
                share = ops.divide(1.0, ops.astype(self.num_batches_tracked, running.dtype))
                moved = ops.add(running, ops.multiply(ops.subtract(batch, running), share))
            else:
                moved = ops.update.ema(running, batch, 1.0 - self.momentum)
            ops.assign(running, moved)

    def reset_running_stats(self) -> None:
        """Start the running statistics again: mean 0, variance 1, no batches."""
        if self.track_running_stats:
            self.running_mean.value = np.zeros(self.num_features)
            self.running_var.value = np.ones(self.num_features)
            self.num_batches_tracked.value = 0

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias, with statistics over the last axes.

    Ba, Kiros & Hinton, "Layer Normalization" (2016, arXiv:1607.06450).

    Args:
        normalized_shape: the sizes of the last axes of x, or the size of the last one.
        eps: added to the variance.
        elementwise_affine: whether to scale by `weight` and add `bias`.
        bias: whether to add `bias`, where elementwise_affine.
        dtype: float32 or float64.

    Attributes:
        weight, bias: parameters of shape normalized_shape, first 1 and 0; or None.

    Raises:
        ShapeError: a size is below 1.
        DataError: eps is negative or not finite.
    """

    @checked
    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.normalized_shape = _checked_shape("LayerNorm", normalized_shape)
        self.eps = _checked_eps("LayerNorm", eps)
        self.elementwise_affine = elementwise_affine
        ones = filled(self.normalized_shape, 1.0, dtype)
        self.weight: Parameter | None = Parameter(ones) if elementwise_affine else None
        self.bias: Parameter | None = Parameter(0 * ones) if elementwise_affine and bias else None

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (..., *normalized_shape) to the same shape.

        Raises:
            ShapeError: the last axes of x are others.
        """
        axes = _last_axes("LayerNorm", x, self.normalized_shape)
        centred = ops.subtract(x, ops.mean(x, axes, keepdims=True))
        var = ops.mean(ops.square(centred), axes, keepdims=True)
        y = ops.multiply(centred, _inverse_root(var, self.eps))
        return _scaled(y, self.weight, self.bias, self.normalized_shape)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight, with the mean over the last axes.

    Zhang & Sennrich, "Root Mean Square Layer Normalization" (2019, arXiv:1910.07467).

    Args:
        normalized_shape: the sizes of the last axes of x, or the size of the last one.
        eps: added to the mean of squares; None: the machine epsilon of x's dtype.
        elementwise_affine: whether to scale by `weight`.
        dtype: float32 or float64.

    Attributes:
        weight: a parameter of shape normalized_shape, first 1; or None.

    Raises:
        ShapeError: a size is below 1.
        DataError: eps is negative or not finite.
    """

    @checked
    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.normalized_shape = _checked_shape("RMSNorm", normalized_shape)
        self.eps = None if eps is None else _checked_eps("RMSNorm", eps)
        self.elementwise_affine = elementwise_affine
        ones = filled(self.normalized_shape, 1.0, dtype)
        self.weight: Parameter | None = Parameter(ones) if elementwise_affine else None

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map (..., *normalized_shape) to the same shape.

        Raises:
            ShapeError: the last axes of x are others.
        """
        axes = _last_axes("RMSNorm", x, self.normalized_shape)
        if x.dtype.kind != "f":
            raise DTypeError(f"RMSNorm: got x {describe(x)}, expected floats.")
        eps = float(np.finfo(x.dtype).eps) if self.eps is None else self.eps
        size = ops.mean(ops.square(x), axes, keepdims=True)
        y = ops.multiply(x, _inverse_root(size, eps))
        return _scaled(y, self.weight, None, self.normalized_shape)

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


def _inverse_root(size: Any, eps: float) -> Any:
    return ops.divide(1.0, ops.sqrt(ops.add(size, eps)))


def _scaled(y: Any, weight: Any, bias: Any, shape: tuple[int, ...]) -> Any:
    """y * weight + bias, with the parameters (if there are any) reshaped to `shape`."""
    if weight is not None:
        y = ops.multiply(y, ops.reshape(weight, shape))
    return y if bias is None else ops.add(y, ops.reshape(bias, shape))


def _checked_eps(module: str, eps: float) -> float:
    if not (0 <= eps < math.inf):
        raise DataError(f"{module}: eps must be finite and not negative, got {eps}.")
    return eps


def _checked_shape(module: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    found = (shape,) if isinstance(shape, int) else tuple(shape)
    if not found or min(found) < 1:
        raise ShapeError(f"{module} needs sizes of at least 1 to normalise over, got {shape}.")
    return found


def _last_axes(module: str, x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    if tuple(x.shape[-len(shape) :]) != shape:
        raise ShapeError(f"{module}: got x {describe(x)}, expected the last axes to be {shape}.")
    return tuple(range(len(x.shape) - len(shape), len(x.shape)))
