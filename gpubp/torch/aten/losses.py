"""Rules of losses. ATen numbers reductions: 0 none, 1 mean, 2 sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.nn import functional
from gpubp.torch.rules import rule

_REDUCTIONS = ("none", "mean", "sum")


@rule("cross_entropy_loss")
def cross_entropy(
    x: Any,
    target: Any,
    weight: Any = None,
    reduction: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    """Of labels or of probabilities."""
    ignored = ignore_index if np.dtype(target.dtype).kind == "i" else None
    return functional.cross_entropy(
        x,
        target,
        weight,
        ignore_index=ignored,
        reduction=_REDUCTIONS[reduction],
        label_smoothing=label_smoothing,
    )


@rule("nll_loss", "nll_loss2d", "nll_loss_nd")
def nll_loss(
    x: Any, target: Any, weight: Any = None, reduction: int = 1, ignore_index: int = -100
) -> Any:
    """Of labels, from logarithms of probabilities."""
    return functional.nll_loss(
        x, target, weight, ignore_index=ignore_index, reduction=_REDUCTIONS[reduction]
    )


@rule("binary_cross_entropy")
def binary_cross_entropy(x: Any, target: Any, weight: Any = None, reduction: int = 1) -> Any:
    """Of probabilities."""
    return functional.binary_cross_entropy(x, target, weight, reduction=_REDUCTIONS[reduction])


@rule("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    x: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 1
) -> Any:
    """Of logits."""
    return functional.binary_cross_entropy_with_logits(
        x, target, weight, reduction=_REDUCTIONS[reduction], pos_weight=pos_weight
    )


def _plain(fn: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """(x, target, reduction, options by these names)."""

    def loss(x: Any, target: Any, reduction: int = 1, *rest: Any, **options: Any) -> Any:
        options = {**dict(zip(names, rest)), **options}
        return fn(x, target, reduction=_REDUCTIONS[reduction], **options)

    return loss


rule("mse_loss")(_plain(functional.mse_loss))
rule("l1_loss")(_plain(functional.l1_loss))
rule("soft_margin_loss")(_plain(functional.soft_margin_loss))
rule("multilabel_margin_loss")(_plain(functional.multilabel_margin_loss))
rule("smooth_l1_loss")(_plain(functional.smooth_l1_loss, "beta"))
rule("huber_loss")(_plain(functional.huber_loss, "delta"))


@rule("kl_div")
def kl_div(x: Any, target: Any, reduction: int = 1, log_target: bool = False) -> Any:
    """From logarithms of probabilities."""
    return functional.kl_div(x, target, reduction=_REDUCTIONS[reduction], log_target=log_target)


@rule("poisson_nll_loss")
def poisson_nll_loss(
    x: Any, target: Any, log_input: bool, full: bool, eps: float, reduction: int
) -> Any:
    """Of counts."""
    return functional.poisson_nll_loss(
        x, target, log_input, full, eps=eps, reduction=_REDUCTIONS[reduction]
    )


@rule("hinge_embedding_loss")
def hinge_embedding_loss(x: Any, target: Any, margin: float = 1.0, reduction: int = 1) -> Any:
    """Of distances."""
    return functional.hinge_embedding_loss(x, target, margin, reduction=_REDUCTIONS[reduction])


@rule("margin_ranking_loss")
def margin_ranking_loss(
    a: Any, b: Any, target: Any, margin: float = 0.0, reduction: int = 1
) -> Any:
    """Of pairs of scores."""
    return functional.margin_ranking_loss(a, b, target, margin, reduction=_REDUCTIONS[reduction])


@rule("cosine_embedding_loss")
def cosine_embedding_loss(
    a: Any, b: Any, target: Any, margin: float = 0.0, reduction: int = 1
) -> Any:
    """Of pairs of directions."""
    return functional.cosine_embedding_loss(a, b, target, margin, reduction=_REDUCTIONS[reduction])


@rule("triplet_margin_loss")
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int = 1,
) -> Any:
    """Of triples."""
    return functional.triplet_margin_loss(
        anchor, positive, negative, margin, p, eps, swap, reduction=_REDUCTIONS[reduction]
    )


@rule("multi_margin_loss")
def multi_margin_loss(
    x: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: int = 1
) -> Any:
    """Of labels and scores."""
    return functional.multi_margin_loss(
        x, target, int(p), margin, weight, reduction=_REDUCTIONS[reduction]
    )


@rule("ctc_loss")
def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    reduction: int,
    zero_infinity: bool,
) -> Any:
    """Of logarithms of probabilities, (T, N, C) or (T, C), and padded labels."""
    return functional.ctc_loss(
        log_probs,
        targets,
        input_lengths,
        target_lengths,
        blank,
        _REDUCTIONS[reduction],
        zero_infinity,
    )


def reduced(value: Any, reduction: int) -> Any:
    """By ATen's number."""
    return value if reduction == 0 else (ops.mean if reduction == 1 else ops.sum)(value)
