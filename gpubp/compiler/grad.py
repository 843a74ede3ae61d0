"""Reverse mode, graph to graph: every op's vjp emits ops into the same graph.

Comes in: a graph, an output node, the nodes to differentiate by. Goes out: nodes of the same graph
that hold the gradients. So a gradient is ordinary graph: it can be fused, compiled, and
differentiated again.

Reverse-mode differentiation after Griewank & Walther, "Evaluating Derivatives" (2008), chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.compiler.cotangents import total
from gpubp.compiler.custom_vjp import follow_rule
from gpubp.compiler.recomputed import Again
from gpubp.compiler.trace import evaluate_graph
from gpubp.core import (
    ALIAS,
    Array,
    Graph,
    Kind,
    Node,
    active_graph,
    at_once,
    concrete,
    describe,
    tracing,
    tree,
)
from gpubp.core.interop import on_device
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, GradientError, TraceError
from gpubp.ops.weak import leaving


def pullback(graph: Graph, output: Node, cotangent: Node, wrt: Sequence[Node]) -> list[Node | None]:
    """Append the gradient of `output` (times `cotangent`) by each node of `wrt`.

    Args:
        graph, output, cotangent: what to differentiate; of its shape and dtype.
        wrt: leaves or inner nodes.

    Returns:
        One node for each of `wrt`, or None where there is no path to the output.
    """
    return pullback_of_all(graph, [(output, cotangent)], wrt)


def pullback_of_all(
    graph: Graph, seeds: Sequence[tuple[Node, Node]], wrt: Sequence[Node]
) -> list[Node | None]:
    """`pullback` of several values at once: `seeds` are pairs of a value and its cotangent."""
    last = max([output.index for output, _ in seeds], default=-1)
    reached = _depends_on(graph, wrt, last)
    cotangents: dict[int, Any] = {}
    targets = {n.index for n in wrt}
    given: dict[int, Any] = {}  # cotangents of results that have a user's rule
    again = Again(graph) if graph.recomputed else None
    with tracing(graph):
        for output, cotangent in seeds:
            if output.index in reached:
                _add_to(cotangents, output, Array(graph, cotangent))
        for node in reversed(graph.nodes[: last + 1]):
            if node.index in reached and node.index in cotangents and not node.is_leaf:
                g = total(cotangents[node.index])
                if node.index not in targets:
                    del cotangents[node.index]
                if node.index in graph.rules:
                    follow_rule(graph, node, g, reached, cotangents, given)
                    continue
                made = again(node, g) if again is not None else {}
                _propagate(graph, node, g, reached, cotangents, made)
        found = [cotangents.get(n.index) for n in wrt]
        return [None if g is None else total(g).node for g in found]


def _add_to(cotangents: dict[int, Any], node: Node, part: Array) -> None:
    cotangents.setdefault(node.index, []).append(part)


def _depends_on(graph: Graph, wrt: Sequence[Node], last: int) -> set[int]:
    """Indices of the float nodes up to `last` that depend on `wrt`, `wrt` included."""
    reached = {n.index for n in wrt if n.dtype.kind == "f"}
    if reached:
        for node in graph.nodes[min(reached) : last + 1]:
            sources = graph.rules[node.index].sources if node.index in graph.rules else node.inputs
            if node.dtype.kind == "f" and any(i.index in reached for i in sources):
                reached.add(node.index)
    return reached


def _propagate(
    graph: Graph,
    node: Node,
    g: Any,
    reached: set[int],
    cotangents: dict[int, Any],
    made: dict[int, Node],
) -> None:
    """Add what `node` sends to the cotangents of its inputs; `made`: nodes to use for others."""
    if node.spec.kind is Kind.PIECE:  # a loop gets the cotangents of all its pieces together
        cotangents.setdefault(node.inputs[0].index, []).append((node, g))
        return
    if node.spec.vjp is None:
        raise GradientError(
            f"{node.spec.name} has no gradient, and the result depends on it. Wrap its input in "
            "gp.ops.stop_gradient if none is wanted."
        )
    xs = [Array(graph, made.get(i.index, i)) for i in node.inputs]
    parts = node.spec.vjp(g, Array(graph, made.get(node.index, node)), *xs, **node.attrs)
    for source, part in zip(node.inputs, parts, strict=True):
        if part is None or source.index not in reached:
            continue
        if part.shape != source.shape or part.dtype != source.dtype:
            raise GradientError(
                f"the vjp of {node.spec.name} returned {describe(part)} for an input that is "
                f"{describe(source)}."
            )
        _add_to(cotangents, source, part)


def gradients(graph: Graph, loss: Node, wrt: Sequence[Node]) -> list[Node | None]:
    """The gradient of a scalar by each of `wrt`; see `pullback`."""
    if loss.shape != () or loss.dtype.kind != "f":
        raise GradientError(
            f"the loss must be a float scalar of shape (), got {describe(loss)}. Reduce it, for "
            "example with gp.ops.mean."
        )
    seed = graph.constant(np.ones((), loss.dtype), loss.weak)
    return pullback(graph, loss, seed, wrt)


@checked
def value_and_grad(
    fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns `(fn(*args), gradient)`.

    Args:
        fn: traceable; returns a float scalar, or `(scalar, aux)` with `has_aux`.
        argnums: which positional arguments to differentiate by; each may be an array or a nested
            tuple, list or dict of float arrays. An int gives one gradient, a tuple a tuple.
        has_aux: the first element of the result is then `(value, aux)`.

    Returns:
        The new function: usable on concrete arrays, inside `gp.compile`, and under `gp.grad`.
        Arguments by name are handed on, and are not differentiated by.
    """

    def transformed(kwargs: dict[str, Any], graph: Graph, args: list[Any]) -> Any:
        wrt, structure = tree.flatten(picked_arguments(args, argnums))
        wrt_nodes = [differentiable(graph, leaf) for leaf in wrt]
        out = fn(*args, **kwargs)
        value, aux = pair(out) if has_aux else (out, None)
        loss = graph.lift(value) if isinstance(value, Array) else not_traced(value)
        found = gradients(graph, loss, wrt_nodes)
        arrays = [or_zeros(graph, g, n) for g, n in zip(found, wrt_nodes)]
        grads = tuple(tree.unflatten(structure, arrays))
        result = (value, aux) if has_aux else value
        return result, grads if isinstance(argnums, tuple) else grads[0]

    def both(*args: Any, **kwargs: Any) -> Any:
        return transform(partial(transformed, kwargs))(*args)

    return standing_for(fn, both)


