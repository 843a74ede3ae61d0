"""The groups of a graph while they are being merged, and what rules of fusion ask about them.

Holds in between: every computed node is in exactly one group; a group is a connected or independent
set of ops over one iteration space, in topological order.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from operator import attrgetter

from gpubp.compiler.group import Group, compute_type
from gpubp.compiler.group_order import GroupOrder
from gpubp.compiler.sizes import Sizes
from gpubp.compiler.views import Layout, own
from gpubp.core import SLOT, Graph, Kind, Node, dtype_name
from gpubp.core.store import Slot
from gpubp.ops.logic import COPY

_FUSIBLE = (Kind.ELEMENTWISE, Kind.RANDOM)
_INDEX = attrgetter("index")


class Grouping:
    """Which node is in which group; at first, each is in one of its own.

    Args:
        graph: from `canonicalize`.
        layouts: its layouts.

    Attributes:
        nodes: those that are computed.
        of: node -> its group.
        users: node -> those that read it, or a view of it.
        sources: node -> the computed nodes that it reads, directly or through a view.
        results: nodes that are outputs or are written to slots.
        sizes: how many numbers describe a group.
        order: which group must run before which.
    """

    def __init__(self, graph: Graph, layouts: dict[int, Layout]) -> None:
        self.graph = graph
        self.layouts = layouts
        apart = (Kind.LEAF, Kind.VIEW)
        self.nodes = [n for n in graph.nodes if n.spec.kind not in apart]
        self.of: dict[int, Group] = {}
        self.users: dict[int, list[Node]] = {}
        self.sources: dict[int, list[Node]] = {}
        self._slot_readers: dict[int, list[Node]] = {}
        for node in self.nodes:
            self._add(node)
        self.results = {n.index for n in graph.outputs} | {n.index for _, n in graph.writes}
        self.sizes = Sizes(layouts, self.users, self.of, self.results)
        self.order = GroupOrder(self.of, self.users, self.sources)

    def _add(self, node: Node) -> Group:
        """A group for a node that comes after all that it reads."""
        sources: list[Node] = []
        level = 0
        for read in node.inputs:
            base = self.layouts[read.index].base
            producer = self.of.get(base.index)
            if producer is not None:
                sources.append(base)
                self.users[base.index].append(node)
                level = max(level, producer.level)
            elif base.spec is SLOT:
                self._slot_readers.setdefault(id(base.payload), []).append(node)
        self.sources[node.index], self.users[node.index] = sources, []
        if node.spec.kind is Kind.PIECE:  # made by its loop
            group = self.of[node.index] = self.of[node.inputs[0].index]
            group.nodes.append(node)
            return group
        group = self.of[node.index] = _alone(node, level + 1)
        return group

    def add_copy(self, node: Node) -> Node:
        """A copy of a node, at the end of the graph, in a group of its own."""
        made = self.graph.append(COPY, (node,), {}, node.shape, node.dtype)
        self.layouts[made.index] = own(made)
        self.nodes.append(made)
        self._add(made)
        return made

    def groups(self) -> list[Group]:
        """All groups, by their first node."""
        return list(dict.fromkeys([self.of[n.index] for n in self.nodes]))

    def readers_of(self, slot: Slot) -> list[Node]:
        """The nodes that read the value that a slot has when a step begins."""
        return self._slot_readers.get(id(slot), [])

    def read_plainly(self, node: Node, reader: Group) -> bool:
        """A group reads a node at the same index only: as a whole, in its own shape."""
        for user in self.users[node.index]:
            if self.of[user.index] is not reader:
                continue
            for read in user.inputs:
                layout = self.layouts[read.index]
                if layout.base is node and not (layout.shape == node.shape and layout.whole):
                    return False
        return True

    def merge(self, kept: Group, gone: Group) -> None:
        """Make one group of two."""
        self.sizes.merge(kept, gone)
        level = max(kept.level, gone.level)
        moved = [n for g in (kept, gone) if g.level < level for n in g.nodes]
        for node in gone.nodes:
            self.of[node.index] = kept
        kept.nodes = _in_order(kept.nodes, gone.nodes)
        kept.anchor = kept.anchor or gone.anchor
        kept.compute = kept.compute or gone.compute
        self.order.merged(kept, moved, level)

    def products_by_source(self) -> Mapping[int, list[Group]]:
        """Of a computed node: the groups of the matrix products that read it."""
        found: dict[int, list[Group]] = {}
        for group in self.groups():
            if group.anchor is not None and group.anchor.spec.kind is Kind.MATMUL:
                for source in self.sources[group.anchor.index]:
                    found.setdefault(source.index, []).append(group)
        return found


def _alone(node: Node, level: int) -> Group:
    kind = node.spec.kind
    fusible = kind in _FUSIBLE
    computes = fusible or kind is Kind.REDUCE
    compute = compute_type(node) if computes else dtype_name(node.dtype)
    return Group([node], None if fusible else node, node.shape, compute, level)


def _in_order(a: list[Node], b: list[Node]) -> list[Node]:
    """The nodes of both lists by their index; made in the longer one."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    if longer[-1].index < shorter[0].index:
        longer += shorter
    else:
        for node in shorter:
            insort(longer, node, key=_INDEX)
    return longer
