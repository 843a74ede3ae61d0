"""JAX: `jax-step` calls a jitted step, `jax-scan` runs all steps of a call in one `lax.scan`.

Both keep the data on the device, gather inside the compiled code and donate their buffers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from common.case import Case
from common.jax_nets import forward, statistics, turned
from common.nets import Network
from common.rows import Task, check_order, make_data, make_order, make_weights

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


def _loss(params: Any, stats: Any, x: Any, y: Any, network: Network, dtype: Any) -> Any:
    logits, stats = forward(network, params, stats, x, dtype)
    if y.dtype == jnp.float32:
        return jnp.mean((logits - y) ** 2), stats
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y.reshape(-1, 1), axis=1)
    return -jnp.mean(picked), stats


def _sgd(params: Any, state: Any, grads: Any, lr: float) -> tuple[Any, Any]:
    return jax.tree.map(lambda w, g: w - lr * g, params, grads), state


def _adam(params: Any, state: Any, grads: Any, lr: float) -> tuple[Any, Any]:
    """Kingma & Ba 2015, with the order of arithmetic of torch.optim.Adam."""
    t, m, v = state
    t = t + 1
    m = jax.tree.map(lambda m, g: _BETA1 * m + (1 - _BETA1) * g, m, grads)
    v = jax.tree.map(lambda v, g: _BETA2 * v + (1 - _BETA2) * g * g, v, grads)
    size, root = lr / (1 - _BETA1**t), jnp.sqrt(1 - _BETA2**t)
    new = jax.tree.map(lambda w, m, v: w - size * m / (jnp.sqrt(v) / root + _EPS), params, m, v)
    return new, (t, m, v)


class JaxCase(Case):
    """Data on the device and the initial carry (params, state, statistics)."""

    def __init__(self, task: Task) -> None:
        self._row = task.row
        self.units = task.row.steps
        X, y = make_data(task.row)
        if task.row.image:
            X = X.transpose(0, 2, 3, 1)
        self._X, self._y = (
            jnp.asarray(X),
            jnp.asarray(y if task.row.ratings else y.astype(np.int32)),
        )
        self._order = self._batches(make_order(task.row))
        self._adam = task.optimizer == "adam"
        update = partial(_adam if self._adam else _sgd, lr=task.lr)
        dtype = jnp.bfloat16 if task.row.precision == "bf16" else jnp.float32
        loss = partial(_loss, network=task.row.network, dtype=dtype)
        gradient = jax.value_and_grad(loss, has_aux=True)
        if jax.default_backend() == "gpu":
            exact = "tensorfloat32" if task.row.precision == "tf32" else "highest"
            jax.config.update("jax_default_matmul_precision", exact)

        def step(carry: Any, X: Any, y: Any, index: Any) -> tuple[Any, Any]:
            params, state, stats = carry
            (loss, stats), grads = gradient(params, stats, X[index], y[index])
            return (*update(params, state, grads), stats), loss

        self._one_step = step

    def _batches(self, order: NDArray[np.int64]) -> NDArray[np.int32]:
        return order.reshape(-1, self._row.batch).astype(np.int32)

    def reset(self) -> None:
        """Fresh buffers: the ones before were donated."""
        row = self._row
        params = jax.tree.map(jnp.array, turned(row.network, row.sample, make_weights(row)))
        state: Any = ()
        if self._adam:
            zeros = jax.tree.map(jnp.zeros_like, params)
            state = (jnp.zeros((), jnp.float32), zeros, jax.tree.map(jnp.copy, zeros))
        stats = statistics(row.network, row.sample)
        self._carry = jax.block_until_ready((params, state, stats))

    def run(self) -> NDArray[Any]:
        """All steps of a call; returns every step's loss."""
        return self._run(self._order)

    def check(self) -> NDArray[Any]:
        """The losses of one epoch in the order of the data, then the running statistics."""
        self.reset()
        losses = self._run(self._batches(check_order(self._row)))
        return np.concatenate([losses, *(a for pair in self._carry[2] for a in pair)])

    def _run(self, order: NDArray[np.int32]) -> NDArray[Any]:
        raise NotImplementedError


class StepCase(JaxCase):
    """A Python loop over a jitted step; losses are written into a donated array on the device."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)

        def step(carry: Any, losses: Any, i: Any, X: Any, y: Any, index: Any) -> Any:
            carry, loss = self._one_step(carry, X, y, index)
            return carry, losses.at[i].set(loss), i + 1

        self._step = jax.jit(step, donate_argnums=(0, 1, 2))

    def _run(self, order: NDArray[np.int32]) -> NDArray[Any]:
        carry, losses, i = self._carry, jnp.zeros(len(order)), jnp.zeros((), jnp.int32)
        for index in order:
            carry, losses, i = self._step(carry, losses, i, self._X, self._y, index)
        self._carry = carry
        return np.asarray(losses)


class ScanCase(JaxCase):
    """One call for all steps."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)

        def epochs(carry: Any, X: Any, y: Any, order: Any) -> Any:
            return jax.lax.scan(lambda c, index: self._one_step(c, X, y, index), carry, order)

        self._epochs = jax.jit(epochs, donate_argnums=(0,))

    def _run(self, order: NDArray[np.int32]) -> NDArray[Any]:
        self._carry, losses = self._epochs(self._carry, self._X, self._y, order)
        jax.block_until_ready(self._carry)
        return np.asarray(losses)


def build(variant: str, task: Task) -> Case:
    """`jax-step` or `jax-scan`."""
    return {"jax-step": StepCase, "jax-scan": ScanCase}[variant](task)


def versions() -> dict[str, str]:
    """Of JAX."""
    return {"jax": jax.__version__}
