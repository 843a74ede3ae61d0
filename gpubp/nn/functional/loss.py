"""Losses as functions: those of `gpubp.nn`, with weights that may be computed by the program."""

from __future__ import annotations

from typing import Any, TypeVar

from gpubp import ops
from gpubp.core import Array, active_graph, describe
from gpubp.core.interop import on_device
from gpubp.core.store import Slot
from gpubp.errors import ShapeError
from gpubp.nn.functional.renamed import refuse_legacy
from gpubp.nn.loss import CrossEntropyLoss, MultiMarginLoss, NLLLoss
from gpubp.nn.loss_base import Loss
from gpubp.nn.loss_binary import (
    BCELoss,
    BCEWithLogitsLoss,
    MultiLabelSoftMarginLoss,
    SoftMarginLoss,
)
from gpubp.nn.loss_pairs import CosineEmbeddingLoss, HingeEmbeddingLoss, MarginRankingLoss
from gpubp.nn.loss_values import (
    GaussianNLLLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    PoissonNLLLoss,
    SmoothL1Loss,
)
from gpubp.ops.spec import promote
from gpubp.ops.totals import whole

LossT = TypeVar("LossT", bound=Loss)


def _with(loss: LossT, **weights: Any) -> LossT:
    """The loss with these weights: constants are checked, what a program computes is taken."""
    graph = active_graph()
    for name, weight in weights.items():
        if isinstance(weight, Slot) and graph is not None:
            weight = Array(graph, graph.lift(weight))
        if isinstance(weight, Array) or on_device(weight):
            setattr(loss, name, weight)
        else:
            loss._register(name, weight)
    return loss


def _elementwise(
    make: Any, input: Any, target: Any, reduction: str, weight: Any, counted: bool = True
) -> Any:
    """A loss with a weight for each element; `counted`: the mean is over the weights."""
    loss = make(reduction)
    if weight is None:
        return loss.forward(input, target)
    values, (weight,) = make("none").forward(input, target), promote(weight)
    if tuple(weight.shape) != tuple(values.shape):
        raise ShapeError(
            f"{type(loss).__name__}: expected weight of shape {tuple(values.shape)}, got "
            f"{describe(weight)}."
        )
    values = ops.multiply(values, weight)
    if reduction == "none":
        return values
    if reduction == "mean" and not counted:
        return ops.mean(values)
    total = ops.sum(values)
    return whole(total) if reduction == "sum" else ops.mean_over(total, ops.sum(weight))


def mse_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """`nn.MSELoss`; `weight`, of input's shape, is what each element counts in the mean."""
    refuse_legacy("mse_loss", size_average, reduce)
    return _elementwise(MSELoss, input, target, reduction, weight)


def l1_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """`nn.L1Loss`; `weight`, of input's shape, is what each element counts in the mean."""
    refuse_legacy("l1_loss", size_average, reduce)
    return _elementwise(L1Loss, input, target, reduction, weight)


def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Any:
    """`nn.HuberLoss`; losses are multiplied by `weight`, of input's shape, before the mean.

    (As in torch, the mean is over the elements here, and over the weights in `mse_loss`.)
    """
    return _elementwise(lambda r: HuberLoss(r, delta), input, target, reduction, weight, False)


def smooth_l1_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Any:
    """`nn.SmoothL1Loss`."""
    refuse_legacy("smooth_l1_loss", size_average, reduce)
    return SmoothL1Loss(reduction, beta).forward(input, target)


def kl_div(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    """`nn.KLDivLoss`."""
    refuse_legacy("kl_div", size_average, reduce)
    return KLDivLoss(reduction, log_target).forward(input, target)


def poisson_nll_loss(
    input: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.PoissonNLLLoss`."""
    refuse_legacy("poisson_nll_loss", size_average, reduce)
    return PoissonNLLLoss(log_input, full, eps, reduction).forward(input, target)


def gaussian_nll_loss(
    input: Any,
    target: Any,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    """`nn.GaussianNLLLoss`; `var` may be one number."""
    if isinstance(var, (int, float)):
        var = ops.broadcast_to(ops.astype(var, input.dtype), tuple(input.shape))
    return GaussianNLLLoss(full=full, eps=eps, reduction=reduction).forward(input, target, var)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int | None = None,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """`nn.CrossEntropyLoss`: no label is ignored unless named (torch: -100)."""
    refuse_legacy("cross_entropy", size_average, reduce)
    loss = CrossEntropyLoss(
        ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )
    return _with(loss, weight=weight).forward(input, target)


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int | None = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.NLLLoss`: no label is ignored unless named (torch: -100)."""
    refuse_legacy("nll_loss", size_average, reduce)
    loss = NLLLoss(ignore_index=ignore_index, reduction=reduction)
    return _with(loss, weight=weight).forward(input, target)


def multi_margin_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.MultiMarginLoss`."""
    refuse_legacy("multi_margin_loss", size_average, reduce)
    loss = MultiMarginLoss(p, margin, reduction=reduction)
    return _with(loss, weight=weight).forward(input, target)


def binary_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.BCELoss`."""
    refuse_legacy("binary_cross_entropy", size_average, reduce)
    return _with(BCELoss(reduction=reduction), weight=weight).forward(input, target)


def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    """`nn.BCEWithLogitsLoss`."""
    refuse_legacy("binary_cross_entropy_with_logits", size_average, reduce)
    loss = _with(BCEWithLogitsLoss(reduction=reduction), weight=weight, pos_weight=pos_weight)
    return loss.forward(input, target)


def multilabel_soft_margin_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.MultiLabelSoftMarginLoss`."""
    refuse_legacy("multilabel_soft_margin_loss", size_average, reduce)
    loss = _with(MultiLabelSoftMarginLoss(reduction=reduction), weight=weight)
    return loss.forward(input, target)


def soft_margin_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Any:
    """`nn.SoftMarginLoss`."""
    refuse_legacy("soft_margin_loss", size_average, reduce)
    return SoftMarginLoss(reduction).forward(input, target)


def hinge_embedding_loss(
    input: Any,
    target: Any,
    margin: float = 1.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.HingeEmbeddingLoss`."""
    refuse_legacy("hinge_embedding_loss", size_average, reduce)
    return HingeEmbeddingLoss(margin, reduction=reduction).forward(input, target)


def margin_ranking_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.MarginRankingLoss`."""
    refuse_legacy("margin_ranking_loss", size_average, reduce)
    return MarginRankingLoss(margin, reduction=reduction).forward(input1, input2, target)


def cosine_embedding_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """`nn.CosineEmbeddingLoss`."""
    refuse_legacy("cosine_embedding_loss", size_average, reduce)
    return CosineEmbeddingLoss(margin, reduction=reduction).forward(input1, input2, target)
