"""Cross entropies with a linear layer of their own: plain, and in clusters of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.collection import ModuleList
from gpubp.nn.container import Sequential
from gpubp.nn.functional.loss import cross_entropy
from gpubp.nn.linear import Linear
from gpubp.nn.loss import CrossEntropyLoss
from gpubp.nn.module import Module
from gpubp.nn.parameter import Buffer


class LinearCrossEntropyLoss(Module):
    """`CrossEntropyLoss` of a linear layer's logits.

    Args:
        in_features: the size of the input's last axis.
        num_classes: how many logits.
        out_features: sizes of further axes of logits and labels, as images have them.
        bias: whether they have a bias.
        reduction, weight, ignore_index, label_smoothing: as for `CrossEntropyLoss`.
        dtype: float32 or float64.

    Attributes:
        linear: the layer.
    """

    @checked
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: Sequence[int] = (),
        bias: bool = False,
        reduction: str = "mean",
        weight: ArrayLike | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.in_features, self.num_classes = in_features, num_classes
        self.out_features, self.bias = tuple(out_features), bias
        self.reduction, self.ignore_index = reduction, ignore_index
        self.label_smoothing = label_smoothing
        CrossEntropyLoss(weight, reduction=reduction, label_smoothing=label_smoothing)
        self.weight = None if weight is None else Buffer(np.asarray(weight))
        size = num_classes * math.prod(self.out_features)
        self.linear = Linear(in_features, size, bias=bias, dtype=dtype)

    @of_arrays
    def forward(self, input: Any, target: Any) -> Any:
        """Inputs (N, in_features) or (in_features,), and labels or probabilities."""
        logits = self.linear(input)
        if self.out_features:
            shape = (*logits.shape[:-1], self.num_classes, *self.out_features)
            logits = ops.reshape(logits, shape)
        ignored = self.ignore_index
        if ignored is None and target.dtype.kind in "iu":
            ignored = -100  # torch's
        return cross_entropy(
            logits,
            target,
            self.weight,
            ignore_index=ignored,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        names = ("in_features", "num_classes", "out_features", "bias", "reduction")
        shown = [f"{n}={getattr(self, n)}" for n in (*names, "ignore_index", "label_smoothing")]
        return ", ".join([*shown, "options=None"])


class AdaptiveOutput(NamedTuple):
    """What `AdaptiveLogSoftmaxWithLoss` gives.

    Attributes:
        output: the logarithm of each target's probability, (N,).
        loss: minus their mean.
    """

    output: Any
    loss: Any


class AdaptiveLogSoftmaxWithLoss(Module):
    """A softmax over many classes, of which rare ones stand in clusters with fewer features.

    Grave et al., "Efficient softmax approximation for GPUs" (2017). All logarithms are computed;
    programs have static shapes.

    Args:
        in_features: the size of the input's last axis.
        n_classes: how many; the most frequent ones first.
        cutoffs: where clusters begin, rising, from 1 to n_classes - 1.
        div_value: each cluster has so many times fewer features than the one before.
        head_bias: whether the first layer has a bias.
        dtype: float32 or float64.

    Raises:
        ArgumentError: cutoffs do not rise, or leave the classes.
    """

    @checked
    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        ends = [*cutoffs]
        if not ends or ends != sorted(set(ends)) or ends[0] < 1 or ends[-1] > n_classes - 1:
            raise ArgumentError(
                f"AdaptiveLogSoftmaxWithLoss: cutoffs are {ends}, expected rising numbers from 1 "
                f"to {n_classes - 1}."
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs = (*ends, n_classes)
        clusters = len(ends)
        self.shortlist_size, self.n_clusters = ends[0], clusters
        self.head = Linear(in_features, ends[0] + clusters, bias=head_bias, dtype=dtype)
        self.tail = ModuleList()
        for i in range(clusters):
            hidden = int(in_features // (div_value ** (i + 1)))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(
                    Linear(in_features, hidden, bias=False, dtype=dtype),
                    Linear(hidden, size, bias=False, dtype=dtype),
                )
            )

    @of_arrays
    def forward(self, input: Any, target: Any) -> AdaptiveOutput:
        """Inputs (N, in_features) or (in_features,), and labels (N,) or ().

        Raises:
            ShapeError: other shapes.
        """
        if tuple(target.shape) != tuple(input.shape[:-1]) or len(input.shape) not in (1, 2):
            raise ShapeError(
                f"AdaptiveLogSoftmaxWithLoss: got {describe(input)} and labels "
                f"{describe(target)}, expected (N, {self.in_features}) and (N,)."
            )
        single = len(input.shape) == 1
        rows = ops.reshape(input, (1, -1)) if single else input
        labels = ops.reshape(target, (-1, 1))
        found = ops.take_along_dim(self._log_prob(rows), labels, 1)
        found = ops.reshape(found, () if single else (-1,))
        return AdaptiveOutput(found, ops.negative(ops.mean(found)))

    @of_arrays
    def log_prob(self, input: Any) -> Any:
        """The logarithms of all classes' probabilities, (N, n_classes)."""
        return self._log_prob(input)

    @of_arrays
    def predict(self, input: Any) -> Any:
        """The most likely class of each input, (N,)."""
        return ops.argmax(self._log_prob(input), -1)

    def _log_prob(self, x: Any) -> Any:
        head = ops.log_softmax(self.head(x))
        parts = [head[..., : self.shortlist_size]]
        for i, tail in enumerate(self.tail):
            cluster = head[..., self.shortlist_size + i]
            parts.append(ops.add(ops.log_softmax(tail(x)), ops.expand_dims(cluster, -1)))
        return ops.concat(parts, -1)
