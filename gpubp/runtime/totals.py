"""A loss as sums over counts: what must be added where batches meet.

Comes in: a graph that ends in a loss of some samples. Goes out: its terms, each a sum and a count,
such that the loss of several batches together is, for each term, the sum of sums divided by the
sum of counts. A loss that says nothing else is a mean over samples: its terms are empty here, and
whoever asks weighs it by the batch's size.

The terms are found from what `ops.mean_over` and sums of losses remember (`Graph.ratios`). The loss
may be any expression that is linear in them, such as 0.3 a + b + penalty; what is left without
them is a mean over samples. Of other expressions (the square of a mean, say) nothing can be said:
they count as means over samples too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.compiler.grad import gradients
from gpubp.core import CONST, Array, Graph, Node, tracing

# The count of a term that is a sum: it is added up, and divided by nothing.
NO_COUNT = np.nan


@dataclass(frozen=True)
class Term:
    """A part of a loss: a sum over a count.

    Attributes:
        total: scalar; differentiable.
        count: scalar, not below 0; None where the term is a sum by itself.
    """

    total: Array
    count: Array | None


def terms_of(graph: Graph, loss: Node, samples: int) -> list[Term]:
    """The terms of a loss; none if it is a mean over its samples.

    Args:
        graph: nodes are appended to it.
        loss: a float scalar.
        samples: that it is a loss of.
    """
    ratios = _outermost(graph, loss)
    if not ratios:
        return []
    with tracing(graph):
        found = _factors(graph, loss, ratios)
        if found is None:
            return []
        terms = [
            Term(total, None if count is None else Array(graph, count))
            for count, total in _grouped(graph, ratios, found)
        ]
        rest = _without(graph, loss, ratios)
        if rest.spec is not CONST or rest.payload != 0:
            number = ops.astype(np.float64(samples), rest.dtype)
            terms.append(Term(_times(graph, rest, number), _constant(graph, number)))
    return terms


def mean_of_samples(graph: Graph, loss: Node, samples: int) -> Term:
    """A loss that is a mean over its samples, as a term."""
    with tracing(graph):
        number = ops.astype(np.float64(samples), loss.dtype)
        return Term(_times(graph, loss, number), _constant(graph, number))


def _constant(graph: Graph, number: NDArray[np.floating]) -> Array:
    return Array(graph, graph.lift(number))


def _times(graph: Graph, node: Node, factor: Array | NDArray[np.floating]) -> Array:
    product: Array = ops.multiply(Array(graph, node), factor)
    return product


def _outermost(graph: Graph, loss: Node) -> list[Node]:
    """The nodes with a sum and a count that the loss is made of, without those inside others."""
    if not graph.ratios:
        return []
    cone = _cone(loss, stop=set(graph.ratios))
    return sorted((n for n in cone if n.index in graph.ratios), key=lambda node: node.index)


def _cone(end: Node, stop: set[int]) -> list[Node]:
    """What `end` is computed from, itself included, but not what is behind a node of `stop`."""
    found, seen = [end], {end.index}
    for node in found:
        if node.index not in stop:
            new = [i for i in node.inputs if i.index not in seen]
            seen.update(i.index for i in new)
            found += new
    return found


def _factors(graph: Graph, loss: Node, ratios: Sequence[Node]) -> list[Node] | None:
    """The derivative of the loss by each ratio, if it depends on no ratio: the loss is linear."""
    if loss.shape != () or loss.dtype.kind != "f":
        return None
    factors = [g for g in gradients(graph, loss, ratios) if g is not None]
    if len(factors) < len(ratios) or any(_outermost(graph, g) for g in factors):
        return None
    return factors


def _grouped(
    graph: Graph, ratios: Sequence[Node], factors: Sequence[Node]
) -> list[tuple[Node | None, Array]]:
    """(count, factor times sum) of the ratios; those of one count are added."""
    groups: dict[int | None, tuple[Node | None, Array]] = {}
    for ratio, factor in zip(ratios, factors, strict=True):
        total, count = graph.ratios[ratio.index]
        one = factor.spec is CONST and factor.payload == 1
        part = Array(graph, total) if one else _times(graph, total, Array(graph, factor))
        key = None if count is None else count.index
        groups[key] = (count, groups[key][1] + part if key in groups else part)
    return list(groups.values())


def _without(graph: Graph, loss: Node, ratios: Sequence[Node]) -> Node:
    """The loss where every ratio is 0."""
    new = {r.index: graph.constant(np.zeros((), r.dtype)) for r in ratios}
    between = {n.index for n in _cone(loss, stop=set(new))}
    for node in graph.nodes[min(new) + 1 : loss.index + 1]:
        if node.index in between and any(i.index in new for i in node.inputs):
            inputs = tuple(new.get(i.index, i) for i in node.inputs)
            new[node.index] = graph.add(node.spec, inputs, node.attrs)
    return new[loss.index]


def together(rows: NDArray[np.float64]) -> float:
    """The loss of several batches as of one.

    Args:
        rows: (batches, terms, 2): the sums and counts of each.

    Returns:
        NaN where nothing counts.
    """
    value = 0.0
    for total, count in np.ascontiguousarray(rows.transpose(1, 2, 0)).sum(axis=-1).tolist():
        if count == 0:
            return float("nan")
        value += total if np.isnan(count) else total / count
    return value


def spoiled(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which batches (of rows as `together` takes them) have a loss that is NaN or infinite.

    A batch in which nothing counts has none: its loss is NaN, but its sum is 0.
    """
    found: NDArray[np.bool_] = np.any(~np.isfinite(rows[:, :, 0]), axis=1)
    return found
