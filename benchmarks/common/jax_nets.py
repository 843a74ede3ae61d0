"""A network as a function for JAX; images with channels last, which XLA's CPU convolutions take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from common.nets import (
    EPS,
    MOMENTUM,
    Activation,
    Attend,
    Conv,
    EachPosition,
    Factors,
    Flatten,
    LastNorm,
    Layer,
    Linear,
    MaxPool,
    MeanPool,
    Network,
    Norm,
    Recurrent,
    Residual,
    Shape,
    Symbols,
    walk,
)

_ACTIVATIONS: dict[str, Any] = {
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "gelu": partial(jax.nn.gelu, approximate=False),
}


def turned(
    network: Network, shape: Shape, weights: Sequence[tuple[NDArray[Any], ...]]
) -> list[tuple[NDArray[Any], ...]]:
    """Weights as `forward` wants them: (inputs, outputs), and (height, width, inputs, outputs).

    A Linear behind a Flatten has its inputs in the order of images with channels last.
    """
    found = []
    remaining = iter(weights)
    image: Shape = ()
    for layer, before in walk(network, shape):
        if isinstance(layer, Flatten):
            image = before
        elif isinstance(layer, Conv):
            W, *bias = next(remaining)
            found.append((W.transpose(2, 3, 1, 0), *bias))
        elif isinstance(layer, Linear):
            W, *bias = next(remaining)
            if image:
                W = W.reshape(-1, *image).transpose(0, 2, 3, 1).reshape(len(W), -1)
                image = ()
            found.append((W.T, *bias))
        elif isinstance(layer, Recurrent):
            found.append(tuple(a.T for a in next(remaining)))
        elif isinstance(layer, Attend):
            # Matrices are the first, third, fifth and seventh of its arrays.
            found.append(tuple(a.T if a.ndim == 2 else a for a in next(remaining)))
        elif isinstance(layer, (Norm, LastNorm, Symbols, Factors)):
            found.append(next(remaining))
    return found


def statistics(network: Network, shape: Shape) -> list[tuple[Any, Any]]:
    """(running mean, running variance) of every Norm, at the start."""
    norms = [before[0] for layer, before in walk(network, shape) if isinstance(layer, Norm)]
    return [(jnp.zeros(c), jnp.ones(c)) for c in norms]


def forward(network: Network, params: Any, stats: Any, x: Any, dtype: Any) -> tuple[Any, Any]:
    """The outputs in float32, and the running statistics afterwards.

    Args:
        network: what to compute.
        params: as from `turned`.
        stats: as from `statistics`.
        x: images (N, height, width, channels), or vectors (N, inputs).
        dtype: of the products.
    """
    pass_ = _Pass(iter(params), iter(stats), dtype)
    return pass_.through(network, x).astype(jnp.float32), pass_.stats


class _Pass:
    """One pass through a network: takes parameters and statistics in the order of `walk`."""

    def __init__(self, params: Iterator[Any], stats: Iterator[Any], dtype: Any) -> None:
        self._params, self._stats, self._dtype = params, stats, dtype
        self.stats: list[tuple[Any, Any]] = []

    def through(self, network: Network, x: Any) -> Any:
        """All layers."""
        for layer in network:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: Layer, x: Any) -> Any:
        match layer:
            case Linear():
                W, b = (a.astype(self._dtype) for a in next(self._params))
                return x.astype(self._dtype) @ W + b
            case Conv():
                return self._conv(layer, x)
            case Norm():
                return self._norm(x)
            case Activation(name):
                return _ACTIVATIONS[name](x)
            case Recurrent(kind, hidden):
                return self._recurrent(_CELLS[kind], hidden, x)
            case MaxPool(size):
                return _max_pool(x, size)
            case MeanPool():
                return x.mean((1, 2))
            case Flatten():
                return x.reshape(len(x), -1)
            case Symbols():
                table, places = (a.astype(self._dtype) for a in next(self._params))
                return table[x] + places
            case Attend(heads):
                weights = [a.astype(self._dtype) for a in next(self._params)]
                return _attend(x, heads, *weights)
            case LastNorm():
                return _last_norm(x, *next(self._params))
            case EachPosition():
                return x.reshape(-1, x.shape[-1])
            case Factors():
                users, items, *biases = (a.astype(self._dtype) for a in next(self._params))
                user, item = x[:, 0], x[:, 1]
                product = (users[user] * items[item]).sum(-1)
                return product + biases[0][user, 0] + biases[1][item, 0]
            case Residual(body, shortcut):
                return self.through(body, x) + self.through(shortcut, x)

    def _conv(self, layer: Conv, x: Any) -> Any:
        W, *bias = (a.astype(self._dtype) for a in next(self._params))
        y = jax.lax.conv_general_dilated(
            x.astype(self._dtype),
            W,
            (layer.stride, layer.stride),
            [(layer.padding, layer.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias[0] if bias else y

    def _recurrent(self, cell: Any, hidden: int, x: Any) -> Any:
        """The product with inputs is one for all times, before the loop."""
        W, U, b, d = (a.astype(self._dtype) for a in next(self._params))
        z = (x.astype(self._dtype) @ W + b).swapaxes(0, 1)
        h = jnp.zeros((len(x), hidden), self._dtype)
        (h, _), _ = jax.lax.scan(lambda state, z: (cell(*state, z, U, d), None), (h, h), z)
        return h

    def _norm(self, x: Any) -> Any:
        gamma, beta = next(self._params)
        mean, var = next(self._stats)
        x = x.astype(jnp.float32)
        batch_mean, batch_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // x.shape[-1]
        unbiased = batch_var * (count / (count - 1))
        self.stats.append(
            (mean + MOMENTUM * (batch_mean - mean), var + MOMENTUM * (unbiased - var))
        )
        return (x - batch_mean) * (gamma * jax.lax.rsqrt(batch_var + EPS)) + beta


def _lstm(h: Any, c: Any, z: Any, U: Any, d: Any) -> tuple[Any, Any]:
    i, f, g, o = jnp.split(z + h @ U + d, 4, 1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(h: Any, unused: Any, z: Any, U: Any, d: Any) -> tuple[Any, Any]:
    r, u, n = jnp.split(z, 3, 1)
    own_r, own_u, own_n = jnp.split(h @ U + d, 3, 1)
    r, u = jax.nn.sigmoid(r + own_r), jax.nn.sigmoid(u + own_u)
    n = jnp.tanh(n + r * own_n)
    return n + u * (h - n), unused


_CELLS: dict[str, Any] = {"LSTM": _lstm, "GRU": _gru}


def _max_pool(x: Any, size: int) -> Any:
    """By a reshape: `reduce_window` and its gradient take several times as long on a CPU."""
    n, height, width, channels = x.shape
    height, width = height // size, width // size
    x = x[:, : height * size, : width * size]
    return x.reshape(n, height, size, width, size, channels).max((2, 4))


def _last_norm(x: Any, gamma: Any, beta: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPS) * gamma + beta


def _attend(x: Any, heads: int, *weights: Any) -> Any:
    """A layer with LayerNorms first; `weights` in the order of `nets.weights`."""
    W, b, joining, joining_bias, W1, b1, W2, b2, *norms = weights
    n, length, width = x.shape
    mixed = _last_norm(x, *norms[:2]) @ W + b
    q, k, v = (a.reshape(n, length, heads, -1) for a in jnp.split(mixed, 3, -1))
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) * (width // heads) ** -0.5
    seen = jnp.tri(length, dtype=bool)
    weights_ = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    joined = jnp.einsum("nhqk,nkhd->nqhd", weights_, v).reshape(n, length, width)
    x = x + joined @ joining + joining_bias
    hidden = _ACTIVATIONS["gelu"](_last_norm(x, *norms[2:]) @ W1 + b1)
    return x + hidden @ W2 + b2
