"""A small classification task and trainers for it, for the tests of the training library."""

from __future__ import annotations

from typing import Any

import numpy as np
import optimizers
from numpy.typing import NDArray

from gpubp import nn, ops, optim
from gpubp.train import Trainer


def points(samples: int = 90, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points around three centres, far apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, samples)
    centres = np.array([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    return (centres[y] + 0.2 * rng.normal(size=(samples, 2))).astype(np.float32), y


def trainer(
    backend: str = "numpy",
    dropout: float = 0.3,
    hidden: int = 8,
    optimizer: str = "Adam",
    options: dict[str, Any] | None = None,
    schedule: tuple[str, dict[str, Any]] | None = None,
    average: float | None = None,
    **more: Any,
) -> Trainer:
    """A classifier of the points, with dropout, so that its random counter matters.

    `schedule` is (name, arguments), `average` the decay of an average of the weights.
    """
    ops.manual_seed(0)
    layers = [nn.Linear(2, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 3)]
    model = nn.Sequential(*layers)
    params = optimizers.taken(optimizer, model.parameters())
    made = getattr(optim, optimizer)(params, **{"lr": 0.03, **(options or {})})
    if schedule is not None:
        name, arguments = schedule
        more["scheduler"] = getattr(optim.lr_scheduler, name)(made, **arguments)
    if average is not None:
        more["ema"] = optim.EMA(model.parameters(), decay=average)
    return Trainer(model, nn.CrossEntropyLoss(), made, backend=backend, **more)


def assert_same(a: Trainer, b: Trainer) -> None:
    """Weights, optimiser state and history are equal, bit for bit."""
    assert a.history.records == b.history.records
    assert (a.epoch, a.steps, a.position) == (b.epoch, b.steps, b.position)
    theirs = b.model.state_dict()
    for name, value in a.model.state_dict().items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    mine, other = a.step.written_slots(), b.step.written_slots()
    assert len(mine) == len(other) > 0
    for slot, twin in zip(mine, other, strict=True):
        np.testing.assert_array_equal(slot.value, twin.value, err_msg=slot.name)
