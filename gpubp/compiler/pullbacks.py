"""`gp.vjp`: the value of a function, and the linear function that pulls cotangents back.

Comes in: a traceable function and its arguments. Goes out: its value, and a pullback.

Holds in between: a pullback is a value. Everything that it needs is computed when it is made and
kept in memory of its own, so that nothing that changes afterwards reaches it; a pull adds nothing
to it, and several threads may pull at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked
from gpubp.compiler.grad import (
    alias,
    at_hand,
    differentiable,
    input_like,
    not_traced,
    or_zeros,
    pair,
    pullback,
)
from gpubp.compiler.trace import applied, device_among, evaluate_graph, own, value_of
from gpubp.core import (
    Array,
    ArrayType,
    Graph,
    Node,
    OpSpec,
    active_graph,
    bind,
    describe,
    live_order,
    tracing,
    tree,
)
from gpubp.core.store import Slot
from gpubp.errors import ShapeError, TraceError
from gpubp.ops.weak import leaving

Pull = Callable[[Any], tuple[Any, ...]]


@checked
def vjp(fn: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of `fn(*primals)` and the function that pulls cotangents back.

    The pullback is a value: what happens to the arguments, to parameters that `fn` reads and to
    arrays that it captures after this call has no influence on it. It may be called as often as
    one likes, from several threads, and inside a traced function.

    Args:
        fn: traceable; returns one array, or `(array, aux)` with `has_aux`.
        *primals: float arrays.
        has_aux: `aux` (arrays, or nested tuples, lists and dicts of them) is returned as well.

    Returns:
        (output, pull), with `has_aux` (output, pull, aux): `pull(cotangent)` takes an array of the
        output's shape and returns a tuple with one cotangent for each primal.
    """
    active = active_graph()
    if active is not None:
        out, target, nodes, aux = _called(active, fn, [alias(active, p) for p in primals], has_aux)
        found: tuple[Any, ...] = (out, _traced_pull(active, target, nodes), aux)
        return found if has_aux else found[:2]
    graph = Graph()
    leaves = [at_hand(p) for p in primals]
    with tracing(graph):
        args = [input_like(graph, x, type(p) is float) for x, p in zip(leaves, primals)]
        _, target, nodes, aux = _called(graph, fn, args, has_aux)
    more, structure = tree.flatten(aux)
    graph.outputs = [target, *[leaving(graph, graph.lift(a)) for a in more]]
    values: dict[int, Any] = {}
    out, *rest = evaluate_graph(graph, leaves, values)
    graph.writes = []
    pull = _pull_of(graph, target, nodes, leaves, values)
    return (out, pull, tree.unflatten(structure, rest)) if has_aux else (out, pull)


def _called(
    graph: Graph, fn: Callable[..., Any], args: list[Array], has_aux: bool
) -> tuple[Any, Node, list[Node], Any]:
    """What `fn` returns, its node, those of the arguments, and what else it returns."""
    nodes = [differentiable(graph, a) for a in args]
    out = fn(*args)
    out, aux = pair(out) if has_aux else (out, ())
    target = leaving(graph, graph.lift(out)) if isinstance(out, Array) else not_traced(out)
    return out, target, nodes, aux


def _traced_pull(graph: Graph, target: Node, nodes: list[Node]) -> Pull:
    """Inside a trace: each pull appends its ops."""

    def pull(cotangent: Any) -> tuple[Any, ...]:
        if active_graph() is not graph:
            raise TraceError(
                "this pullback was made inside a traced function, which has ended: call it there, "
                "or return what it gives."
            )
        seed = graph.lift(_of_type(cotangent, target))
        _require_like(seed, target)
        found = pullback(graph, target, seed, nodes)
        return tuple(or_zeros(graph, g, n) for g, n in zip(found, nodes))

    return pull


