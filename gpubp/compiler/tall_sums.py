"""Sums over many rows with few results are made in two steps: of pieces first, then of those.

Comes in: a graph. Goes out: the same values.

The sum of (N, H, W, C) over all but the channels has C results, which workers could only share by
columns: each would read every cache line of the array for its part of it. The sums of samples,
(N, C), are shared by samples, as what made the array and what reads it are, so they need no barrier
before them; the sum of N rows behind one is small.

So it is with the product A'B of (K, M) and (K, N) for a large K and few results, which is the
gradient of a recurrent layer's weights: a strip of its results walks all of A, a part of each cache
line, and all of B. Pieces of some hundred rows stay in cache for all strips. And each worker reads
the rows that it has made before: shared by results, it would read what all others have made.
"""

from __future__ import annotations

import math

from gpubp.core import Graph, Kind, Node, live_order
from gpubp.ops.linalg import MATMUL
from gpubp.ops.reduce import SUM
from gpubp.ops.shape import RESHAPE, TRANSPOSE

LEAST = 1 << 14  # elements of an array for which a barrier more is no price
SHRINKS = 8  # times fewer sums of samples than elements, at least
TALL = 1024  # rows of a product that is split
PIECE, LEAST_PIECE, AT_ONCE = 512, 128, 8  # rows of a piece; fewer, for so many pieces at once
NARROW, RESULTS = 64, 1 << 15  # columns of one operand, and results of a product, at most


def split_sums(graph: Graph) -> Graph:
    """A copy of the live part of a graph with such sums split; itself if there are none."""
    if not any(_is_tall(node) or _pieces(node) for node in graph.nodes):
        return graph
    return _Splitting(graph).result()


def _is_tall(node: Node) -> bool:
    if not node.spec.accumulates:
        return False
    (x,), axes = node.inputs, node.attrs["axis"]
    if x.dtype.kind != "f" or x.size < LEAST:
        return False
    leading = len(axes) > 1 and axes == tuple(range(len(axes)))
    sums = x.shape[0] * math.prod(x.shape[len(axes) :])
    return leading and len(axes) < len(x.shape) and x.shape[0] > 1 and x.size >= SHRINKS * sums


def _pieces(node: Node) -> int:
    """Into how many a product is split; 0: it stays."""
    if node.spec.kind is not Kind.MATMUL or len(node.shape) != 2 or node.dtype.kind != "f":
        return 0
    turned, right = node.inputs
    rows = right.shape[0]
    if not _turns(turned) or len(right.shape) != 2 or rows < TALL:
        return 0
    if any(x.spec.kind is Kind.LEAF for x in (turned.inputs[0], right)):
        return 0  # a batch's rows are read where they are
    if min(node.shape) > NARROW or node.size > RESULTS:
        return 0
    most = max(rows // PIECE, min(AT_ONCE, rows // LEAST_PIECE))
    return next((p for p in range(most, most // 2, -1) if rows % p == 0), 0)


def _turns(node: Node) -> bool:
    """It is the transpose of a matrix."""
    return node.spec is TRANSPOSE and node.attrs["axes"] == (1, 0)


class _Splitting:
    def __init__(self, graph: Graph) -> None:
        self.source, self.graph = graph, Graph()
        self.order = live_order(graph)
        self.values: dict[int, Node] = {}
        self.turned = self._products_read_turned()

    def _products_read_turned(self) -> dict[int, Node]:
        """Products of which nothing but the transpose is read, by the number of that."""
        readers: dict[int, list[Node]] = {}
        for node in self.order:
            for x in node.inputs:
                readers.setdefault(x.index, []).append(node)
        kept = {n.index for n in (*self.source.outputs, *[n for _, n in self.source.writes])}
        found = {}
        for node in self.order:
            after = readers.get(node.index, [])
            turned = len(after) == 1 and _turns(after[0]) and node.index not in kept
            if turned and _pieces(node):
                found[after[0].index] = node
        return found

    def result(self) -> Graph:
        """The graph."""
        values, skipped = self.values, {n.index for n in self.turned.values()}
        for node in self.source.inputs:
            values[node.index] = self.graph.input(node.shape, node.dtype)
        for node in self.order:
            if node.index not in values and node.index not in skipped:
                values[node.index] = self._translate(node)
        self.graph.writes = [(slot, values[n.index]) for slot, n in self.source.writes]
        self.graph.outputs = [values[n.index] for n in self.source.outputs]
        return self.graph

    def _translate(self, node: Node) -> Node:
        if node.index in self.turned:
            product = self.turned[node.index]
            left, right = product.inputs
            return self._in_pieces(right, left.inputs[0], _pieces(product), node)
        if count := _pieces(node):
            return self._in_pieces(node.inputs[0].inputs[0], node.inputs[1], count, node)
        inputs = tuple(self.values[i.index] for i in node.inputs)
        if _is_tall(node):
            inputs = (self._sums_of_samples(node, inputs[0]),)
        attrs, payload = node.attrs, node.payload
        return self.graph.append(node.spec, inputs, attrs, node.shape, node.dtype, payload)

    def _sums_of_samples(self, node: Node, x: Node) -> Node:
        """Over the same axes but the first; they stay, with size 1. Of a mean, means."""
        axes = node.attrs["axis"][1:]
        shape = (x.shape[0], *[1] * len(axes), *x.shape[len(axes) + 1 :])
        attrs = {**node.attrs, "axis": axes, "keepdims": True}
        return self.graph.append(node.spec, (x,), attrs, shape, node.dtype)

    def _in_pieces(self, left: Node, right: Node, count: int, whole: Node) -> Node:
        """left' right, as a sum of the products of so many pieces of their rows."""
        a, b = (self._cut(self.values[x.index], count) for x in (left, right))
        (_, rows, m), n = a.shape, b.shape[2]
        append, dtype = self.graph.append, whole.dtype
        turned = append(TRANSPOSE, (a,), {"axes": (0, 2, 1)}, (count, m, rows), dtype)
        product = append(MATMUL, (turned, b), {}, (count, m, n), dtype)
        return append(SUM, (product,), {"axis": (0,), "keepdims": False}, (m, n), dtype)

    def _cut(self, x: Node, count: int) -> Node:
        shape = (count, x.shape[0] // count, x.shape[1])
        return self.graph.append(RESHAPE, (x,), {"shape": shape}, shape, x.dtype)
