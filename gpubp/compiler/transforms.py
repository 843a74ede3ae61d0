"""`gp.jvp`, `gp.jacrev`, `gp.jacfwd`, `gp.hessian`: derivatives made of pullbacks.

Comes in: a traceable function. Goes out: functions of the same arguments. A pullback is linear in
its cotangent, so the pullback of that linear function carries tangents forward (J. Townsend, "A new
trick for calculating Jacobian vector products", 2017). A Jacobian is one pullback, or one such
function, of all unit vectors at once: see `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.compiler.batching import batch, stand_in
from gpubp.compiler.grad import (
    differentiable,
    or_zeros,
    pair,
    picked_arguments,
    pullback_of_all,
    standing_for,
    transform,
)
from gpubp.core import ALIAS, Array, Graph, Node, describe, tree
from gpubp.errors import ArgumentError, GradientError, ShapeError
from gpubp.ops.weak import leaving


@checked
def jvp(
    fn: Callable[..., Any], primals: Any, tangents: Any, *, has_aux: bool = False
) -> tuple[Any, ...]:
    """The value of a function, and its derivative along a direction; as `torch.func.jvp`.

    Args:
        fn: traceable; takes and returns arrays, or nested tuples, lists and dicts of them.
        primals: a tuple of its arguments, of floats.
        tangents: of the same structure, shapes and dtypes: the direction.
        has_aux: `fn` returns `(output, aux)`.

    Returns:
        (output, tangent of the output), with `has_aux` (output, tangent, aux).

    Raises:
        ArgumentError: `primals` or `tangents` are no tuples, or differ in structure.
        ShapeError: a tangent is not of its primal's type.
        GradientError: an argument or result that is not of floats.
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise ArgumentError(
            f"jvp: expected tuples of primals and tangents, got {shown(primals)} and "
            f"{shown(tangents)}. Write jvp(fn, (x,), (v,))."
        )

    def body(graph: Graph, given: list[Any]) -> Any:
        args, direction = given
        leaves, structure = tree.flatten(list(args))
        along, other = tree.flatten(list(direction))
        if repr(structure) != repr(other):
            raise ArgumentError(f"jvp: tangents are {other}, but primals are {structure}.")
        nodes = [differentiable(graph, leaf) for leaf in leaves]
        steps = [_like(graph, v, n) for v, n in zip(along, nodes, strict=True)]
        out, results, shape, aux = _called(graph, fn, args, has_aux)
        moved = tree.unflatten(shape, pushed(graph, results, nodes, steps))
        return (out, moved, aux) if has_aux else (out, moved)

    found: tuple[Any, ...] = transform(body)(tuple(primals), tuple(tangents))
    return found


def _like(graph: Graph, tangent: Any, primal: Node) -> Array:
    node = graph.lift(tangent)
    if node.weak and node.shape == primal.shape:
        node = graph.lift(ops.astype(Array(graph, node), primal.dtype))
    if node.shape != primal.shape or node.dtype != primal.dtype:
        raise ShapeError(f"jvp: a tangent is {describe(node)}, its primal is {describe(primal)}.")
    return Array(graph, node)


def _called(
    graph: Graph, fn: Callable[..., Any], args: Sequence[Any], has_aux: bool
) -> tuple[Any, list[Node], Any, Any]:
    """What `fn` returns, its leaves as nodes of floats, its structure, and what else it returns."""
    out = fn(*args)
    out, aux = pair(out) if has_aux else (out, ())
    leaves, shape = tree.flatten(out)
    nodes = [leaving(graph, graph.lift(leaf)) for leaf in leaves]
    for node in nodes:
        if node.dtype.kind != "f":
            raise GradientError(
                f"the function returned {describe(node)}, which has no derivative: it is not of "
                "floats. Return it beside the result, with has_aux=True."
            )
    return tree.unflatten(shape, [Array(graph, n) for n in nodes]), nodes, shape, aux


def pushed(
    graph: Graph, results: Sequence[Node], wrt: Sequence[Node], tangents: Sequence[Array]
) -> list[Array]:
    """The tangents of `results`, when `wrt` move along `tangents`."""
    late = [_unknown(graph, r) for r in results]
    pulled = pullback_of_all(graph, list(zip(results, late)), wrt)
    seeds = [(p, t.node) for p, t in zip(pulled, tangents, strict=True) if p is not None]
    return [
        or_zeros(graph, found, r)
        for found, r in zip(pullback_of_all(graph, seeds, late), results, strict=True)
    ]


def _unknown(graph: Graph, like: Node) -> Node:
    """A cotangent to differentiate by; what is linear in it has a gradient without it."""
    zeros = ops.broadcast_to(Array(graph, graph.constant(np.zeros((), like.dtype))), like.shape)
    return graph.add(ALIAS, (graph.lift(zeros),), {"tag": len(graph.nodes)})


