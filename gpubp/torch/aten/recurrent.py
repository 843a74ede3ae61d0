"""Rules of recurrent layers and cells: loops of gpubp's, one for each layer and direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp import ops
from gpubp.nn.recurrent_steps import STEPS, Steps, Weights, once, over_time
from gpubp.torch.rules import rule


def _weights(params: Sequence[Any], biases: bool, projected: bool) -> list[Weights]:
    """Of each layer and direction, in torch's order."""
    width = 2 + 2 * biases + projected
    found = []
    for first in range(0, len(params), width):
        ih, hh, *rest = params[first : first + width]
        bias_ih, bias_hh = rest[:2] if biases else (None, None)
        found.append(Weights(ih, hh, bias_ih, bias_hh, rest[-1] if projected else None))
    return found


def _run(
    kind: Steps,
    x: Any,
    states: Sequence[Any],
    weights: Sequence[Weights],
    layers: int,
    dropout: float,
    bidirectional: bool,
) -> tuple[Any, tuple[Any, ...]]:
    """All layers and directions, time first."""
    directions = 1 + bidirectional
    ends = []
    for layer in range(layers):
        outputs = []
        for k in range(layer * directions, (layer + 1) * directions):
            start = tuple(ops.getitem(s, k) for s in states)
            reverse = bool(k % directions)
            out, last = over_time(kind, x, start, weights[k], reverse=reverse)
            outputs.append(out)
            ends.append(last)
        x = outputs[0] if len(outputs) == 1 else ops.concat(outputs, 2)
        if dropout and layer < layers - 1:
            x = ops.dropout(x, dropout)
    return x, tuple(ops.stack(s, 0) for s in zip(*ends, strict=True))


def _sequences(
    kind: Steps,
    x: Any,
    states: Sequence[Any],
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, ...]:
    directions = num_layers * (1 + bidirectional)
    projected = len(params) > directions * (2 + 2 * has_biases)
    weights = _weights(params, has_biases, projected)
    single = len(x.shape) == 2
    if single:
        x, states = ops.expand_dims(x, 1), [ops.expand_dims(s, 1) for s in states]
    elif batch_first:
        x = ops.swapaxes(x, 0, 1)
    rate = dropout if train else 0.0
    out, ends = _run(kind, x, states, weights, num_layers, rate, bool(bidirectional))
    if single:
        out, ends = ops.squeeze(out, 1), tuple(ops.squeeze(e, 1) for e in ends)
    elif batch_first:
        out = ops.swapaxes(out, 0, 1)
    return out, *ends


@rule("lstm.input")
def lstm(x: Any, states: Sequence[Any], params: Sequence[Any], *options: Any) -> Any:
    """Outputs, h and c."""
    return _sequences(STEPS["lstm"], x, list(states), params, *options)


@rule("gru.input")
def gru(x: Any, state: Any, params: Sequence[Any], *options: Any) -> Any:
    """Outputs and h."""
    return _sequences(STEPS["gru"], x, [state], params, *options)


@rule("rnn_tanh.input")
def rnn_tanh(x: Any, state: Any, params: Sequence[Any], *options: Any) -> Any:
    """Outputs and h."""
    return _sequences(STEPS["tanh"], x, [state], params, *options)


@rule("rnn_relu.input")
def rnn_relu(x: Any, state: Any, params: Sequence[Any], *options: Any) -> Any:
    """Outputs and h."""
    return _sequences(STEPS["relu"], x, [state], params, *options)


@rule("lstm_cell")
def lstm_cell(
    x: Any, states: Sequence[Any], ih: Any, hh: Any, bias_ih: Any = None, bias_hh: Any = None
) -> Any:
    """One round: h and c."""
    return tuple(once(STEPS["lstm"], x, tuple(states), Weights(ih, hh, bias_ih, bias_hh)))


def _cell(kind: str) -> None:
    def cell(x: Any, h: Any, ih: Any, hh: Any, bias_ih: Any = None, bias_hh: Any = None) -> Any:
        return once(STEPS[kind], x, (h,), Weights(ih, hh, bias_ih, bias_hh))[0]

    rule(f"rnn_{kind}_cell" if kind != "gru" else "gru_cell")(cell)


for _kind in ("tanh", "relu", "gru"):
    _cell(_kind)
