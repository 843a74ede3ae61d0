"""Populations in JAX: vmap, over members, of a scan over the steps of an epoch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from common.case import Case
from common.population_tasks import STEPS, PopulationTask


def _loss(weights: Any, X: Any, y: Any) -> Any:
    for i, (W, b) in enumerate(weights):
        X = X @ W.T + b
        X = jax.nn.relu(X) if i < len(weights) - 1 else X
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(X), y[:, None], axis=1))


class Members(Case):
    """All members in one program."""

    def __init__(self, task: PopulationTask) -> None:
        self.units = float(task.members * STEPS)
        each = [task.weights(i) for i in range(task.members)]
        self._weights = [
            (
                jnp.stack([own[layer][0] for own in each]),
                jnp.stack([own[layer][1] for own in each]),
            )
            for layer in range(len(task.layers) - 1)
        ]
        X, y = (jnp.asarray(a) for a in task.data())
        self._rates = jnp.asarray(task.rates(), jnp.float32)
        self._orders = jnp.asarray(task.orders().reshape(task.members, STEPS, task.batch))

        def epoch(weights: Any, order: Any, rate: Any) -> Any:
            def step(weights: Any, rows: Any) -> Any:
                loss, grads = jax.value_and_grad(_loss)(weights, X[rows], y[rows])
                return jax.tree.map(lambda w, g: w - rate * g, weights, grads), loss

            return jax.lax.scan(step, weights, order)

        self._epoch = jax.jit(jax.vmap(epoch))

    def run(self) -> Any:
        """One epoch, from the first weights."""
        weights, losses = self._epoch(self._weights, self._orders, self._rates)
        jax.block_until_ready((weights, losses))
        return losses

    def check(self) -> NDArray[Any]:
        """All losses."""
        return np.asarray(self.run(), np.float64)


def build(variant: str, task: PopulationTask) -> Case:
    """The case."""
    return Members(task)


def versions() -> dict[str, str]:
    """JAX's."""
    return {"jax": jax.__version__}
