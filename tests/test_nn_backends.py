"""Models with normalisation, activations and losses of every kind: all backends end alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim

pytestmark = pytest.mark.full

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 5))
VALUES = RNG.standard_normal((40, 4))
LABELS = RNG.integers(0, 4, 40)
WEIGHT = [0.5, 1.0, 2.0, 3.0]

MIDDLES: list[Callable[[], list[nn.Module]]] = [
    lambda: [nn.BatchNorm1d(8, dtype="float64"), nn.Mish()],
    lambda: [nn.Hardswish(), nn.BatchNorm1d(8, momentum=None, dtype="float64")],
    lambda: [nn.LayerNorm(8, dtype="float64"), nn.PReLU(8, dtype="float64"), nn.Dropout(0.2)],
    lambda: [nn.SELU(), nn.RMSNorm(8, dtype="float64").requires_grad_(False)],
    lambda: [nn.Softsign(), nn.BatchNorm1d(8, affine=False, dtype="float64"), nn.ReLU6()],
    lambda: [nn.Unflatten(1, (4, 2)), nn.Softmax(1), nn.Flatten(), nn.LogSigmoid()],
]
LOSSES: list[tuple[Callable[[], nn.Module], Any]] = [
    (lambda: nn.CrossEntropyLoss(WEIGHT, ignore_index=1, label_smoothing=0.1), LABELS),
    (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), np.asarray(ops.softmax(VALUES))),
    (lambda: nn.NLLLoss(WEIGHT, ignore_index=0), LABELS),
    (lambda: nn.MultiMarginLoss(2), LABELS),
    (lambda: nn.BCEWithLogitsLoss(WEIGHT, pos_weight=WEIGHT), np.asarray(ops.sigmoid(VALUES))),
    (lambda: nn.HuberLoss(delta=0.5), VALUES),
]


def _trained(middle: int, loss: int, backend: str) -> tuple[Any, dict[str, Any]]:
    gp.manual_seed(1)
    first, last = nn.Linear(5, 8, dtype="float64"), nn.Linear(8, 4, dtype="float64")
    model = nn.Sequential(first, *MIDDLES[middle](), last)
    make, target = LOSSES[loss]
    loss_fn = make()
    # Without momentum or scaling: what a bias before a norm gets is rounding, and must stay small.
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer, backend=backend)
    losses = step.run(X, target, batch_size=16, epochs=2, shuffle=False)
    return losses, model.state_dict()


@pytest.mark.parametrize("loss", range(len(LOSSES)))
@pytest.mark.parametrize("middle", range(len(MIDDLES)))
def test_both_backends_train_alike(middle: int, loss: int) -> None:
    expected, state = _trained(middle, loss, "numpy")
    losses, found = _trained(middle, loss, "numba")
    np.testing.assert_allclose(losses, expected, 1e-10)
    for name, value in state.items():
        np.testing.assert_allclose(found[name], value, 1e-10, 1e-12, err_msg=name)