def _pull_of(
    graph: Graph, target: Node, nodes: list[Node], leaves: list[Any], values: dict[int, Any]
) -> Pull:
    """The pullback of a graph whose values are known.

    Args:
        graph: the function's.
        target, nodes: its output, and what to differentiate by.
        leaves: the values of its inputs.
        values: of all nodes that its outputs depend on.
    """
    seed = graph.input(target.shape, target.dtype)
    try:
        found = pullback(graph, target, seed, nodes)
        results = [or_zeros(graph, g, n).node for g, n in zip(found, nodes)]
    except Exception as error:  # a value may be wanted of what has no gradient
        return _failing(error)
    return _Linear(graph, seed, results, leaves, values)


def _failing(error: Exception) -> Pull:
    def pull(cotangent: Any) -> tuple[Any, ...]:
        raise error

    return pull


class _Linear:
    """Ops that lead from a cotangent to its pullbacks, and the values that they need beside it.

    Args:
        graph: holds all of it.
        seed: the cotangent's node, an input.
        results: nodes.
        leaves: the values of the other inputs.
        values: by node index, what is known.
    """

    def __init__(
        self,
        graph: Graph,
        seed: Node,
        results: Sequence[Node],
        leaves: Sequence[Any],
        values: dict[int, Any],
    ) -> None:
        self._device = device_among(leaves)
        self._seed, self._type = seed.index, ArrayType(seed.shape, seed.dtype)
        self._results = [r.index for r in results]
        self._ops: list[tuple[int, OpSpec, list[int], dict[str, Any]]] = []
        graph.outputs = list(results)
        moving, still = {seed.index}, []
        for node in live_order(graph):
            inputs = [i.index for i in node.inputs]
            if not moving.isdisjoint(inputs):
                moving.add(node.index)
                self._ops.append((node.index, node.spec, inputs, node.attrs))
            elif node is not seed:
                still.append(node)
                if node.index not in values:
                    values[node.index] = value_of(node, leaves, values, self._device)
        read = {i for _, _, inputs, _ in self._ops for i in inputs} | set(self._results)
        foreign = [values[n.index] for n in still if n.is_leaf]
        self._kept = {
            n.index: _apart(values[n.index], foreign, self._device)
            for n in still
            if n.index in read
        }

    def __call__(self, cotangent: Any) -> tuple[Any, ...]:
        if isinstance(cotangent, Array):
            _require_like(cotangent, self._type)
            return self._walk(cotangent, lambda spec, args, attrs: bind(spec, *args, **attrs))
        device, given = self._device, at_hand(_of_type(cotangent, self._type))
        given = given.value if isinstance(given, Slot) and device is None else given
        _require_like(given, self._type)
        device_among([given, np.zeros(1) if device is None else device])
        found = self._walk(given, lambda spec, args, attrs: applied(spec, args, attrs, device))
        return tuple(own(value, device) for value in found)

    def _walk(self, seed: Any, apply: Callable[..., Any]) -> tuple[Any, ...]:
        values = {**self._kept, self._seed: seed}
        for index, spec, inputs, attrs in self._ops:
            values[index] = apply(spec, [values[i] for i in inputs], attrs)
        return tuple(values[r] for r in self._results)


def _apart(value: Any, foreign: Sequence[Any], device: Any) -> Any:
    """The value in memory that nobody else writes: copied where it shares that of a leaf."""
    if isinstance(value, np.ndarray):
        host = [a for a in foreign if isinstance(a, np.ndarray)]
        return value.copy() if any(np.may_share_memory(value, a) for a in host) else value
    return own(value, device) if any(value is a for a in foreign) else value


def _of_type(cotangent: Any, wanted: Any) -> Any:
    """A Python float takes the dtype of what it is the cotangent of."""
    return np.asarray(cotangent, wanted.dtype) if type(cotangent) is float else cotangent


def _require_like(given: Any, wanted: Any) -> None:
    if tuple(given.shape) != wanted.shape or given.dtype != wanted.dtype:
        raise ShapeError(
            f"the cotangent is {describe(given)}, but the output is {describe(wanted)}."
        )
