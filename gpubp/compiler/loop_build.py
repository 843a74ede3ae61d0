"""Loops in a graph: a node for a traced body, and its values round by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp import ops
from gpubp.compiler.loop_body import BEFORE, FINAL, VALUE, Body, Loop, piece
from gpubp.core import INPUT, Array, Graph, Node, OpSpec, tracing


def add_loop(
    spec: OpSpec,
    graph: Graph,
    body: Body,
    carries: Sequence[tuple[Node, Node, Node]],
    sliced: Sequence[tuple[Node, Node]],
    rounds: int,
    reverse: bool = False,
    until: int = -1,
) -> Node:
    """Append the loop of a traced body.

    Args:
        spec: of loops.
        graph: the one around it.
        body: traced; what it assigns to slots is carried behind the other carries.
        carries: (the body's input, its value after a round, the value before the first one).
        sliced: (the body's input, what it is an element of).
        rounds, reverse, until: see `Loop`.
    """
    carries = list(carries)
    assigned = list(body.writes)
    first = len(carries)
    for slot, node in assigned:
        outside = graph.slot(slot)
        carries.append((body.capture(outside), node, outside))
    given = {inside.index: node for inside, _, node in carries}
    given |= {inside.index: node for inside, node in sliced}
    position = {node.index: i for i, node in enumerate(body.inputs)}
    loop = Loop(
        body,
        tuple([(position[inside.index], after) for inside, after, _ in carries]),
        tuple([position[inside.index] for inside, _ in sliced]),
        rounds,
        reverse,
        until,
    )
    inputs = [given.get(n.index) or body.captured[n.index] for n in body.inputs]
    made = graph.add(spec, tuple(inputs), {"loop": loop})
    graph.random_streams = body.random_streams
    for k, (slot, _) in enumerate(assigned, first):
        if rounds:
            graph.assign(slot, piece(made, graph, FINAL, k).node)
    return made


def stacked(graph: Graph, node: Node, value: Node) -> Array:
    """The values of a body's node in all rounds, along a new first axis."""
    with tracing(graph):
        found: Array | None = _known_stack(graph, node, value)
    return piece(node, graph, VALUE, value.index) if found is None else found


def _known_stack(graph: Graph, node: Node, value: Node) -> Any:
    """Of what is no result of the body: a carry, an input, a constant."""
    loop: Loop = node.attrs["loop"]
    body, rounds = loop.body, loop.length
    for k, (position, after) in enumerate(loop.carries):
        if value is after or value is body.inputs[position]:
            first = int((value is after) != loop.reverse)
            return piece(node, graph, BEFORE, k)[first : first + rounds]
    if value.spec is INPUT:
        position = body.inputs.index(value)
        source = Array(graph, node.inputs[position])
        if position in loop.sliced:
            return source
        return ops.broadcast_to(source, (rounds, *value.shape))
    if value.is_leaf:
        constant = Array(graph, graph.constant(value.payload, value.weak))
        return ops.broadcast_to(constant, (rounds, *value.shape))
    return None
