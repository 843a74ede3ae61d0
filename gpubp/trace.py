"""From Python to a graph, and the plainest way to run one.

Comes in: a Python function and the types of its arguments. Goes out: a `Graph` with its inputs and
outputs set, and the structure that the function returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp import tree
from gpubp.core import (
    CONST,
    INPUT,
    SLOT,
    Array,
    ConcreteArray,
    Graph,
    Node,
    active_graph,
    evaluate,
    live_order,
    tracing,
)
from gpubp.errors import TraceError


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
    with tracing(graph):
        args = [Array(graph, graph.input(t.shape, t.dtype)) for t in leaves]
        out = fn(*tree.unflatten(structure, args))
        results, shape = tree.flatten(out)
        graph.outputs = [_output(graph, r) for r in results]
    return graph, shape


def _output(graph: Graph, result: Any) -> Node:
    try:
        return graph.lift(result)
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
    values: dict[int, ConcreteArray] | None = None,
) -> list[ConcreteArray]:
    """Run a graph op by op with the references; slots are read, and written at the end.

    Args:
        graph: the graph.
        inputs: one array for each of its inputs.
        values: by node index, what is known already; everything computed is added.

    Returns:
        One array for each output.
    """
    values = {} if values is None else values
    for node in live_order(graph):
        if node.index in values:
            continue
        if node.spec is INPUT:
            values[node.index] = inputs[node.payload]
        elif node.spec is CONST:
            values[node.index] = node.payload
        elif node.spec is SLOT:
            values[node.index] = node.payload.value
        else:
            args = [values[i.index] for i in node.inputs]
            values[node.index] = evaluate(node.spec, args, node.attrs)
    outputs = [np.array(values[n.index]) for n in graph.outputs]
    new = [(slot, np.array(values[n.index])) for slot, n in graph.writes]
    for slot, value in new:
        slot.value = value
    return outputs
