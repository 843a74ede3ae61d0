"""Sums over many rows of few columns are made in two steps: each sample's first, then of those.

Comes in: a graph. Goes out: the same values. The sum of (N, H, W, C) over all but the channels has
C results, which workers could only share by columns: each would read every cache line of the
array for its part of it. The sums of samples, (N, C), are shared by samples, as what made the array
and what reads it are, so they need no barrier before them; the sum of N rows behind one is small.
"""

from __future__ import annotations

import math

from gpubp.core import Graph, Node, live_order

LEAST = 1 << 14  # elements of an array for which a barrier more is no price
SHRINKS = 8  # times fewer sums of samples than elements, at least


def split_sums(graph: Graph) -> Graph:
    """A copy of the live part of a graph with such sums split; itself if there are none."""
    if not any(_is_tall(node) for node in graph.nodes):
        return graph
    made = Graph()
    values: dict[int, Node] = {}
    for node in graph.inputs:
        values[node.index] = made.input(node.shape, node.dtype)
    for node in live_order(graph):
        if node.index not in values:
            inputs = tuple(values[i.index] for i in node.inputs)
            if _is_tall(node):
                inputs = (_sums_of_samples(made, node, inputs[0]),)
            values[node.index] = made.append(
                node.spec, inputs, node.attrs, node.shape, node.dtype, node.payload
            )
    made.writes = [(slot, values[n.index]) for slot, n in graph.writes]
    made.outputs = [values[n.index] for n in graph.outputs]
    return made


def _is_tall(node: Node) -> bool:
    if not node.spec.accumulates:
        return False
    (x,), axes = node.inputs, node.attrs["axis"]
    if x.dtype.kind != "f" or x.size < LEAST:
        return False
    leading = len(axes) > 1 and axes == tuple(range(len(axes)))
    sums = x.shape[0] * math.prod(x.shape[len(axes) :])
    return leading and len(axes) < len(x.shape) and x.shape[0] > 1 and x.size >= SHRINKS * sums


def _sums_of_samples(graph: Graph, node: Node, x: Node) -> Node:
    """Over the same axes but the first; they stay, with size 1. Of a mean, the means of samples."""
    axes = node.attrs["axis"][1:]
    shape = (x.shape[0], *[1] * len(axes), *x.shape[len(axes) + 1 :])
    attrs = {**node.attrs, "axis": axes, "keepdims": True}
    return graph.append(node.spec, (x,), attrs, shape, node.dtype)