def picked_arguments(args: Sequence[Any], argnums: int | tuple[int, ...]) -> list[Any]:
    """The arguments to differentiate by. Raises for argnums that are none."""
    picked = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(i, int) for i in picked):
        raise ArgumentError(f"argnums are {argnums!r}, expected whole numbers.")
    for i in picked:
        if not -len(args) <= i < len(args):
            raise GradientError(f"argnums {i} is out of range for {len(args)} arguments.")
    return [args[i] for i in picked]


@checked
def grad(
    fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of `fn`; with `has_aux`, `(gradient, aux)`.

    See `value_and_grad` for the arguments.
    """
    both = value_and_grad(fn, argnums, has_aux)

    def gradient_of(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return standing_for(fn, gradient_of)


def standing_for(fn: Any, made: Callable[..., Any]) -> Callable[..., Any]:
    """A function made of another one, which says so: a trace follows what that one can reach."""
    made.__wrapped__ = fn  # type: ignore[attr-defined]
    return made


def transform(body: Callable[[Graph, list[Any]], Any]) -> Callable[..., Any]:
    """Run `body` in the active trace if an argument is traced, else trace and evaluate it."""

    def call(*args: Any) -> Any:
        leaves, structure = tree.flatten(list(args))
        active = active_graph()
        if active is not None:
            lifted = [alias(active, leaf) for leaf in leaves]
            return body(active, tree.unflatten(structure, lifted))
        graph = Graph()
        arrays = [at_hand(leaf) for leaf in leaves]
        with tracing(graph):
            traced = [input_like(graph, a, type(x) is float) for a, x in zip(arrays, leaves)]
            out = body(graph, tree.unflatten(structure, traced))
        results, shape = tree.flatten(out)
        graph.outputs = [leaving(graph, graph.lift(r)) for r in results]
        return tree.unflatten(shape, evaluate_graph(graph, arrays))

    return call


def at_hand(leaf: Any) -> Any:
    """An argument whose numbers are there: a slot, an array on a device, or a NumPy array."""
    if isinstance(leaf, Slot):
        return leaf
    if type(leaf) is float:
        return np.asarray(leaf)
    return at_once.to_user_array(leaf) if on_device(leaf) else concrete(leaf)


def input_like(graph: Graph, array: Any, weak: bool = False) -> Array:
    """The graph's next input, of this array's type; `weak`: a Python float."""
    return Array(graph, graph.input(array.shape, array.dtype, weak))


def alias(graph: Graph, leaf: Any) -> Array:
    """A node of its own for an argument, so that closures over the same value stay constant."""
    node = graph.lift(leaf)
    return Array(graph, graph.add(ALIAS, (node,), {"tag": len(graph.nodes)}))


def differentiable(graph: Graph, leaf: Any) -> Node:
    """The node of an argument to differentiate by; GradientError if it is not of floats."""
    node = graph.lift(leaf)
    if node.dtype.kind != "f":
        raise GradientError(f"cannot differentiate by {describe(node)}: it is not a float array.")
    return node


def pair(out: Any) -> tuple[Any, Any]:
    """What a function returns with has_aux. Raises GradientError unless it is a pair."""
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise GradientError(
            f"with has_aux the function must return (value, aux), got {shown(out)}."
        )
    return out[0], out[1]


def or_zeros(graph: Graph, g: Node | None, like: Node) -> Array:
    """A gradient; zeros where there is no path."""
    if g is None:
        zero = Array(graph, graph.constant(np.zeros((), like.dtype)))
        with tracing(graph):
            out: Array = ops.broadcast_to(zero, like.shape)
        return out
    return Array(graph, g)


def not_traced(value: Any) -> Node:
    """Raise TraceError: a function returned something that is not traced."""
    raise TraceError(
        f"the function returned {value!r}, which does not depend on its traced arguments. "
        "Return the result of gp.ops on the arguments."
    )
