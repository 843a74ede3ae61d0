"""Fusion: which ops run together as one instruction.

Comes in: a canonical graph and its layouts. Goes out: groups of nodes, each to become one part of
an instruction, with the groups that share an instruction listed together.

The rules, in the order they apply:

1. Each op that is not elementwise is the anchor of a group of its own. An op and one gradient that
   can be made in the same pass over the same inputs (softmax cross-entropy) share one.
2. *Sink*: an elementwise op joins the group of its consumers if they are all in one elementwise
   group of the same shape. So a value computed from saved activations is recomputed where it is
   used, instead of being stored in the forward pass.
3. *Prologue*: an elementwise group that feeds one sum only is computed inside it.
4. *Epilogue*: an elementwise group joins the group that produces its last input (matmul, reduction,
   or other elementwise group) if shapes are equal. This puts bias and activation into the forward
   product, the activation's gradient into the input-gradient product, and the update rule into the
   weight-gradient product.
5. Scalar ops that may run together do.
6. A column sum over an operand of a matrix product (the bias gradient beside the weight gradient)
   shares that product's instruction.

A merge never closes a cycle: no path may lead from one group through another one back to the first.
Nor does it make a part that takes more numbers to describe than a CUDA kernel takes parameters.
Holds in between: every computed node is in exactly one group; a group is a connected or independent
set of ops over one iteration space, in topological order.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

from gpubp.compiler.group import Group, agree, compute_type
from gpubp.compiler.sizes import Sizes
from gpubp.compiler.views import Layout, own
from gpubp.core import SLOT, Graph, Kind, Node
from gpubp.core.store import Slot
from gpubp.ops.logic import COPY

_FUSIBLE = (Kind.ELEMENTWISE, Kind.RANDOM)


def fuse(graph: Graph, layouts: dict[int, Layout], enabled: bool = True) -> list[list[Group]]:
    """Group the ops of a canonical graph.

    Args:
        graph: from `canonicalize`.
        layouts: its layouts.
        enabled: if False, every op is a group of its own.

    Returns:
        One list of groups for each instruction, not yet ordered.
    """
    work = _Fusion(graph, layouts)
    if enabled:
        work.join_passes()
        work.sink()
        work.merge_prologues()
        work.merge_epilogues()
        work.merge_scalars()
    work.guard_writes()
    return work.attach_column_sums() if enabled else [[g] for g in work.groups()]


class _Fusion:
    def __init__(self, graph: Graph, layouts: dict[int, Layout]) -> None:
        self.graph = graph
        self.layouts = layouts
        self.after: dict[int, list[Group]] = {}
        self.together: dict[int, list[Group]] = {}
        self.nodes = [n for n in graph.nodes if not n.is_leaf and n.spec.kind is not Kind.VIEW]
        self.of: dict[int, Group] = {}
        # Of a group: above the levels of all that must run before it; see _reaches.
        self.levels: dict[int, int] = {}
        self.followers: dict[int, list[Group]] = {}  # the other way round than `after`
        self.users: dict[int, list[Node]] = {n.index: [] for n in self.nodes}
        self.sources: dict[int, list[Node]] = {}
        for node in self.nodes:
            bases = [layouts[i.index].base for i in node.inputs]
            self.sources[node.index] = [b for b in bases if not b.is_leaf]
            for base in self.sources[node.index]:
                self.users[base.index].append(node)
            group = self.of[node.index] = self._single(node)
            below = [self.levels[id(self.of[s.index])] for s in self.sources[node.index]]
            self.levels[id(group)] = 1 + max(below, default=0)
        self._slot_readers = self._find_slot_readers()
        self._results = {n.index for n in graph.outputs} | {n.index for _, n in graph.writes}
        self.sizes = Sizes(layouts, self.users, self.of, self._results)

    def _find_slot_readers(self) -> dict[int, list[Node]]:
        readers: dict[int, list[Node]] = {}
        for node in self.nodes:
            for source in node.inputs:
                base = self.layouts[source.index].base
                if base.spec is SLOT:
                    readers.setdefault(id(base.payload), []).append(node)
        return readers

    def _single(self, node: Node) -> Group:
        fusible = node.spec.kind in _FUSIBLE
        compute = compute_type(node) if fusible else node.dtype.name
        if node.spec.kind is Kind.REDUCE and not fusible:
            compute = compute_type(node)
        return Group([node], None if fusible else node, node.shape, compute)

    def groups(self) -> list[Group]:
        """All groups, by their first node."""
        return list(dict.fromkeys(self.of[n.index] for n in self.nodes))

    def join_passes(self) -> None:
        """An op and its gradient in one pass over their inputs, where its kernel makes both.

        The pass makes one gradient: those of further pullbacks are computed on their own.
        """
        gradients = [n for n in self.nodes if n.spec.joins is not None]
        joined = {n.spec.joins for n in gradients}
        forward = {(n.spec, n.inputs): n for n in self.nodes if n.spec in joined}
        for node in gradients:
            key = node.spec.joins, node.inputs[:-1]
            if key in forward:
                first, second = self.of[forward[key].index], self.of[node.index]
                if not self._feeds(first, second):
                    self._merge(first, second)
                    del forward[key]

    def sink(self) -> None:
        for node in reversed(self.nodes):
            group = self.of[node.index]
            if not group.elementwise or not self.users[node.index]:
                continue
            targets = {id(self.of[u.index]): self.of[u.index] for u in self.users[node.index]}
            if len(targets) != 1:
                continue
            target = next(iter(targets.values()))
            if target.elementwise and self._joinable(node, target):
                self._merge(target, group)

    def _joinable(self, node: Node, target: Group) -> bool:
        """All uses of `node` are direct reads, at the same index, in `target`'s arithmetic."""
        same = node.shape == target.shape and agree(self.of[node.index], target)
        fits = self.sizes.fit(self.of[node.index], target)
        return same and fits and self._read_plainly(node, target)

    def _read_plainly(self, node: Node, reader: Group) -> bool:
        for user in self.users[node.index]:
            if self.of[user.index] is not reader:
                continue
            for i in user.inputs:
                layout = self.layouts[i.index]
                if layout.base is node and not (layout.whole and layout.shape == node.shape):
                    return False
        return True

    def merge_epilogues(self) -> None:
        for group in self.groups():
            if group.elementwise:
                self._merge_into_producer(group)
        for group in self.groups():
            if group.elementwise and group.shape != ():
                self._merge_into_consumer(group)

    def _merge_into_producer(self, group: Group) -> None:
        producers = {
            id(self.of[s.index]): s
            for node in group.nodes
            for s in self.sources[node.index]
            if self.of[s.index] is not group
        }
        anchored_first = sorted(
            producers.values(), key=lambda s: (self.of[s.index].elementwise, -s.index)
        )
        for source in anchored_first:
            producer = self.of[source.index]
            if self._takes_epilogue(producer, group):
                self._merge(producer, group)
                return

    def _merge_into_consumer(self, group: Group) -> None:
        """Compute a value that needs no matrix product (a dropout mask) where it is first read."""
        readers = sorted(
            (u for n in group.nodes for u in self.users[n.index] if self.of[u.index] is not group),
            key=lambda n: n.index,
        )
        for reader in readers[:1]:
            consumer = self.of[reader.index]
            needs = self._needs_of_anchor(consumer)
            follows = not any(u.index in needs for n in group.nodes for u in self.users[n.index])
            if follows and self._takes_epilogue(group, consumer, consumer.anchor):
                self._merge(consumer, group)

    def _needs_of_anchor(self, group: Group) -> set[int]:
        """A group's anchor and the prologue that it is computed from."""
        found: set[int] = set() if group.anchor is None else {group.anchor.index}
        for node in reversed(group.nodes):
            if node.index in found:
                found.update(s.index for s in self.sources[node.index])
        return found

    def _takes_epilogue(self, producer: Group, group: Group, anchor: Node | None = None) -> bool:
        """Elementwise ops of `group` may follow `producer` in one part built around `anchor`."""
        anchor = anchor or producer.anchor
        if anchor is None and group.shape == ():
            return False
        if anchor is not None and anchor.spec.kind not in (Kind.MATMUL, Kind.REDUCE):
            return False
        # What follows reads the anchor's value as its kernel makes it: an argmax of floats, which
        # is made beside floats but is an integer, is followed by nothing.
        if anchor is not None and anchor.dtype.name != (producer.compute or group.compute):
            return False
        return (
            producer.shape == group.shape
            and agree(producer, group)
            and self.sizes.fit(producer, group)
            and all(self._read_plainly(n, group) for n in producer.nodes if n.shape == group.shape)
            and not self._detour(producer, group)
        )

    def merge_prologues(self) -> None:
        for node in self.nodes:
            if not node.spec.accumulates:
                continue
            source = self.layouts[node.inputs[0].index].base
            if source.is_leaf or not self.layouts[node.inputs[0].index].whole:
                continue
            group, target = self.of[source.index], self.of[node.index]
            alone = all(
                n.index not in self._results
                and all(self.of[u.index] in (group, target) for u in self.users[n.index])
                for n in group.nodes
            )
            if (
                group.elementwise
                and alone
                and self.users[source.index] == [node]
                and group.shape == node.inputs[0].shape
                and group.shape != ()
                and agree(group, target)
                and self.sizes.fit(group, target)
                and not self._detour(group, target)
            ):
                shape = target.shape
                self._merge(group, target)
                self.of[node.index].shape = shape

    def merge_scalars(self) -> None:
        scalars: list[Group] = []
        for group in self.groups():
            random = any(n.spec.kind is Kind.RANDOM for n in group.nodes)
            if not group.elementwise or group.shape != () or random:
                continue
            for other in scalars:
                apart = self._detour(other, group) or self._detour(group, other)
                if not apart and self.sizes.fit(other, group):
                    self._merge(other, group)
                    other.compute = "scalar"
                    break
            else:
                group.compute = "scalar"
                scalars.append(group)

    def guard_writes(self) -> None:
        """Let every reader of a slot's old value run before its new value is written in place.

        Where that is impossible (the writer feeds a reader, or reads the slot in another order than
        it writes it), the new value goes to a temporary and is copied into the slot at the end.
        """
        for i, (slot, node) in enumerate(self.graph.writes):
            writer = self.of[node.index]
            readers = self._slot_readers.get(id(slot), [])
            before = [self.of[r.index] for r in readers if self.of[r.index] is not writer]
            own_reads = [r for r in readers if self.of[r.index] is writer]
            in_place = all(self._in_place(r, slot, node) for r in own_reads)
            if not in_place or self._reaches(writer, list(before)):
                writer = self._copy_at_end(i, slot, node)
                before = [self.of[r.index] for r in readers]
            self.after.setdefault(id(writer), []).extend(before)
            for reader in before:
                self.followers.setdefault(id(reader), []).append(writer)
            self._lift((writer, self.levels[id(reader)] + 1) for reader in before)

    def _in_place(self, reader: Node, slot: Slot, written: Node) -> bool:
        """The reader takes element i of the slot only to make element i of what is written."""
        if reader.spec.kind is not Kind.ELEMENTWISE or reader.shape != written.shape:
            return False
        layouts = [self.layouts[s.index] for s in reader.inputs]
        mine = [x for x in layouts if x.base.spec is SLOT and x.base.payload is slot]
        return all(x.whole and x.shape == reader.shape for x in mine)

    def _copy_at_end(self, position: int, slot: Slot, node: Node) -> Group:
        made = self.graph.append(COPY, (node,), {}, node.shape, node.dtype)
        self.layouts[made.index] = own(made)
        self.nodes.append(made)
        self.users[node.index].append(made)
        self.users[made.index] = []
        self.sources[made.index] = [node]
        self.graph.writes[position] = (slot, made)
        group = self.of[made.index] = self._single(made)
        self.levels[id(group)] = self.levels[id(self.of[node.index])] + 1
        return group

    def attach_column_sums(self) -> list[list[Group]]:
        """Put each bias gradient beside the weight gradient that reads the same cotangent."""
        hosts: dict[int, list[Group]] = {}
        for group in self.groups():
            if group.anchor is not None and group.anchor.spec.kind is Kind.MATMUL:
                for source in self.sources[group.anchor.index]:
                    hosts.setdefault(source.index, []).append(group)
        self.together = {id(g): [g] for g in self.groups()}
        for group in self.groups():
            host = self._host_of(group, hosts)
            if host is not None and not any(
                self._feeds(group, g) or self._feeds(g, group) for g in self.together[id(host)]
            ):
                shared = self.together[id(host)]
                shared.append(group)
                self.together[id(group)] = shared
                level = max(self.levels[id(g)] for g in shared)
                self._lift((g, level) for g in shared)
        return [shared for key, shared in self.together.items() if key == id(shared[0])]

    def _host_of(self, group: Group, hosts: dict[int, list[Group]]) -> Group | None:
        anchor = group.anchor
        if anchor is None or not anchor.spec.accumulates:
            return None
        source = self.layouts[anchor.inputs[0].index].base
        for host in hosts.get(source.index, []):
            assert host.anchor is not None
            if anchor.attrs["axis"] == (0,) and self._sums_over_rows(host.anchor, source):
                return host
        return None

    def _sums_over_rows(self, product: Node, source: Node) -> bool:
        """The product is A^T B, and `source` is all of A or all of B."""
        if len(source.shape) != 2:
            return False
        left, right = (self.layouts[i.index] for i in product.inputs)
        if left.base is source:
            return left.shape == source.shape[::-1] and left.strides == (1, source.shape[-1])
        by_columns = left.strides[-2] <= left.strides[-1]
        return by_columns and right.base is source and right.whole and right.shape == source.shape

    def _merge(self, kept: Group, gone: Group) -> None:
        self.sizes.merge(kept, gone)
        level = max(self.levels[id(g)] for g in (kept, gone))
        lifted = [n for g in (kept, gone) if self.levels[id(g)] < level for n in g.nodes]
        for node in gone.nodes:
            self.of[node.index] = kept
        kept.nodes = _in_order(kept.nodes, gone.nodes)
        kept.anchor = kept.anchor or gone.anchor
        kept.compute = kept.compute or gone.compute
        self.levels[id(kept)] = level
        self._lift((g, level + 1) for g in self._behind(kept, lifted))

    def _lift(self, groups: Iterable[tuple[Group, int]]) -> None:
        """Give groups at least these levels, and all that follow them higher ones."""
        work = list(groups)
        while work:
            group, level = work.pop()
            if self.levels[id(group)] < level:
                self.levels[id(group)] = level
                work.extend((g, level + 1) for g in self._behind(group, group.nodes))

    def _behind(self, group: Group, nodes: list[Node]) -> Iterable[Group]:
        """Groups that run after some nodes of a group, and what shares their instructions."""
        readers = (self.of[u.index] for n in nodes for u in self.users[n.index])
        for follower in (*self.followers.get(id(group), ()), *readers):
            if follower is not group:
                yield from self.together.get(id(follower), (follower,))

    def _before(self, group: Group) -> Iterable[Group]:
        """Groups that must run before `group`, or before one that shares its instruction."""
        for member in self.together.get(id(group), (group,)):
            yield from self.after.get(id(member), ())
            for node in member.nodes:
                for source in self.sources[node.index]:
                    if self.of[source.index] is not member:
                        yield self.of[source.index]

    def _feeds(self, first: Group, second: Group) -> bool:
        """A path leads from `first` to `second`."""
        return self._reaches(first, list(self._before(second)))

    def _detour(self, first: Group, second: Group) -> bool:
        """A path leads from `first` to `second` through another group."""
        if all(g is second for g in self._behind(first, first.nodes)):
            return False  # found without walking back from `second`, which may come much later
        return self._reaches(first, [g for g in self._before(second) if g is not first])

    def _reaches(self, first: Group, frontier: list[Group]) -> bool:
        """`first` is, or feeds, one of `frontier`."""
        lowest = self.levels[id(first)]
        seen: set[int] = set()
        while frontier:
            group = frontier.pop()
            if group is first:
                return True
            if id(group) in seen or self.levels[id(group)] <= lowest:
                continue
            seen.add(id(group))
            frontier.extend(self._before(group))
        return False


def _in_order(a: list[Node], b: list[Node]) -> list[Node]:
    """The nodes of both lists by their index; made in the longer one."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    for node in shorter:
        insort(longer, node, key=lambda n: n.index)
    return longer
