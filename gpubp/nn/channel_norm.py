"""Normalisation of channels: over the batch (BatchNorm), or each image by itself (InstanceNorm).

Running statistics are buffers, which train mode moves on with every call: at once on NumPy arrays,
at the end of each step in a compiled program.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import DataError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.init import filled
from gpubp.nn.module import Module
from gpubp.nn.normalization import checked_eps
from gpubp.nn.parameter import Parameter
from gpubp.ops.across import across_batch
from gpubp.ops.norm import require_several


class ChannelNorm(Module):
    """Base: the parameters and the running statistics of channels.

    Attributes:
        batched: numbers of axes that x may have with a batch.
        single: of one image without a batch; -1 where there is none.
        shapes: the same in words.
    """

    batched: ClassVar[tuple[int, ...]]
    single: ClassVar[int] = -1
    shapes: ClassVar[str]

    def _set(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: Any,
        bias: bool,
    ) -> None:
        name = type(self).__name__
        if num_features < 1:
            raise ShapeError(f"{name} needs num_features of at least 1, got {num_features}.")
        if momentum is not None and not 0 <= momentum <= 1:
            raise DataError(f"{name}: momentum must be in [0, 1] or None, got {momentum}.")
        self.num_features = num_features
        self.eps = checked_eps(name, eps)
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

    def reset_running_stats(self) -> None:
        """Start the running statistics again: mean 0, variance 1, no batches."""
        if self.track_running_stats and self.running_mean is not None:
            self.running_mean.value = np.zeros(self.num_features)
            self.running_var.value = np.ones(self.num_features)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.value = 0

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def channels_of(self, x: Any) -> int:
        """How many channels x has. Raises ShapeError if it has another number of axes."""
        axes = len(x.shape)
        if axes not in self.batched and axes != self.single:
            raise self._misshapen(x)
        return int(x.shape[0 if axes == self.single else 1])

    def _check(self, x: Any, channels: bool = True) -> None:
        """Raise ShapeError unless x has the right axes, and the right number of channels."""
        if self.channels_of(x) != self.num_features and channels:
            raise self._misshapen(x)

    def _misshapen(self, x: Any) -> ShapeError:
        shapes = self.shapes.format(c=self.num_features or "C")
        return ShapeError(f"{type(self).__name__}: got x {describe(x)}, expected {shapes}.")


class BatchNorm(ChannelNorm):
    """Base of BatchNorm1d to BatchNorm3d."""

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
        self._set(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map x to the same shape.

        Raises:
            ShapeError: another shape, or one value a channel where the batch's variance is needed.
        """
        self._check(x)
        none = self.running_mean is None and self.running_var is None
        own = self.training or none
        if own and across_batch() is None:
            require_several(type(self).__name__, x, (0, *range(2, len(x.shape))))
        used = not none and (not self.training or self.track_running_stats)
        return ops.batch_norm(
            x,
            self.running_mean if used else None,
            self.running_var if used else None,
            self.weight,
            self.bias,
            own,
            self._counted() if own and self.track_running_stats else 0.0,
            self.eps,
        )

    def _counted(self) -> Any:
        """Count the batch, if they are counted; returns its share in the running statistics."""
        count = self.num_batches_tracked
        if count is not None and self.training:
            ops.assign(count, ops.add(count, 1))
            if self.momentum is None and self.running_mean is not None:
                return ops.divide(1.0, ops.astype(count, self.running_mean.dtype))
        return self.momentum or 0.0


class BatchNorm1d(BatchNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias, with statistics over the batch.

    Ioffe & Szegedy, "Batch Normalization" (2015, arXiv:1502.03167). In train mode mean and variance
    are the batch's, and the running ones move: running = (1 - momentum) running + momentum batch,
    with the batch's unbiased variance. In eval mode the running ones are used.

    Args:
        num_features: C of the input (N, C) or (N, C, L).
        eps: added to the variance.
        momentum: share of the new batch in the running statistics; None: their plain average.
        affine: whether to scale by `weight` and add `bias`.
        track_running_stats: if False, there are no running statistics, and the batch's are used in
            eval mode too. Set to False later, the running ones stay as they are, and eval mode uses
            them; set them to None to be rid of them, as in torch.
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

    batched = (2, 3)
    shapes = "(N, {c}) or (N, {c}, L)"


class BatchNorm2d(BatchNorm):
    """BatchNorm1d for (N, C, H, W); arguments and state are the same."""

    batched = (4,)
    shapes = "(N, {c}, H, W)"


class BatchNorm3d(BatchNorm):
    """BatchNorm1d for (N, C, D, H, W); arguments and state are the same."""

    batched = (5,)
    shapes = "(N, {c}, D, H, W)"


class InstanceNorm(ChannelNorm):
    """Base of InstanceNorm1d to InstanceNorm3d."""

    @checked
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        dtype: Any = "float32",
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self._set(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    @of_arrays
    def forward(self, x: Any) -> Any:
        """Map x to the same shape.

        Raises:
            ShapeError: another shape (where nothing is kept of channels, as by default, there may
                be any number of them), or one value a channel where its variance is needed.
        """
        self._check(x, self.weight is not None or self.running_mean is not None)
        single = len(x.shape) == self.single
        images = ops.expand_dims(x, 0) if single else x
        own = self.training or not self.track_running_stats
        if own:
            require_several(type(self).__name__, images, tuple(range(2, len(images.shape))))
        # As in torch, they do not move without a momentum, and their batches are not counted.
        used = not own or self.momentum is not None
        y = ops.instance_norm(
            images,
            self.running_mean if used else None,
            self.running_var if used else None,
            self.weight,
            self.bias,
            own,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return ops.reshape(y, x.shape) if single else y


class InstanceNorm1d(InstanceNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias, with statistics of each image's channels.

    Ulyanov, Vedaldi & Lempitsky, "Instance Normalization" (2016, arXiv:1607.08022).

    Args:
        num_features: C of the input (N, C, L) or (C, L).
        eps: added to the variance.
        momentum: share of the new batch in the running statistics; None: they never move.
        affine: whether to scale by `weight` and add `bias`.
        track_running_stats: keep running statistics (means over the images of a batch, of unbiased
            variances) in train mode, and use them in eval mode.
        dtype: float32 or float64.
        bias: whether to add `bias`, where affine.

    Attributes:
        weight, bias: parameters of shape (C,), first 1 and 0; or None.
        running_mean, running_var: buffers of shape (C,), first 0 and 1; or None.
        num_batches_tracked: int64 scalar buffer, which stays 0 as in torch; or None.

    Raises:
        ShapeError: num_features is below 1.
        DataError: eps or momentum is out of range.
    """

    batched, single = (3,), 2
    shapes = "(N, {c}, L) or ({c}, L)"


class InstanceNorm2d(InstanceNorm):
    """InstanceNorm1d for (N, C, H, W) or (C, H, W); arguments and state are the same."""

    batched, single = (4,), 3
    shapes = "(N, {c}, H, W) or ({c}, H, W)"


class InstanceNorm3d(InstanceNorm):
    """InstanceNorm1d for (N, C, D, H, W) or (C, D, H, W); arguments and state are the same."""

    batched, single = (5,), 4
    shapes = "(N, {c}, D, H, W) or ({c}, D, H, W)"
