"""Parts of a graph whose values are made again for gradients; see `checkpoint`.

Where `pullback` comes to these nodes it makes them again, from arguments that are there only when
the cotangent is (`after`): so they are not the nodes that are there already, and cannot be computed
in the forward pass. Random numbers, loops and what does not depend on the arguments are kept.
"""

from __future__ import annotations

from gpubp import ops
from gpubp.core import ALIAS, Array, Graph, Kind, Node, bind
from gpubp.ops.logic import AFTER

_LOOPS = (Kind.LOOP, Kind.PIECE)  # their gradients know which values they have kept


class Region:
    """Nodes of a function whose values are made again.

    Args:
        graph: theirs.
        args: the nodes of its arguments, for it alone.
        start, stop: its nodes are among those of these indices.
    """

    def __init__(self, args: list[Node], start: int, stop: int) -> None:
        self.args, self.start, self.stop = args, start, stop

    def again(self, graph: Graph, g: Array) -> dict[int, Node]:
        """Append its nodes once more, behind the cotangent `g`: by their indices."""
        made = {n.index: _behind(graph, n, g) for n in self.args}
        for node in graph.nodes[self.start : self.stop]:
            depends = any(i.index in made for i in node.inputs)
            if depends and node.index not in made and node.spec.kind not in _LOOPS:
                inputs = tuple([made.get(i.index, i) for i in node.inputs])
                made[node.index] = graph.add(node.spec, inputs, node.attrs, node.weak)
        return made


def _behind(graph: Graph, node: Node, g: Array) -> Node:
    """The same value, there when `g` is."""
    if node.dtype.kind != "f" or not g.size:
        return graph.add(ALIAS, (node,), {"tag": len(graph.nodes)})
    one = ops.reshape(g, (g.size,))[0]
    late: Array = bind(AFTER, Array(graph, node), ops.astype(one, node.dtype))
    return late.node


class Again:
    """What one backward pass has made again, region by region."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._made: dict[int, dict[int, Node]] = {}

    def __call__(self, node: Node, g: Array) -> dict[int, Node]:
        """By index, the nodes to use for the gradient of this one instead of those there are."""
        if node.spec.kind in _LOOPS:
            return {}
        for i, region in enumerate(self._graph.recomputed):
            if region.start <= node.index < region.stop:
                if i not in self._made:
                    self._made[i] = region.again(self._graph, g)
                return self._made[i]
        return {}
