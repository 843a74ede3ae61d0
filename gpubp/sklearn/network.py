"""The network and its losses as ops.

Comes in: batches of traced arrays and the slots of the weights. Goes out: a scalar loss whose value
is scikit-learn's number and whose gradient is scikit-learn's gradient; the two do not always
belong together (see `data_loss`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.core import OpSpec, bind
from gpubp.ops.elementwise import CLIP
from gpubp.ops.logic import WHERE

STOCK_ACTIVATIONS = ("identity", "logistic", "relu", "tanh")
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "logistic": ops.sigmoid,
    "relu": ops.relu,
    "tanh": ops.tanh,
    "elu": ops.elu,
    "gelu": ops.gelu,
    "leaky_relu": ops.leaky_relu,
    "silu": ops.silu,
    "softplus": ops.softplus,
}

# scikit-learn clips probabilities in the loss's value, and not in its gradient.
_CLIPPED_VALUE: OpSpec = dataclasses.replace(CLIP, vjp=lambda g, y, x, low, high: (g,))

Loss = str | Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Network:
    """All that a program depends on beside the sizes of batches.

    Attributes:
        units: sizes of all layers, inputs and outputs included.
        activations: one for each hidden layer.
        output: "softmax", "logistic", "identity" or "exp".
        loss: scikit-learn's name, or a function, see `data_loss`.
        dtype: "float32" or "float64".
        weighted: samples have weights.
        penalized: alpha is not 0.
        dropout: one probability for each hidden layer, or ().
    """

    units: tuple[int, ...]
    activations: tuple[str, ...]
    output: str
    loss: Loss
    dtype: str
    weighted: bool = False
    penalized: bool = True
    dropout: tuple[float, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Its loss is one of ours: equal networks are the same program."""
        return not callable(self.loss)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of the weight matrices: (inputs, outputs), as scikit-learn's."""
        return list(zip(self.units[:-1], self.units[1:]))


def forward(
    network: Network, X: Any, coefs: Sequence[Any], intercepts: Sequence[Any], generator: Any = None
) -> Any:
    """The output layer before its activation, (n, outputs).

    Args:
        network: the architecture.
        X: (n, inputs).
        coefs: the weight matrices, (inputs, outputs) each.
        intercepts: the biases.
        generator: of the dropout masks; None: no dropout.
    """
    last = len(coefs) - 1
    for i, (W, b) in enumerate(zip(coefs, intercepts)):
        X = ops.add(ops.matmul(X, W), b)
        if i < last:
            X = ACTIVATIONS[network.activations[i]](X)
            if generator is not None and network.dropout:
                X = ops.dropout(X, network.dropout[i], generator=generator)
    return X


def data_loss(network: Network, z: Any, y: Any, weights: Any = None) -> tuple[Any, Any]:
    """The mean loss of a batch without the penalty, and 1 over the sum of the weights.

    Values are those of sklearn.neural_network._base; gradients by z are (output - y) w / sum(w) for
    its own losses. Two of its habits are kept: probabilities are clipped to [eps, 1 - eps] in the
    value only, and the value of the squared error is averaged over outputs, its gradient is not.

    Args:
        network: the architecture.
        z: output layer before its activation, (n, k).
        y: targets: int64 (n,) labels for softmax, bool (n, k) for logistic, else floats (n, k).
        weights: (n,) or None.
    """
    each = _each(network, z, y)
    count: Any = float(z.shape[0]) if weights is None else ops.sum(weights)
    if weights is not None:
        column = weights if each.ndim == 1 else ops.reshape(weights, (z.shape[0], 1))
        each = ops.multiply(each, column)
    share: Any = 1.0 / count
    loss = ops.divide(ops.sum(each), count)
    outputs = z.shape[1]
    if network.loss == "squared_error" and outputs > 1:
        loss = loss + ops.stop_gradient(loss) * (1.0 / outputs - 1.0)
    return loss, share


def _each(network: Network, z: Any, y: Any) -> Any:
    """The loss of each sample, (n,), or of each output, (n, k)."""
    if callable(network.loss):
        return _custom(network, z, y)
    return _LOSSES[_loss_name(network)](z, y)


def _loss_name(network: Network) -> str:
    assert isinstance(network.loss, str)
    return f"{network.output}_{network.loss}" if network.loss == "log_loss" else network.loss


def _custom(network: Network, z: Any, y: Any) -> Any:
    assert callable(network.loss)
    if network.output == "softmax":
        y = ops.one_hot(y, z.shape[1], z.dtype)
    each = network.loss(ops.astype(y, z.dtype), z)
    if getattr(each, "shape", None) not in ((z.shape[0],), z.shape):
        raise ValueError(
            f"the loss function returned an array of shape {getattr(each, 'shape', None)}; "
            f"expected one loss for each sample, {(z.shape[0],)}, or for each output, {z.shape}."
        )
    return each


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """scikit-learn's smallest and largest probability."""
    eps = np.finfo(dtype).eps
    return float(eps), float(dtype.type(1.0) - eps)


def _softmax_log_loss(z: Any, y: Any) -> Any:
    low, high = _limits(z.dtype)
    each = ops.softmax_cross_entropy(z, y)
    return bind(_CLIPPED_VALUE, each, low=float(-np.log(high)), high=float(-np.log(low)))


def _logistic_log_loss(z: Any, y: Any) -> Any:
    """-log p where y holds, -log(1 - p) elsewhere, p = 1 / (1 + exp(-z)); the slope is p - y.

    1 - p is what is left of p's rounding where p is close to 1; it is taken from the same p as in
    scikit-learn, not from a better formula.
    """
    p = ops.sigmoid(ops.stop_gradient(z))
    low, high = _limits(z.dtype)
    kept = ops.clip(p, low, high)
    value = -ops.log(ops.where(y, kept, 1.0 - kept))
    return _with_slope(value, z, p - ops.astype(y, z.dtype))


def _with_slope(value: Any, z: Any, slope: Any) -> Any:
    """`value`, differentiated as if its derivative by `z` were `slope`."""
    spec = dataclasses.replace(WHERE, vjp=lambda g, y, yes, taken, other: [None, None, g * slope])
    return bind(spec, np.ones((), bool), value, z)


def _squared_error(z: Any, y: Any) -> Any:
    return ops.square(z - y) * 0.5


def _poisson(z: Any, y: Any) -> Any:
    """y log(y / exp(z)) - y + exp(z), half the Poisson deviance; y log y is 0 at 0."""
    y_log_y = ops.multiply(y, ops.log(ops.where(ops.equal(y, 0.0), 1.0, y)))
    return y_log_y - y * z - y + ops.exp(z)


def _absolute_error(z: Any, y: Any) -> Any:
    return ops.abs(z - y)


def _huber(z: Any, y: Any) -> Any:
    """d^2 / 2 where |d| <= 1, else |d| - 1/2 (Huber, 1964)."""
    size = ops.abs(z - y)
    return ops.where(ops.less_equal(size, 1.0), ops.square(size) * 0.5, size - 0.5)


_LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "softmax_log_loss": _softmax_log_loss,
    "logistic_log_loss": _logistic_log_loss,
    "squared_error": _squared_error,
    "poisson": _poisson,
    "absolute_error": _absolute_error,
    "huber": _huber,
}


def penalty(coefs: Sequence[Any]) -> Any:
    """The sum of the squares of all weights, biases not among them."""
    total = ops.sum(ops.square(coefs[0]))
    for W in coefs[1:]:
        total = ops.add(total, ops.sum(ops.square(W)))
    return total
