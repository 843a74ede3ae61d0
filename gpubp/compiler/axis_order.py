"""Axis orders: transposes move towards the end of the graph, past what does not mind them.

Comes in: a graph as it was traced. Goes out: the same values, where an op over transposed arrays is
computed in the order in which the arrays lie in memory, and its result is transposed:
op(T(a), T(b)) = T(op(a, b)). So images that users see channels first stay channels last from one
convolution to the next, through biases, activations and normalisation: nothing is copied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpubp.core import SLOT, Graph, Kind, Node, Shape, live_order
from gpubp.ops.shape import RESHAPE, TRANSPOSE

LEAST_AXES = 3  # of transposes that are moved: products read transposed matrices as they are

Order = tuple[int, ...]


class _Turned(NamedTuple):
    """A value: `node` with its axes in another order, axis i being axis order[i] of the node."""

    node: Node
    order: Order

    @property
    def plain(self) -> bool:
        return self.order == tuple(range(len(self.order)))


def settle_axes(graph: Graph) -> Graph:
    """A copy of the live part of a graph with its transposes moved; itself if there are none."""
    moves = any(n.spec is TRANSPOSE and len(n.shape) >= LEAST_AXES for n in graph.nodes)
    return _Settling(graph).result() if moves else graph


class _Settling:
    def __init__(self, graph: Graph) -> None:
        self.source = graph
        self.graph = Graph()
        self.values: dict[int, _Turned] = {}
        self.made: dict[tuple[int, Order], Node] = {}

    def result(self) -> Graph:
        for node in self.source.inputs:
            self._keep(node, self.graph.input(node.shape, node.dtype))
        for node in live_order(self.source):
            if node.index not in self.values:
                self.values[node.index] = self._translate(node)
        self.graph.writes = [(s, self._whole(self.values[n.index])) for s, n in self.source.writes]
        self.graph.outputs = [self._whole(self.values[n.index]) for n in self.source.outputs]
        return self.graph

    def _keep(self, node: Node, made: Node) -> _Turned:
        found = self.values[node.index] = _Turned(made, tuple(range(len(made.shape))))
        return found

    def _translate(self, node: Node) -> _Turned:
        inputs = [self.values[i.index] for i in node.inputs]
        if node.spec is TRANSPOSE and len(node.shape) >= LEAST_AXES:
            (x,) = inputs
            return _Turned(x.node, tuple(x.order[a] for a in node.attrs["axes"]))
        moved = None
        if not all(x.plain for x in inputs):
            moved = self._moved(node, inputs)
        if moved is not None:
            return moved
        made = self._append(node, [self._whole(x) for x in inputs], node.attrs, node.shape)
        return _Turned(made, tuple(range(len(made.shape))))

    def _append(self, node: Node, inputs: list[Node], attrs: dict[str, Any], shape: Shape) -> Node:
        return self.graph.append(node.spec, tuple(inputs), attrs, shape, node.dtype, node.payload)

    def _whole(self, value: _Turned) -> Node:
        """The value itself, transposed where it is not as it lies."""
        return value.node if value.plain else self._transposed(value.node, value.order)

    def _transposed(self, node: Node, order: Order) -> Node:
        key = node.index, order
        if key not in self.made:
            shape = tuple(node.shape[a] for a in order)
            made = self.graph.append(TRANSPOSE, (node,), {"axes": order}, shape, node.dtype)
            self.made[key] = made
        return self.made[key]

    def _moved(self, node: Node, inputs: list[_Turned]) -> _Turned | None:
        """The op in the order of its inputs, if they agree on one."""
        if node.spec.kind is Kind.REDUCE:
            return self._reduced(node, inputs[0])
        if node.spec.kind is Kind.ELEMENTWISE:
            return self._elementwise(node, inputs)
        if node.spec.turned is None or len(inputs[0].order) != len(node.shape):
            return None  # indices of several axes, from fewer: their order is not that of x
        orders = {x.order for x in inputs if len(x.order) == len(node.shape)}
        if len(orders) != 1:
            return None
        (order,) = orders
        attrs = node.spec.turned(order, **node.attrs)
        if attrs is None:
            return None
        full = [x.node if x.order == order else self._whole(x) for x in inputs]
        made = self._append(node, full, attrs, _placed(node.shape, order))
        return _Turned(made, order)

    def _elementwise(self, node: Node, inputs: list[_Turned]) -> _Turned | None:
        order = self._best_order(node, inputs)
        if order is None:
            return None
        turned = [self._in_order(x, order) for x in inputs]
        made = self._append(node, turned, node.attrs, _placed(node.shape, order))
        return _Turned(made, order)

    def _best_order(self, node: Node, inputs: list[_Turned]) -> Order | None:
        """The order of most of the inputs that are as large as the result. Where a slot is among
        them it is likely to be updated in place, and stays as it is.
        """
        full = [x for x in inputs if len(x.order) == len(node.shape) and x.node.size == node.size]
        if not full or any(x.node.spec is SLOT for x in full):
            return None
        orders = [x.order for x in full]
        best = max(orders, key=lambda o: (orders.count(o), o != tuple(range(len(o)))))
        return None if best == tuple(range(len(best))) else best

    def _in_order(self, value: _Turned, order: Order) -> Node:
        """A value that broadcasts, as it must be read beside arrays that lie in this order."""
        if value.order == order:
            return value.node
        node = self._whole(value)
        if node.size == 1 and len(node.shape) <= len(order):
            return node
        missing = len(order) - len(node.shape)
        if missing:
            shape = (*[1] * missing, *node.shape)
            node = self.graph.append(RESHAPE, (node,), {"shape": shape}, shape, node.dtype)
        return self._transposed(node, _inverse(order))

    def _reduced(self, node: Node, x: _Turned) -> _Turned | None:
        """A reduction over the same axes, which have other numbers."""
        axes, keepdims = node.attrs["axis"], node.attrs["keepdims"]
        if not node.spec.accumulates and len(axes) != 1:
            return None  # which of equal elements is the first depends on the order
        summed = tuple(sorted(x.order[a] for a in axes))
        attrs = {**node.attrs, "axis": summed}
        if keepdims:
            made = self._append(node, [x.node], attrs, _placed(node.shape, x.order))
            return _Turned(made, x.order)
        kept = [i for i in range(len(x.order)) if i not in summed]
        order = tuple(kept.index(x.order[a]) for a in range(len(x.order)) if a not in axes)
        made = self._append(node, [x.node], attrs, _placed(node.shape, order))
        return _Turned(made, order)


def _inverse(order: Order) -> Order:
    return tuple(order.index(i) for i in range(len(order)))


def _placed(shape: Shape, order: Order) -> Shape:
    """The shape of what has `shape` after its axes are brought into this order."""
    return tuple(shape[i] for i in _inverse(order))
