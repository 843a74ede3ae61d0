"""`gp.custom_vjp`: a function of traced code whose gradient the user says.

Comes in: a function that returns a result and what its gradient needs, and the gradient. Goes out:
a function, and a rule on the graph of each trace: cotangents of its results go through the user's
backward to its arguments, and not through its ops (`Graph.rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked, shown
from gpubp.core import ALIAS, Array, Graph, Node, active_graph, describe, tree
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, GradientError


class Rule:
    """One call of a function whose gradient is the user's.

    Args:
        name: of the function.
        backward: the user's.
        saved: what it is given first.
        args: for each argument, its leaves that are arrays.
        outs: the results' nodes.
        structure: of the results.

    Attributes:
        first: the first result of floats; the others wait for it.
    """

    def __init__(
        self,
        name: str,
        backward: Callable[..., Any],
        saved: Any,
        args: Sequence[list[Node]],
        outs: Sequence[Node],
        structure: Any,
    ) -> None:
        self.name, self._backward, self._saved = name, backward, saved
        self.args, self.outs, self._structure = args, outs, structure
        self.first = next(n for n in outs if n.dtype.kind == "f")

    @property
    def sources(self) -> list[Node]:
        """All argument arrays."""
        return [node for leaves in self.args for node in leaves]

    def parts(self, graph: Graph, given: dict[int, Any]) -> Iterator[tuple[Node, Array]]:
        """(argument, cotangent) for each that has one; `given`: of results, by index.

        Raises:
            GradientError: the backward returned another number of cotangents, or other shapes.
        """
        gs = [given[n.index] if n.index in given else _zeros(graph, n) for n in self.outs]
        found = self._backward(self._saved, tree.unflatten(self._structure, gs))
        several = list(found) if isinstance(found, (tuple, list)) else [found]
        if len(several) != len(self.args):
            raise GradientError(
                f"the backward of {self.name} returned {len(several)} cotangents for "
                f"{len(self.args)} arguments; return one for each, None where there is none."
            )
        for i, (leaves, one) in enumerate(zip(self.args, several, strict=True)):
            parts, _ = tree.flatten(one)
            if one is None or all(part is None for part in parts):
                continue
            if len(parts) != len(leaves):
                raise GradientError(
                    f"the backward of {self.name} returned {len(parts)} arrays for argument {i}, "
                    f"which has {len(leaves)}."
                )
            for node, part in zip(leaves, parts, strict=True):
                if part is not None:
                    yield node, self._fitting(graph, i, node, part)

    def moved(self, graph: Graph, copies: Mapping[int, Node]) -> Rule:
        """The same of a graph's copy; `copies`: by the index of each node."""
        leaves, shape = tree.flatten(self._saved)
        kept = [Array(graph, copies[x.node.index]) if isinstance(x, Array) else x for x in leaves]
        args = [[copies[n.index] for n in several] for several in self.args]
        outs, saved = [copies[n.index] for n in self.outs], tree.unflatten(shape, kept)
        return Rule(self.name, self._backward, saved, args, outs, self._structure)

    def _fitting(self, graph: Graph, i: int, node: Node, part: Any) -> Array:
        made = Array(graph, graph.lift(part))
        if made.shape == node.shape and made.dtype.kind == "f" == node.dtype.kind:
            return made if made.dtype == node.dtype else made.astype(node.dtype)
        raise GradientError(
            f"the backward of {self.name} returned {describe(made)} for argument {i}, which is "
            f"{describe(node)}."
        )


def _zeros(graph: Graph, node: Node) -> Any:
    zero = Array(graph, graph.constant(np.zeros((), node.dtype)))
    return ops.broadcast_to(zero, node.shape)


