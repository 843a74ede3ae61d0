"""From Python to a graph, and the plainest way to run one.

Comes in: a Python function and the types of its arguments. Goes out: a `Graph` with its inputs and
outputs set, and the structure that the function returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.core import (
    ALIAS,
    INPUT,
    Array,
    ConcreteArray,
    Graph,
    Kind,
    Node,
    NumberType,
    OpSpec,
    WholeType,
    active_graph,
    at_once,
    evaluate,
    live_order,
    tracing,
    tree,
)
from gpubp.core.interop import TO_GPU, TO_HOST, on_device
from gpubp.core.store import Slot
from gpubp.errors import DataError, TraceError
from gpubp.ops.logic import COPY
from gpubp.ops.weak import leaving


def trace(fn: Callable[..., Any], types: Any) -> tuple[Graph, Any]:
    """Call `fn` once on traced arrays.

    Args:
        fn: the function; its arguments and result are arrays or nested structures of them.
        types: a list with one structure of `ArrayType`-like leaves for each argument.

    Returns:
        (graph, structure): `graph.outputs` are the leaves of the result, in order.
    """
    if active_graph() is not None:
        raise TraceError("compile inside a traced function: compile the outer function instead.")
    graph = Graph()
    leaves, structure = tree.flatten(types)
    graph.samples = next((t.shape[0] for t in leaves if _is_batch(t)), 0)
    with tracing(graph):
        args = [_input(graph, t) for t in leaves]
        out = fn(*tree.unflatten(structure, args))
        results, shape = tree.flatten(out)
        graph.outputs = [_output(graph, r) for r in results]
    graph.facts.seal(fn)
    return graph, shape


def _is_batch(given: Any) -> bool:
    return bool(given.shape) and not isinstance(given, WholeType)


def _input(graph: Graph, given: Any) -> Array:
    node = graph.input(given.shape, given.dtype, isinstance(given, NumberType))
    return Array(graph, node)


def _output(graph: Graph, result: Any) -> Node:
    try:
        return leaving(graph, graph.lift(result))
    except (TypeError, ValueError) as err:
        if isinstance(err, TraceError):
            raise
        raise TraceError(
            f"the traced function returned {type(result).__name__}; expected arrays, or tuples, "
            "lists and dicts of arrays."
        ) from err


def evaluate_graph(
    graph: Graph,
    inputs: Sequence[ConcreteArray],
    values: dict[int, Any] | None = None,
) -> list[ConcreteArray]:
    """Run a graph op by op; slots are read, and written at the end.

    With the references on the host; as programs of one op each where an input is on a device.

    Args:
        graph: the graph.
        inputs: one array for each of its inputs, all on the host or all on one device; numbers of
            shape () may be on the host in any case.
        values: by node index, what is known already; everything computed is added.

    Returns:
        One array for each output.

    Raises:
        DataError: inputs on the host and on a device.
    """
    values = {} if values is None else values
    device = device_among(inputs)
    for node in live_order(graph):
        if node.index not in values:
            values[node.index] = value_of(node, inputs, values, device)
    outputs = [own(values[n.index], device) for n in graph.outputs]
    new = [(slot, own(values[n.index], device)) for slot, n in graph.writes]
    for slot, value in new:
        if device is None:
            slot.value = value
        else:
            at_once.assign(slot, value)
    return outputs


def device_among(inputs: Sequence[Any]) -> Any:
    """One of the arrays that are on a device, or None.

    Raises:
        DataError: arrays on the host and on a device.
    """
    device = next((a for a in inputs if on_device(a)), None)
    if device is not None and any(isinstance(a, np.ndarray) and a.ndim for a in inputs):
        raise DataError(
            "arrays on a GPU and NumPy arrays do not mix: copy the latter to the GPU with "
            f"{TO_GPU}, or the others to the host with {TO_HOST}."
        )
    return device


def value_of(node: Node, inputs: Sequence[Any], values: dict[int, Any], device: Any) -> Any:
    """What a node holds; beside a device, slots stand for themselves and constants are the host's
    until an op on the device needs them."""
    if node.is_leaf:
        found = inputs[node.payload] if node.spec is INPUT else node.payload
        return found.value if device is None and isinstance(found, Slot) else found
    args = [values[i.index] for i in node.inputs]
    return applied(node.spec, args, node.attrs, device)


def applied(spec: OpSpec, args: Sequence[Any], attrs: dict[str, Any], device: Any) -> Any:
    """What an op makes of arrays, on the host or on a device."""
    if device is None or (args and all(isinstance(a, np.ndarray) for a in args)):
        return evaluate(spec, args, attrs)
    if spec is ALIAS:
        return args[0]
    if spec.kind is Kind.PIECE:
        return spec.reference(*args, **attrs)
    placed = [at_once.put(a, device) if isinstance(a, np.ndarray) and a.ndim else a for a in args]
    if spec.kind is Kind.LOOP:  # its rounds are ops at once themselves
        return spec.reference(*placed, **attrs)
    return at_once.apply(spec, placed, attrs, device)


def own(value: Any, device: Any) -> Any:
    """The value in memory of its own."""
    if device is None:
        return np.array(value)
    if isinstance(value, np.ndarray):
        return at_once.put(value, device)
    return at_once.apply(COPY, [value], {}, device)
