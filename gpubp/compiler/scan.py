"""`gp.scan`: a loop in a program, over the first axis of arrays.

Comes in: a function of (carry, x) and the arrays to run it over. Goes out: the last carry, and what
the function returned in each round, stacked. The size of a program, and the time to compile it, are
those of the function, not of the loop; gradients are loops backwards.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown
from gpubp.compiler.grad import at_hand, input_like
from gpubp.compiler.loop_body import FINAL, Body, Loop, Rounds, piece
from gpubp.compiler.loop_build import add_loop, stacked
from gpubp.compiler.loop_grad import loop_vjp
from gpubp.compiler.trace import evaluate_graph
from gpubp.core import (
    Array,
    ArrayType,
    Graph,
    Kind,
    Node,
    OpSpec,
    Typed,
    active_graph,
    describe,
    tracing,
    tree,
)
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DTypeError, ShapeError
from gpubp.ops.spec import cast_to
from gpubp.ops.weak import leaving


def _loop_infer(*_: Typed, loop: Loop) -> ArrayType:
    return ArrayType((0,), np.dtype(np.float32))


def _loop_flops(_out: Typed, *_: Typed, loop: Loop) -> float:
    nodes = [n for n in loop.body.nodes if not n.is_leaf]
    rounds = loop.length if loop.until < 0 else 1  # nobody knows
    return rounds * sum([n.spec.arithmetic(n, *n.inputs, **n.attrs) for n in nodes])


LOOP = OpSpec(
    "loop", Kind.LOOP, _loop_infer, lambda *xs, loop: Rounds(loop, xs), loop_vjp, flops=_loop_flops
)


@checked
def scan(
    body: Callable[..., Any],
    carry: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Run `body` once for each element along the first axis of `xs`, handing a carry on.

    As jax.lax.scan: `carry, y = body(carry, x)`, again and again. Parameters, buffers and traced
    arrays that the body uses from around it need not be handed in; buffers that it assigns are
    carried from round to round, and random numbers differ in each.

    Args:
        body: traceable; returns (carry, y): a carry of the same structure, shapes and dtypes, and
            anything to be stacked (None for nothing).
        carry: arrays, or nested tuples, lists and dicts of them.
        xs: the same; all with a first axis of the same size. None: nothing but the carry changes.
        length: rounds; needed where `xs` has no arrays.
        reverse: begin at the last element. What the body returns for element t stands at t.

    Returns:
        (carry, ys): what the last round returned, and the stacked y of all rounds.

    Raises:
        ArgumentError: no length, or one that is not that of `xs`; body does not return a pair.
        ShapeError, DTypeError: the carry changes its type, or `xs` differ in size.
    """
    active = active_graph()
    if active is not None:
        return _scan(active, body, carry, xs, length, reverse)
    found: tuple[Any, Any] = at_once_as_graph(
        lambda graph, given: _scan(graph, body, given[0], given[1], length, reverse), [carry, xs]
    )
    return found


def at_once_as_graph(build: Callable[[Graph, Any], Any], given: Any) -> Any:
    """Trace what `build` makes of arrays that are there, and evaluate it."""
    leaves, structure = tree.flatten(given)
    graph = Graph()
    arrays = [at_hand(leaf) for leaf in leaves]
    with tracing(graph):
        inputs = [input_like(graph, a, type(x) is float) for a, x in zip(arrays, leaves)]
        out = build(graph, tree.unflatten(structure, inputs))
    results, shape = tree.flatten(out)
    graph.outputs = [leaving(graph, graph.lift(r)) for r in results]
    values = [a.value if isinstance(a, Slot) else a for a in arrays]
    return tree.unflatten(shape, evaluate_graph(graph, values))


def _scan(
    graph: Graph, fn: Callable[..., Any], carry: Any, xs: Any, length: int | None, reverse: bool
) -> tuple[Any, Any]:
    start, structure = lifted(graph, carry)
    sliced, x_structure = lifted(graph, xs)
    rounds = _length(sliced, length)
    body = Body(graph)
    with tracing(body):
        inputs = [body.input(n.shape, n.dtype) for n in start]
        elements = [body.input(n.shape[1:], n.dtype) for n in sliced]
        out = fn(
            tree.unflatten(structure, [Array(body, n) for n in inputs]),
            tree.unflatten(x_structure, [Array(body, n) for n in elements]),
        )
        if not isinstance(out, (tuple, list)) or len(out) != 2:
            raise ArgumentError(f"scan: body must return (carry, y), got {shown(out)}.")
        after = carried("scan: body", body, out[0], structure, inputs)
        y_leaves, y_structure = tree.flatten(out[1])
        ys = [leaving(body, body.lift(y)) for y in y_leaves]
    carries = list(zip(inputs, after, start, strict=True))
    node = add_loop(LOOP, graph, body, carries, list(zip(elements, sliced)), rounds, reverse)
    found = [piece(node, graph, FINAL, k) for k in range(len(start))]
    stacks = [stacked(graph, node, y) for y in ys]
    return tree.unflatten(structure, found), tree.unflatten(y_structure, stacks)


def lifted(graph: Graph, given: Any) -> tuple[list[Node], Any]:
    """The nodes of a structure's arrays, and the structure."""
    leaves, structure = tree.flatten(given)
    return [leaving(graph, graph.lift(leaf)) for leaf in leaves], structure


def _length(sliced: Sequence[Node], length: int | None) -> int:
    """The number of rounds."""
    if length is not None:
        try:
            length = operator.index(length)
        except TypeError:
            length = -1
        if length < 0:
            raise ArgumentError("scan: length is not a whole number of at least 0.")
    for node in sliced:
        if not node.shape:
            raise ShapeError("scan: xs has a scalar, which has no first axis to run over.")
        length = node.shape[0] if length is None else length
        if node.shape[0] != length:
            raise ShapeError(
                f"scan: xs has {describe(node)}, expected {length} elements along the first axis."
            )
    if length is None:
        raise ArgumentError("scan: there is no xs; say how often with length.")
    return length


def carried(what: str, body: Graph, out: Any, structure: Any, inputs: Sequence[Node]) -> list[Node]:
    """The nodes of the carry that a body returned, held to the types of the one it was given."""
    leaves, found = tree.flatten(out)
    if repr(found) != repr(structure):
        raise ArgumentError(
            f"{what} returned a carry {found!r}, but it was given {structure!r} "
            "(* stands for an array)."
        )
    nodes = []
    for leaf, given in zip(leaves, inputs, strict=True):
        node = body.lift(leaf)
        if node.weak and given.dtype.kind == "f":  # of integers a part would be cut off
            node = cast_to(Array(body, node), given.dtype).node
        if node.shape != given.shape or node.dtype != given.dtype:
            error = ShapeError if node.shape != given.shape else DTypeError
            raise error(
                f"{what} returned a carry {describe(node)} where it was given "
                f"{describe(given)}: a carry keeps its type from round to round."
            )
        nodes.append(node)
    return nodes
