"""ONNX's LSTM, GRU, RNN, ReverseSequence, Scan, Loop and If."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.compiler.branches import cond
from gpubp.compiler.scan import scan as run_scan
from gpubp.nn.recurrent_steps import STEPS, States, Steps, Weights, over_time
from gpubp.nn.utils.rnn import valid_mask
from gpubp.onnx.import_common import refuse, text

# Where torch's gates stand among ONNX's: i, f, g, o in i, o, f, c; r, z, n in z, r, h.
ORDERS = {1: (0,), 4: (0, 2, 3, 1), 3: (1, 0, 2)}


def _blocks(x: Any, size: int, order: Sequence[int]) -> Any:
    return ops.concat([ops.getitem(x, slice(k * size, (k + 1) * size)) for k in order], 0)


def _weights(d: int, gates: int, size: int, w: Any, r: Any, b: Any) -> Weights:
    order = ORDERS[gates]
    found = [_blocks(ops.getitem(a, d), size, order) for a in (w, r)]
    if b is not None:
        both, half = ops.getitem(b, d), gates * size
        cuts = (slice(0, half), slice(half, 2 * half))
        found += [_blocks(ops.getitem(both, cut), size, order) for cut in cuts]
    return Weights(*found)


def _peepholes(p: Any, size: int) -> Steps:
    """An LSTM whose gates see c: i and f the one before, o the new one."""
    at_i, at_o, at_f = (ops.getitem(p, slice(k * size, (k + 1) * size)) for k in range(3))

    def step(states: States, added: Any, w: Weights) -> States:
        h, c = states
        z = ops.add(added, ops.linear(h, w.hh))
        i, f, g, o = (ops.getitem(z, (..., slice(k * size, (k + 1) * size))) for k in range(4))
        i = ops.sigmoid(ops.add(i, ops.multiply(at_i, c)))
        f = ops.sigmoid(ops.add(f, ops.multiply(at_f, c)))
        c = ops.add(ops.multiply(f, c), ops.multiply(i, ops.tanh(g)))
        o = ops.sigmoid(ops.add(o, ops.multiply(at_o, c)))
        return ops.multiply(o, ops.tanh(c)), c

    return STEPS["lstm"]._replace(step=step)


def _run(
    kind: Callable[[int], Steps],
    arrays: Sequence[Any],
    lengths: Any,
    initial: Sequence[Any],
    hidden_size: int,
    direction: str,
    layout: int,
) -> tuple[Any, ...]:
    """All directions; (Y, Y_h) or (Y, Y_h, Y_c)."""
    x, *weights = arrays
    x = ops.swapaxes(x, 0, 1) if layout else x
    time, batch = x.shape[:2]
    valid = None if lengths is None else valid_mask(lengths, time)
    outputs, ends = [], []
    for d, reverse in enumerate(
        {"reverse": (True,), "bidirectional": (False, True)}.get(direction, (False,))
    ):
        steps = kind(d)
        zeros = np.zeros((batch, hidden_size), x.dtype)
        starts = [
            zeros if s is None else ops.getitem(s, (slice(None), d) if layout else d)
            for s in initial
        ]
        w = _weights(d, steps.gates, hidden_size, *weights)
        out, last = over_time(steps, x, tuple(starts), w, valid, reverse)
        outputs.append(out)
        ends.append(last)
    y = ops.stack(outputs, 1)  # (T, D, N, H)
    states = [ops.stack(s, 1 if layout else 0) for s in zip(*ends, strict=True)]
    return (ops.transpose(y, (2, 0, 1, 3)) if layout else y, *states)


_USUAL = {"rnn": ["Tanh"], "gru": ["Sigmoid", "Tanh"], "lstm": ["Sigmoid", "Tanh", "Tanh"]}


def _plain(kind: str, direction: str, options: dict[str, Any]) -> bool:
    """What torch has not is refused; whether an RNN has ReLU."""
    sides = 2 if direction == "bidirectional" else 1
    given = dict(options)
    if not given.get("input_forget"):
        given.pop("input_forget", None)
    activations = [text(a) for a in given.pop("activations", _USUAL[kind] * sides)]
    relu = kind == "rnn" and activations == ["Relu"] * sides
    if not relu and activations != _USUAL[kind] * sides:
        given["activations"] = activations
    if given:
        refuse(f"options that torch has not: {', '.join(sorted(given))}")
    return relu


def rnn(
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    lengths: Any = None,
    h: Any = None,
    *,
    hidden_size: int,
    direction: str = "forward",
    layout: int = 0,
    outputs: int = 1,
    **options: Any,
) -> Any:
    kind = STEPS["relu" if _plain("rnn", direction, options) else "tanh"]
    found = _run(lambda _: kind, (x, w, r, b), lengths, (h,), hidden_size, direction, layout)
    return found[:outputs]


def gru(
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    lengths: Any = None,
    h: Any = None,
    *,
    hidden_size: int,
    direction: str = "forward",
    layout: int = 0,
    linear_before_reset: int = 0,
    outputs: int = 1,
    **options: Any,
) -> Any:
    _plain("gru", direction, options)
    kind = STEPS["gru" if linear_before_reset else "gru reset first"]
    found = _run(lambda _: kind, (x, w, r, b), lengths, (h,), hidden_size, direction, layout)
    return found[:outputs]


def lstm(
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    lengths: Any = None,
    h: Any = None,
    c: Any = None,
    p: Any = None,
    *,
    hidden_size: int,
    direction: str = "forward",
    layout: int = 0,
    outputs: int = 1,
    **options: Any,
) -> Any:
    _plain("lstm", direction, options)

    def kind(d: int) -> Steps:
        return STEPS["lstm"] if p is None else _peepholes(ops.getitem(p, d), hidden_size)

    found = _run(kind, (x, w, r, b), lengths, (h, c), hidden_size, direction, layout)
    return found[:outputs]


def reverse_sequence(x: Any, lengths: Any, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    x = x if time_axis == 0 else ops.swapaxes(x, 0, 1)
    time, batch = x.shape[:2]
    places = np.arange(time)[:, None]
    back = ops.subtract(ops.subtract(lengths, 1), places)
    source = ops.where(ops.less(places, lengths), back, places)
    rows = ops.add(ops.multiply(source, batch), np.arange(batch))
    flat = ops.reshape(x, (time * batch, *x.shape[2:]))
    y = ops.gather(flat, ops.reshape(rows, (-1,)))
    y = ops.reshape(y, x.shape)
    return y if time_axis == 0 else ops.swapaxes(y, 0, 1)


def scan(
    *given: Any,
    body: Callable[..., Any],
    num_scan_inputs: int,
    scan_input_axes: Any = None,
    scan_output_axes: Any = None,
    scan_input_directions: Any = None,
    scan_output_directions: Any = None,
    **version_8: Any,
) -> Any:
    """`body` takes states and elements, and returns states and what is stacked."""
    if any(version_8.pop("directions", ())) or version_8:
        refuse("a Scan of version 8 that runs backwards")
    if given[0] is None:  # version 8: lengths, and a batch in front of everything
        count = given[1].shape[0]
        parts = [
            scan(
                *[ops.getitem(a, i) for a in given[1:]], body=body, num_scan_inputs=num_scan_inputs
            )
            for i in range(count)
        ]
        return tuple(ops.stack(p, 0) for p in zip(*parts, strict=True))
    states = len(given) - num_scan_inputs
    axes = scan_input_axes or [0] * num_scan_inputs
    back = scan_input_directions or [0] * num_scan_inputs
    reverse = all(back)
    elements = [
        _turned(_first(x, a), bool(b) != reverse)
        for x, a, b in zip(given[states:], axes, back, strict=True)
    ]

    def step(carry: Any, elements: Any) -> Any:
        found = body(*carry, *elements)
        return found[:states], found[states:]

    last, found = run_scan(step, tuple(given[:states]), tuple(elements), reverse=reverse)
    back = scan_output_directions or [0] * len(found)
    stacks = [_turned(y, bool(b) != reverse) for y, b in zip(found, back, strict=True)]
    axes = scan_output_axes or [0] * len(found)
    return (*last, *[_to(y, a) for y, a in zip(stacks, axes, strict=True)])


def _first(x: Any, axis: int) -> Any:
    """An axis made the first."""
    at = axis % x.ndim
    return ops.transpose(x, (at, *[i for i in range(x.ndim) if i != at])) if at else x


def _to(x: Any, axis: int) -> Any:
    """The first axis put elsewhere."""
    order = list(range(1, x.ndim))
    order.insert(axis % x.ndim, 0)
    return ops.transpose(x, order)


def _turned(x: Any, back: bool) -> Any:
    """From the last element to the first."""
    return ops.getitem(x, slice(None, None, -1)) if back else x


def loop(count: Any, going: Any, *carry: Any, body: Callable[..., Any]) -> Any:
    """Written out: the number of rounds is known, and so is the condition."""
    known = all(v is None or isinstance(v, (np.ndarray, np.generic)) for v in (count, going))
    if not known or count is None:
        refuse("rounds that nobody knows while a program is traced")
    states, stacks = tuple(carry), []
    for i in range(int(count)):
        if not (going is None or going):
            break
        found = body(np.asarray(i, np.int64), going, *states)
        going, states = found[0], found[1 : 1 + len(carry)]
        stacks.append(found[1 + len(carry) :])
    return (*states, *[ops.stack(s, 0) for s in zip(*stacks, strict=True)])


def branch(
    condition: Any, *, then_branch: Callable[..., Any], else_branch: Callable[..., Any]
) -> Any:
    if isinstance(condition, (np.ndarray, np.generic)):
        return then_branch() if condition else else_branch()
    return cond(condition, then_branch, else_branch)
