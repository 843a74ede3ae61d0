"""Populations in gpubp: all members at once, and lone models one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpubp as gp
from common.case import Case
from common.population_tasks import STEPS, PopulationTask, Weights
from gpubp import nn, optim


def _model(task: PopulationTask, weights: Weights) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (W, b) in enumerate(weights):
        linear = nn.Linear(W.shape[1], W.shape[0])
        linear.weight.value, linear.bias.value = W, b
        layers += [linear] if i == len(weights) - 1 else [linear, nn.ReLU()]
    return nn.Sequential(*layers)


def _loss(model: nn.Module) -> Any:
    loss_fn = nn.CrossEntropyLoss()
    return lambda x, t: loss_fn(model(x), t)


class Members(Case):
    """All of them as one population."""

    def __init__(self, task: PopulationTask) -> None:
        self.units = float(task.members * STEPS)
        self._task, self._data, self._orders = task, task.data(), list(task.orders())
        model = _model(task, task.weights(0))
        self._starts = [_model(task, task.weights(i)).state_dict() for i in range(task.members)]
        self._population = gp.compile_population(
            _loss(model),
            optim.SGD(model.parameters()),
            n=task.members,
            model=model,
            initial=self._starts,
            lr=task.rates(),
        )
        self._checked = False

    def reset(self) -> None:
        """First weights again."""
        for i, state in enumerate(self._starts):
            self._population.load_state_dict(i, state)

    def run(self) -> Any:
        """One epoch."""
        losses = self._population.run(
            *self._data,
            batch_size=self._task.batch,
            orders=self._orders,
            checked=self._checked,
        )
        self._checked = True
        return losses

    def check(self) -> NDArray[Any]:
        """All losses."""
        self.reset()
        return np.asarray(self.run(), np.float64)


class Loop(Case):
    """Lone models, each with a step of its own, one after the other with all workers."""

    def __init__(self, task: PopulationTask, members: int | None = None) -> None:
        members = task.members if members is None else members
        self.units = float(members * STEPS)
        self._task, self._data, self._orders = task, task.data(), task.orders()
        self._models = [_model(task, task.weights(i)) for i in range(members)]
        self._starts = [model.state_dict() for model in self._models]
        rates = task.rates()
        self._steps = [
            gp.compile_step(_loss(m), optim.SGD(m.parameters(), lr=float(rates[i])))
            for i, m in enumerate(self._models)
        ]
        self._checked = False

    def reset(self) -> None:
        """First weights again."""
        for model, state in zip(self._models, self._starts):
            model.load_state_dict(state)

    def run(self) -> Any:
        """One epoch of each."""
        found = [
            step.run(*self._data, batch_size=self._task.batch, order=order, checked=self._checked)
            for step, order in zip(self._steps, self._orders)
        ]
        self._checked = True
        return np.stack(found)

    def check(self) -> NDArray[Any]:
        """All losses."""
        self.reset()
        return np.asarray(self.run(), np.float64)


def build(variant: str, task: PopulationTask) -> Case:
    """The case of a variant."""
    if variant == "gpubp":
        return Members(task)
    return Loop(task, 1 if variant == "gpubp-one" else None)


def versions() -> dict[str, str]:
    """Nothing that results do not say already."""
    return {}
