"""Losses of every kind of count, with their targets: batches of them add up to one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import nn, ops

RNG = np.random.default_rng(3)
N = 23
X = RNG.normal(size=(N, 5))
Y = RNG.integers(0, 3, N)
IGNORED = np.where(np.isin(np.arange(N), [0, 1, 2, 3, 9, 14]), -100, Y)
SOFT = RNG.dirichlet(np.ones(3), N)
WEIGHT = np.array([1.0, 5.0, 0.2])

LOSSES: dict[str, tuple[Any, Any]] = {
    "mean": (nn.CrossEntropyLoss(), Y),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), Y),
    "ignored": (nn.CrossEntropyLoss(ignore_index=-100), IGNORED),
    "ignored, summed": (nn.CrossEntropyLoss(ignore_index=-100, reduction="sum"), IGNORED),
    "weight": (nn.CrossEntropyLoss(WEIGHT), Y),
    "weight, ignored, smoothed": (
        nn.CrossEntropyLoss(WEIGHT, ignore_index=-100, label_smoothing=0.2),
        IGNORED,
    ),
    "weight, an index that is a class": (nn.CrossEntropyLoss(WEIGHT, ignore_index=1), Y),
    "probabilities": (nn.CrossEntropyLoss(WEIGHT), SOFT),
    "nll": (nn.NLLLoss(WEIGHT, ignore_index=-100), IGNORED),
    "nll, plain": (nn.NLLLoss(), Y),
    "margin": (nn.MultiMarginLoss(weight=WEIGHT), Y),
    "batchmean": (nn.KLDivLoss("batchmean"), SOFT),
    "kl": (nn.KLDivLoss(), SOFT),
    "squares": (nn.MSELoss(), SOFT),
    "squares, summed": (nn.MSELoss("sum"), SOFT),
    "yes or no": (nn.BCEWithLogitsLoss(WEIGHT, pos_weight=2 * WEIGHT), SOFT),
    "several yes or no": (nn.MultiLabelSoftMarginLoss(WEIGHT), np.round(SOFT)),
}


class _Wrapped(nn.Module):
    """A user's module around losses: half of one, and a penalty."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss(ignore_index=-100)

    def forward(self, outputs: Any, y: Any) -> Any:
        return 0.5 * self.loss(outputs, y) + 0.01 * ops.mean(ops.square(outputs))


def _masked(outputs: Any, y: Any) -> Any:
    """A loss of the user's own, over the labels above 0."""
    kept = ops.greater(y, 0)
    each = ops.where(kept, ops.sum(ops.square(outputs), -1), 0.0)
    return ops.mean_over(ops.sum(each), ops.sum(ops.astype(kept, str(each.dtype))))


_A, _B = nn.CrossEntropyLoss(ignore_index=-100), nn.NLLLoss(WEIGHT, ignore_index=-100)
_C, _S = nn.CrossEntropyLoss(ignore_index=-100, reduction="sum"), nn.MSELoss("sum")
OWN: dict[str, tuple[Any, Any]] = {
    "wrapped": (_Wrapped(), IGNORED),
    "masked": (_masked, Y),
    "two counts": (lambda o, y: _A(o, y) - 2.0 * _B(o * 0.5, y), IGNORED),
    "one loss in two ways": (lambda o, y: _A(o, y) + 0.1 * _C(o, y), IGNORED),
    "one count twice": (lambda o, y: (_A(o, y) + _A(o * 2.0, y)) / 2.0, IGNORED),
    "all kinds": (
        lambda o, y: -_A(o, y) + _B(o, y) * 3 + ops.mean(ops.square(o)) + 0.1 * _S(o, o * 0.3),
        IGNORED,
    ),
}
ALL = {**LOSSES, **OWN}
