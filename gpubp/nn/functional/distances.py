"""Distances, and losses of distances and sequences, as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpubp import ops
from gpubp.errors import ArgumentError
from gpubp.nn.ctc import CTCLoss
from gpubp.nn.functional.loss import cross_entropy
from gpubp.nn.functional.renamed import refuse_legacy
from gpubp.nn.loss_distances import (
    CosineSimilarity,
    MultiLabelMarginLoss,
    PairwiseDistance,
    TripletMarginLoss,
    TripletMarginWithDistanceLoss,
)
from gpubp.ops.spec import promote


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """`nn.CosineSimilarity`."""
    return CosineSimilarity(dim, eps).forward(*promote(x1, x2))


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """`nn.PairwiseDistance`."""
    return PairwiseDistance(p, eps, keepdim).forward(*promote(x1, x2))


def normalize(
    input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Any:
    """Vectors along an axis divided by their p-norm, or by eps if that is larger.

    Raises:
        ArgumentError: `out` is given: functions here return a new array.
    """
    if out is not None:
        raise ArgumentError("normalize: out is given, but functions here return a new array.")
    (x,) = promote(input, floating=True)
    return ops.divide(x, ops.maximum(ops.norm(x, p, dim, keepdims=True), eps))


def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.TripletMarginLoss`."""
    refuse_legacy("triplet_margin_loss", size_average, reduce)
    loss = TripletMarginLoss(margin, p, eps, swap, reduction=reduction)
    return loss.forward(*promote(anchor, positive, negative))


def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Callable[..., Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """`nn.TripletMarginWithDistanceLoss`."""
    loss = TripletMarginWithDistanceLoss(
        distance_function=distance_function, margin=margin, swap=swap, reduction=reduction
    )
    return loss.forward(*promote(anchor, positive, negative))


def multilabel_margin_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.MultiLabelMarginLoss`."""
    refuse_legacy("multilabel_margin_loss", size_average, reduce)
    return MultiLabelMarginLoss(reduction=reduction).forward(*promote(input), *promote(target))


def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    """`nn.CTCLoss`."""
    given = [promote(x)[0] for x in (log_probs, targets, input_lengths, target_lengths)]
    return CTCLoss(blank, reduction, zero_infinity).forward(*given)


def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
) -> Any:
    """`cross_entropy` of a linear layer's logits.

    Args:
        input: (N, in_features) or (in_features,).
        linear_weight: (classes, in_features).
        target, weight, reduction, ignore_index, label_smoothing: as for `cross_entropy`.
        linear_bias: (classes,).
        options: how torch cuts the work in pieces; None alone is accepted.

    Raises:
        ArgumentError: options are given.
    """
    if options is not None:
        raise ArgumentError("linear_cross_entropy: options are given, expected None.")
    logits = ops.linear(input, linear_weight, linear_bias)
    return cross_entropy(
        logits,
        target,
        weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
