"""What many models are trained on: members of one architecture, or candidates of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import unknown_name

LR = 0.01
STEPS = 50
Weights = list[tuple[NDArray[Any], NDArray[Any]]]


@dataclass(frozen=True)
class PopulationTask:
    """Members with weights, orders and rates of their own, trained by SGD for one epoch.

    Attributes:
        name: of the row.
        layers: sizes, inputs and outputs included.
        batch: samples a step.
        members: how many.
    """

    name: str
    layers: tuple[int, ...]
    batch: int
    members: int = 64

    @property
    def samples(self) -> int:
        return self.batch * STEPS

    def data(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Samples (float32) and labels (int64)."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(self.samples, self.layers[0])).astype(np.float32)
        return X, rng.integers(0, self.layers[-1], self.samples)

    def weights(self, member: int) -> Weights:
        """(outputs, inputs) and (outputs,) of each layer."""
        rng = np.random.default_rng(1 + member)
        found = []
        for inputs, outputs in zip(self.layers[:-1], self.layers[1:]):
            bound = inputs**-0.5
            W = rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
            found.append((W, rng.uniform(-bound, bound, outputs).astype(np.float32)))
        return found

    def orders(self) -> NDArray[np.int64]:
        """(members, samples)."""
        rng = np.random.default_rng(2)
        return np.stack([rng.permutation(self.samples) for _ in range(self.members)])

    def rates(self) -> NDArray[np.float64]:
        """(members,)."""
        return LR * np.linspace(0.5, 1.5, self.members)

    def __str__(self) -> str:
        return f"{self.name} ({self.members} members)"


@dataclass(frozen=True)
class SearchTask:
    """A grid search over 12 settings of an MLP on scikit-learn's digits, 5 folds.

    Attributes:
        name: of the row.
        jobs: threads, or processes.
        iterations: epochs of each fit, at most.
    """

    name: str
    jobs: int
    iterations: int = 50

    def grid(self) -> dict[str, list[Any]]:
        """The settings."""
        return {
            "alpha": [1e-4, 1e-3],
            "learning_rate_init": [1e-3, 3e-3, 1e-2],
            "hidden_layer_sizes": [(100,), (50, 50)],
        }

    def __str__(self) -> str:
        return self.name


MEMBERS = {
    "rl": PopulationTask("rl", (8, 64, 64, 4), 64),
    "digits": PopulationTask("digits", (64, 100, 10), 200),
}
SEARCH = "search"


def find_tasks(names: list[str], jobs: int) -> list[PopulationTask | SearchTask]:
    """Tasks by name.

    Raises:
        UnknownNameError: no such row.
    """
    for name in names:
        if name not in MEMBERS and name != SEARCH:
            raise unknown_name("row", name, [*MEMBERS, SEARCH])
    return [SearchTask(SEARCH, jobs) if name == SEARCH else MEMBERS[name] for name in names]
