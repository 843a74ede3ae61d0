"""Members of populations, and the same models trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.base import Backend

SAMPLES, FEATURES, CLASSES = 150, 6, 3
loss_fn = nn.CrossEntropyLoss()


def data(seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Samples and labels."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(SAMPLES, FEATURES)).astype(np.float32)
    return X, rng.integers(0, CLASSES, SAMPLES)


def make(drop: Any = 0.2) -> nn.Sequential:
    """A small model with buffers and random numbers of its own."""
    return nn.Sequential(
        nn.Linear(FEATURES, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(drop),
        nn.Linear(16, CLASSES),
    )


def loss_of(model: nn.Module) -> Any:
    """What is compiled."""
    return lambda x, t: loss_fn(model(x), t)


class Alone:
    """One model, trained by a step of its own.

    Args:
        seed: of weights, order and random numbers.
        rule: makes the optimiser from parameters.
        backend: that runs it.
        numbers: of the optimiser, held in slots as a population holds them.
        drop: of the model.
        options: of the step.
    """

    def __init__(
        self,
        seed: int,
        rule: Any = optim.Adam,
        backend: Backend | str | None = None,
        numbers: dict[str, float] | None = None,
        drop: Any = 0.2,
        **options: Any,
    ) -> None:
        gp.manual_seed(seed)
        self.model = make(drop)
        self.optimizer = rule(self.model.parameters())
        group = self.optimizer.param_groups[0]
        for name, value in (numbers or {}).items():
            group.in_slot(name).value = np.float64(value)
        make_schedule = options.pop("scheduler", None)
        if make_schedule is not None:
            options["scheduler"] = make_schedule(self.optimizer)
        self.step = gp.compile_step(
            loss_of(self.model), self.optimizer, seed=seed, backend=backend, **options
        )
        self.random = gp.ops.random.default_generator.state.value.copy()

    def run(self, *data: Any, **options: Any) -> NDArray[Any]:
        """Losses of a run, which has the random numbers to itself."""
        state = gp.ops.random.default_generator.state
        state.value = self.random
        losses: NDArray[Any] = self.step.run(*data, **options)
        self.random = state.value.copy()
        return losses

    def state(self) -> dict[str, NDArray[Any]]:
        """Weights and buffers."""
        return self.model.state_dict()


def population(
    n: int, rule: Any = optim.Adam, backend: Backend | str | None = None, **options: Any
) -> gp.Population:
    """A population of such models."""
    model = make(options.pop("drop", 0.2))
    options.setdefault("initial", make)
    return gp.compile_population(
        loss_of(model), rule(model.parameters()), n=n, model=model, backend=backend, **options
    )


def same(state: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    """Bit for bit, NaN included."""
    return set(state) == set(other) and all(
        np.array_equal(state[name].view(np.uint8), other[name].view(np.uint8))
        if state[name].ndim
        else np.array_equal(state[name], other[name], equal_nan=True)
        for name in state
    )


def as_bits(rows: Sequence[Any]) -> list[bytes]:
    """For comparisons of losses, NaN included."""
    return [np.ascontiguousarray(row).tobytes() for row in rows]