Argnums = int | tuple[int, ...]


def _jacobian(
    fn: Callable[..., Any],
    argnums: Argnums,
    has_aux: bool,
    rows: Callable[[Graph, list[Node], list[Node]], list[list[Array]]],
) -> Callable[..., Any]:
    """`rows`: (graph, results, by what) -> for each result its Jacobians."""

    def call(*args: Any, **kwargs: Any) -> Any:
        def body(graph: Graph, given: list[Any]) -> Any:
            chosen = picked_arguments(given, argnums)
            leaves, structure = tree.flatten(chosen if isinstance(argnums, tuple) else chosen[0])
            wrt = [differentiable(graph, leaf) for leaf in leaves]
            if isinstance(argnums, tuple):
                structure = tuple(structure)
            _, results, shape, aux = _called(graph, lambda *a: fn(*a, **kwargs), given, has_aux)
            found = [tree.unflatten(structure, row) for row in rows(graph, results, wrt)]
            out = _filled(shape, found)
            return (out, aux) if has_aux else out

        return transform(body)(*args)

    return standing_for(fn, call)


def _filled(structure: Any, parts: list[Any]) -> Any:
    """Structures in the places of a structure's leaves."""
    return tree.unflatten(structure, parts)


def _units(like: Node) -> Any:
    """All unit vectors of a type: (size, *shape)."""
    return np.eye(like.size, dtype=like.dtype).reshape(like.size, *like.shape)


@checked
def jacrev(
    fn: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """The Jacobian of a function, row by row backwards; as `torch.func.jacrev`.

    The better one where there are fewer results than arguments.

    Args:
        fn: traceable; takes and returns arrays, or nested tuples, lists and dicts of them.
        argnums: which positional arguments to differentiate by; see `value_and_grad`.
        has_aux: `fn` returns `(output, aux)`.

    Returns:
        A function of the same arguments. Its result is nested like the output; each leaf is nested
        like the argument (with several argnums a tuple), with arrays (*output's, *argument's shape)
        in it. With `has_aux`, (Jacobian, aux).
    """

    def rows(graph: Graph, results: list[Node], wrt: list[Node]) -> list[list[Array]]:
        found = []
        for r in results:
            seed = stand_in(graph, r.shape, r.dtype)
            pulled = pullback_of_all(graph, [(r, seed)], wrt)
            nodes = [or_zeros(graph, p, n).node for p, n in zip(pulled, wrt, strict=True)]
            units = Array(graph, graph.constant(_units(r)))
            made = _all_of(graph, nodes, seed, units, r.size)
            found.append([ops.reshape(m, (*r.shape, *n.shape)) for m, n in zip(made, wrt)])
        return found

    return _jacobian(fn, argnums, has_aux, rows)


@checked
def jacfwd(
    fn: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """The Jacobian of a function, column by column forwards; as `torch.func.jacfwd`.

    The better one where there are fewer arguments than results. See `jacrev` for the arguments.
    """

    def rows(graph: Graph, results: list[Node], wrt: list[Node]) -> list[list[Array]]:
        columns = []
        for n in wrt:
            tangent = stand_in(graph, n.shape, n.dtype)
            moved = pushed(graph, results, [n], [Array(graph, tangent)])
            units = Array(graph, graph.constant(_units(n)))
            made = _all_of(graph, [m.node for m in moved], tangent, units, n.size)
            columns.append(
                [
                    ops.reshape(
                        ops.transpose(m, (*range(1, len(m.shape)), 0)), (*r.shape, *n.shape)
                    )
                    for m, r in zip(made, results, strict=True)
                ]
            )
        return [list(row) for row in zip(*columns)] if columns else [[] for _ in results]

    return _jacobian(fn, argnums, has_aux, rows)


def _all_of(graph: Graph, nodes: list[Node], seed: Node, units: Array, count: int) -> list[Any]:
    """What nodes that depend on a stand-in are for all unit vectors in its place."""
    again: dict[int, Node] = {}
    made = batch(graph, nodes, {seed.index: units}, count, again=again)
    nodes = [again.get(n.index, n) for n in nodes]
    return [
        ops.broadcast_to(Array(graph, n), (count, *n.shape)) if m is None else m
        for n, m in zip(nodes, made, strict=True)
    ]


def hessian(fn: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """The second derivatives of a function; as `torch.func.hessian`: jacfwd(jacrev(fn)).

    See `jacrev` for the arguments. The result is nested like the output, then twice like the
    argument, with arrays (*output's, *argument's, *argument's shape) in it.
    """
    return jacfwd(jacrev(fn, argnums), argnums)
