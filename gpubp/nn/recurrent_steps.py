"""One round of an RNN, an LSTM and a GRU, and a loop of them over a sequence.

Comes in: arrays that lie time first, states, weights in torch's layout. Goes out: the states of all
rounds and the last ones. What the inputs add to the gates is one product for all rounds, before the
loop; the body has the product with the state, and the gates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpubp import ops
from gpubp.errors import unknown_name
from gpubp.ops.spec import beside, promote

States = tuple[Any, ...]


class Weights(NamedTuple):
    """The parameters of one layer in one direction; what a layer has not is None."""

    ih: Any
    hh: Any
    bias_ih: Any = None
    bias_hh: Any = None
    hr: Any = None


class Steps(NamedTuple):
    """What a kind of layer computes.

    Attributes:
        gates: blocks of rows in its weights.
        states: arrays that it hands on: h, or h and c.
        inputs: (x, weights) -> what the inputs add, for any leading axes.
        step: (states, what the inputs add, weights) -> the next states.
    """

    gates: int
    states: int
    inputs: Callable[[Any, Weights], Any]
    step: Callable[[States, Any, Weights], States]


def _cut(x: Any, first: int, end: int) -> Any:
    return ops.getitem(x, (..., slice(first, end)))


def _both_biases(x: Any, w: Weights) -> Any:
    bias = None if w.bias_ih is None else ops.add(w.bias_ih, w.bias_hh)
    return ops.linear(x, w.ih, bias)


def _own_bias(x: Any, w: Weights) -> Any:
    return ops.linear(x, w.ih, w.bias_ih)


def _rnn(activation: Callable[[Any], Any]) -> Callable[[States, Any, Weights], States]:
    def step(states: States, added: Any, w: Weights) -> States:
        return (activation(ops.add(added, ops.linear(states[0], w.hh))),)

    return step


def _lstm(states: States, added: Any, w: Weights) -> States:
    """Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997); gates in the order i, f, g, o."""
    h, c = states
    z = ops.add(added, ops.linear(h, w.hh))
    n = c.shape[-1]
    i, f, g, o = (_cut(z, k * n, (k + 1) * n) for k in range(4))
    kept = ops.multiply(ops.sigmoid(f), c)
    c = ops.add(kept, ops.multiply(ops.sigmoid(i), ops.tanh(g)))
    h = ops.multiply(ops.sigmoid(o), ops.tanh(c))
    return (h if w.hr is None else ops.linear(h, w.hr)), c


def _gru(states: States, added: Any, w: Weights) -> States:
    """Cho et al. (2014, arXiv:1406.1078), its reset behind the product; r, z, n as in torch."""
    (h,) = states
    n = h.shape[-1]
    own = ops.linear(h, w.hh, w.bias_hh)
    gates = ops.sigmoid(ops.add(_cut(added, 0, 2 * n), _cut(own, 0, 2 * n)))
    r, z = _cut(gates, 0, n), _cut(gates, n, 2 * n)
    new = ops.tanh(ops.add(_cut(added, 2 * n, 3 * n), ops.multiply(r, _cut(own, 2 * n, 3 * n))))
    return (ops.add(new, ops.multiply(z, ops.subtract(h, new))),)


def _gru_reset_first(states: States, added: Any, w: Weights) -> States:
    """As the paper and ONNX's linear_before_reset=0 have it: what is multiplied was reset."""
    (h,) = states
    n = h.shape[-1]
    halves = [(0, 2 * n), (2 * n, 3 * n)]
    weights = [ops.getitem(w.hh, slice(*ends)) for ends in halves]
    biases = [None if w.bias_hh is None else ops.getitem(w.bias_hh, slice(*e)) for e in halves]
    gates = ops.add(_cut(added, 0, 2 * n), ops.linear(h, weights[0], biases[0]))
    gates = ops.sigmoid(gates)
    r, z = _cut(gates, 0, n), _cut(gates, n, 2 * n)
    own = ops.linear(ops.multiply(r, h), weights[1], biases[1])
    new = ops.tanh(ops.add(_cut(added, 2 * n, 3 * n), own))
    return (ops.add(new, ops.multiply(z, ops.subtract(h, new))),)


STEPS = {
    "tanh": Steps(1, 1, _both_biases, _rnn(ops.tanh)),
    "relu": Steps(1, 1, _both_biases, _rnn(ops.relu)),
    "lstm": Steps(4, 2, _both_biases, _lstm),
    "gru": Steps(3, 1, _own_bias, _gru),
    "gru reset first": Steps(3, 1, _own_bias, _gru_reset_first),
}


def rnn_steps(nonlinearity: str) -> Steps:
    """Those of an RNN. Raises UnknownNameError."""
    if nonlinearity not in ("tanh", "relu"):
        raise unknown_name("nonlinearity", nonlinearity, ("tanh", "relu"))
    return STEPS[nonlinearity]


def once(kind: Steps, x: Any, states: States, w: Weights) -> States:
    """The next states, of one round."""
    added, *start = promote(kind.inputs(x, w), *states)
    return kind.step(tuple(start), added, w)


def over_time(
    kind: Steps, x: Any, states: States, w: Weights, valid: Any = None, reverse: bool = False
) -> tuple[Any, States]:
    """All rounds of one layer in one direction.

    Args:
        kind: of `STEPS`.
        x: (T, N, inputs).
        states: h, or h and c; (N, size) each.
        w: the layer's parameters.
        valid: bool[T, N, 1], where there is a sequence; elsewhere states stay and outputs are 0.
            Backwards, states so begin to move at each sequence's own end.
        reverse: from the last element to the first.

    Returns:
        (h of all rounds (T, N, size), the last states).
    """
    # Here, since models without loops need none of it.
    from gpubp.compiler.scan import scan

    added, *start = promote(kind.inputs(x, w), *states)

    def body(before: States, given: tuple[Any, Any]) -> tuple[States, Any]:
        added, valid = given
        after = kind.step(before, added, w)
        if valid is not None:
            after = tuple(ops.where(valid, a, b) for a, b in zip(after, before, strict=True))
        return after, after[0]

    last, outputs = scan(body, tuple(start), (added, valid), reverse=reverse)
    return outputs if valid is None else ops.where(valid, outputs, 0.0), last


def zeros(shape: tuple[int, ...], like: Any) -> Any:
    """Where sequences begin, where the array `like` is."""
    dtype = like.dtype if np.dtype(like.dtype).kind == "f" else np.float32
    return beside(np.zeros(shape, dtype), like)