@checked
def custom_vjp(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose gradient you say, as `jax.custom_vjp` or `torch.autograd.Function`.

    Both parts are made of `gp.ops`, are traced like any code, and can be differentiated again.

    Args:
        forward: (*args) -> (out, saved): the result, an array or nested tuples, lists and dicts of
            arrays, and whatever the gradient needs.
        backward: (saved, cotangent) -> the cotangents of the arguments: one for each, of its shape,
            None where there is none. `cotangent` has the structure of `out`.

    Returns:
        (*args) -> out. Arguments without a dtype (numbers, texts) are handed on as they are.

    Raises:
        ArgumentError: (when it is called) forward returned no pair, or no array of floats.
        GradientError: (when it is differentiated) cotangents do not fit the arguments.
    """
    name = getattr(forward, "__name__", type(forward).__name__)

    @wraps(forward, updated=())
    def call(*args: Any) -> Any:
        graph = active_graph()
        if graph is None:
            return _pair(name, forward(*args))[0]
        own, leaves = [], []
        for arg in args:
            flat, structure = tree.flatten(arg)
            arrays = [_named(graph, x) if _is_array(x) else x for x in flat]
            own.append(tree.unflatten(structure, arrays))
            leaves.append([x.node for x in arrays if isinstance(x, Array)])
        out, saved = _pair(name, forward(*own))
        results, structure = tree.flatten(out)
        outs = [_named(graph, x).node for x in results]
        if not any(n.dtype.kind == "f" for n in outs):
            raise ArgumentError(f"custom_vjp: {name} returned no array of floats.")
        kept, shape = tree.flatten(saved)
        kept = [Array(graph, graph.lift(x)) if isinstance(x, (Array, Slot)) else x for x in kept]
        rule = Rule(name, backward, tree.unflatten(shape, kept), leaves, outs, structure)
        graph.rules.update({n.index: rule for n in outs if n.dtype.kind == "f"})
        return tree.unflatten(structure, [Array(graph, n) for n in outs])

    call.custom_vjp = forward, backward  # type: ignore[attr-defined]  # which traces follow
    return call


def _is_array(x: Any) -> bool:
    return isinstance(x, (Array, Slot, np.ndarray)) or hasattr(x, "dtype")


def _named(graph: Graph, leaf: Any) -> Array:
    """A node of its own, so that a rule is about this call alone."""
    node = graph.lift(leaf)
    tag = {"tag": len(graph.nodes)}
    return Array(graph, graph.append(ALIAS, (node,), tag, node.shape, node.dtype, weak=node.weak))


def _pair(name: str, found: Any) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        raise ArgumentError(
            f"custom_vjp: {name} returned {shown(found)}, expected a pair (out, saved)."
        )
    return found


def follow_rule(
    graph: Graph,
    node: Node,
    g: Any,
    reached: set[int],
    cotangents: dict[int, Any],
    given: dict[int, Any],
) -> None:
    """Through a user's backward, when the first of the results has its cotangent."""
    rule = graph.rules[node.index]
    given[node.index] = g
    if node is not rule.first:
        cotangents.setdefault(rule.first.index, []).append(_zeros(graph, rule.first))
        return
    for source, part in rule.parts(graph, given):
        if source.index in reached:
            cotangents.setdefault(source.index, []).append(part)


def refuse(graph: Graph, node: Node, batched: Node) -> None:
    """A result that `gp.vmap` has made of one with a rule has no gradient from outside of it."""
    graph.rules[batched.index] = _Refusal(graph.rules[node.index].name, batched)


class _Refusal:
    """In the place of a rule where there can be none."""

    def __init__(self, name: str, first: Node) -> None:
        self.name, self.first, self.sources = name, first, list(first.inputs)

    def moved(self, graph: Graph, copies: Mapping[int, Node]) -> _Refusal:
        return _Refusal(self.name, copies[self.first.index])

    def parts(self, graph: Graph, given: dict[int, Any]) -> Iterator[tuple[Node, Array]]:
        raise GradientError(
            f"{self.name} has a gradient of its own, which cannot be taken through gp.vmap from "
            "outside. Take the gradient inside: gp.vmap(gp.grad(fn))."
        )
