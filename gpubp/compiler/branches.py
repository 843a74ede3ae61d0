"""`gp.while_loop` and `gp.cond`: loops whose length the program finds out, for inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked
from gpubp.compiler.loop_body import FINAL, Body, piece
from gpubp.compiler.loop_build import add_loop
from gpubp.compiler.scan import LOOP, at_once_as_graph, carried, lifted
from gpubp.core import Array, Graph, Node, active_graph, describe, tracing, tree
from gpubp.errors import ArgumentError, DTypeError, ShapeError
from gpubp.ops.weak import leaving

FOR_EVER = 2**62


@checked
def while_loop(cond_fun: Callable[..., Any], body_fun: Callable[..., Any], init_val: Any) -> Any:
    """Run `body_fun` on its own result for as long as `cond_fun` says so.

    As jax.lax.while_loop. There is no gradient. On a GPU the host waits for the condition of each
    round.

    Args:
        cond_fun: of the carry, returns a bool of shape (); traceable.
        body_fun: of the carry, returns one of the same structure, shapes and dtypes; traceable.
        init_val: the carry: arrays, or nested tuples, lists and dicts of them.

    Returns:
        The first carry of which `cond_fun` is False.

    Raises:
        ArgumentError, ShapeError, DTypeError: the carry changes its type; no single bool.
    """
    active = active_graph()
    if active is None:
        return at_once_as_graph(lambda graph, c: _while(graph, cond_fun, body_fun, c), init_val)
    return _while(active, cond_fun, body_fun, init_val)


def _while(graph: Graph, go_on: Callable[..., Any], fn: Callable[..., Any], carry: Any) -> Any:
    start, structure = lifted(graph, carry)
    given = tree.unflatten(structure, [Array(graph, n) for n in start])
    first = _condition(graph, go_on(given), "while_loop: cond_fun")
    body = Body(graph)
    with tracing(body):
        inputs = [body.input(n.shape, n.dtype) for n in start]
        going = body.input((), np.bool_)
        out = fn(tree.unflatten(structure, [Array(body, n) for n in inputs]))
        after = carried("while_loop: body_fun", body, out, structure, inputs)
        again = go_on(tree.unflatten(structure, [Array(body, n) for n in after]))
        last = _condition(body, again, "while_loop: cond_fun")
    carries = [*zip(inputs, after, start, strict=True), (going, last, first)]
    node = add_loop(LOOP, graph, body, carries, (), FOR_EVER, until=len(start))
    found = [piece(node, graph, FINAL, k) for k in range(len(start))]
    return tree.unflatten(structure, found)


def _condition(graph: Graph, value: Any, what: str) -> Node:
    node = graph.lift(value)
    if node.shape != () or node.dtype != np.bool_:
        raise ArgumentError(
            f"{what} is {describe(node)}, expected a bool of shape (): compare with a number, and "
            "reduce with gp.ops.min or gp.ops.max."
        )
    return node


@checked
def cond(
    pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any
) -> Any:
    """`true_fun(*operands)` if `pred`, else `false_fun(*operands)`; only one of them is computed.

    As jax.lax.cond. There is no gradient: to train, compute both and use gp.ops.where. On a GPU the
    host waits for the condition.

    Args:
        pred: a bool of shape (); a Python bool chooses while tracing.
        true_fun, false_fun: traceable; both return the same structure, shapes and dtypes.
        *operands: arrays, or nested tuples, lists and dicts of them.

    Raises:
        ArgumentError: pred is no single bool, or the functions return different structures.
        ShapeError, DTypeError: they return different types.
    """
    if isinstance(pred, (bool, np.bool_)):
        return (true_fun if pred else false_fun)(*operands)
    active = active_graph()
    if active is None:
        return at_once_as_graph(
            lambda graph, given: _cond(graph, given[0], true_fun, false_fun, given[1]),
            [pred, list(operands)],
        )
    return _cond(active, pred, true_fun, false_fun, list(operands))


def _cond(
    graph: Graph, pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], given: Any
) -> Any:
    yes = _condition(graph, pred, "cond: pred")
    with tracing(graph):
        no = ops.logical_not(Array(graph, yes)).node
    values: list[Node] | None = None
    structure: Any = None
    for go, fn in ((yes, true_fun), (no, false_fun)):
        body = Body(graph)
        with tracing(body):
            results, found = tree.flatten(fn(*given))
            after = [leaving(body, body.lift(r)) for r in results]
        if values is None:
            structure, values = found, [_zeros(graph, n) for n in after]
        _require_alike(structure, values, found, after)
        inputs = [body.input(n.shape, n.dtype) for n in values]
        going = body.input((), np.bool_)
        stop = body.constant(np.zeros((), np.bool_))
        carries = [*zip(inputs, after, values, strict=True), (going, stop, go)]
        node = add_loop(LOOP, graph, body, carries, (), 1, until=len(values))
        values = [piece(node, graph, FINAL, k).node for k in range(len(values))]
    assert values is not None
    return tree.unflatten(structure, [Array(graph, n) for n in values])


def _zeros(graph: Graph, like: Node) -> Node:
    zero = Array(graph, graph.constant(np.zeros((), like.dtype)))
    with tracing(graph):
        made: Array = ops.broadcast_to(zero, like.shape)
    return made.node


def _require_alike(structure: Any, types: list[Node], found: Any, nodes: list[Node]) -> None:
    if repr(found) != repr(structure):
        raise ArgumentError(
            f"cond: true_fun returned {structure!r}, but false_fun {found!r} (* stands for an "
            "array): both must return the same structure."
        )
    for a, b in zip(types, nodes, strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            error = ShapeError if a.shape != b.shape else DTypeError
            raise error(f"cond: true_fun returned {describe(a)}, but false_fun {describe(b)}.")
