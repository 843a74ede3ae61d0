"""The loss and gradient of all samples at once, for SciPy's L-BFGS.

Comes in: packed weights (all matrices, then all biases, raveled). Goes out: the loss with its
penalty, and its gradient packed the same way, of the network's dtype.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.backends import get_backend
from gpubp.compiler.grad import value_and_grad
from gpubp.runtime.function import CompiledFunction
from gpubp.sklearn.data import Rows, loss_type
from gpubp.sklearn.network import Network, data_loss, forward, penalty

KEPT_BYTES = 1 << 24  # of activations; programs with more are made anew for each fit


def _function(
    network: Network, samples: int, backend: str | None, device: str | None
) -> CompiledFunction:
    """(all matrices, all biases, alpha, X, y, sample weights) -> (loss, gradients).

    Every argument is an array, so that repeated calls on small data are bound once.
    """
    layers = len(network.shapes)

    def loss(*arrays: Any) -> Any:
        alpha, X, y, *weights = arrays[2 * layers :]
        coefs, intercepts = arrays[:layers], arrays[layers : 2 * layers]
        z = forward(network, X, coefs, intercepts)
        data, share = data_loss(network, z, y, *weights)
        return ops.add(data, ops.multiply(penalty(coefs), ops.multiply(alpha, share) * 0.5))

    return CompiledFunction(value_and_grad(loss, tuple(range(2 * layers))), backend, device)


# A grid search fits the same network to the same number of samples again and again. A loss of the
# user's own may have changed in between, unseen: its program is made anew for each fit.
_kept_function = lru_cache(maxsize=8)(_function)


class Problem:
    """The function to minimise.

    Args:
        network: the architecture.
        X, y, weights: as scikit-learn has them after validation.
        alpha: strength of the penalty.
        backend, device: as for `gp.compile_step`.

    Attributes:
        backend_name: where it runs.
    """

    def __init__(
        self,
        network: Network,
        X: Any,
        y: NDArray[Any],
        weights: Any,
        alpha: float,
        backend: str | None,
        device: str | None,
    ) -> None:
        self.network = network
        small = len(y) * sum(network.units) * np.dtype(network.dtype).itemsize <= KEPT_BYTES
        make = _kept_function if small and network.is_ours else _function
        self._function = make(network, len(y), backend, device)
        self._data = Rows(network, X, y, weights).whole()
        self._alpha = np.array(alpha, network.dtype)
        self._shapes = [*network.shapes, *[(n,) for n in network.units[1:]]]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        self._loss_type = loss_type(X, y, weights).type
        self.backend_name = get_backend(backend, device).name

    def __call__(self, packed: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
        """(loss, gradient) at the packed weights."""
        weights = np.split(packed.astype(self.network.dtype, copy=False), self._ends)
        arrays = [w.reshape(shape) for w, shape in zip(weights, self._shapes)]
        loss, grads = self._function(*arrays, self._alpha, *self._data)
        return self._loss_type(loss), np.concatenate([g.ravel() for g in grads])
