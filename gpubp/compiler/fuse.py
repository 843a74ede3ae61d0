"""Fusion: which ops run together as one instruction.

Comes in: a canonical graph and its layouts. Goes out: groups of nodes, each to become one part of
an instruction, with the groups that share an instruction listed together.

The rules, in the order they apply:

1. Each op that is not elementwise is the anchor of a group of its own. Ops that can be made in the
   same pass over the same inputs (softmax cross-entropy and its gradient, the three gradients of
   attention) share one.
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

The first four are here; `slot_writes.py` lets readers of a slot run before its writer, and
`column_sums.py` is the sixth. The groups are kept by `grouping.py`.
"""

from __future__ import annotations

from typing import Any

from gpubp.compiler.column_sums import attach_column_sums
from gpubp.compiler.group import Group, agree
from gpubp.compiler.grouping import Grouping
from gpubp.compiler.slot_writes import guard_writes
from gpubp.compiler.views import Layout
from gpubp.core import Graph, Kind, Node, OpSpec, dtype_name


def fuse(graph: Graph, layouts: dict[int, Layout], enabled: bool = True) -> list[list[Group]]:
    """Group the ops of a canonical graph.

    Args:
        graph: from `canonicalize`.
        layouts: its layouts.
        enabled: if False, every op is a group of its own.

    Returns:
        One list of groups for each instruction, not yet ordered.
    """
    work = Grouping(graph, layouts)
    if enabled:
        _join_passes(work)
        _sink(work)
        _merge_prologues(work)
        _merge_epilogues(work)
        _merge_scalars(work)
    guard_writes(work)
    return attach_column_sums(work) if enabled else [[g] for g in work.groups()]


def _join_passes(work: Grouping) -> None:
    """An op with a second result of its inputs, or with its gradients, in one pass over them, where
    its kernel makes all.

    The pass makes one of each: those of further pullbacks are computed on their own.
    """
    second = [n for n in work.nodes if n.spec.joins is not None]
    joined = {n.spec.joins for n in second}
    first = {_pass_key(n.spec, n.inputs, n): n for n in work.nodes if n.spec in joined}
    made = set()
    for node in second:
        for inputs in (node.inputs, node.inputs[:-1]):
            key = _pass_key(node.spec.joins, inputs, node)
            if key not in first or (key, node.spec) in made:
                continue
            pass_, group = work.of[first[key].index], work.of[node.index]
            if not work.order.feeds(pass_, group):
                work.merge(pass_, group)
                made.add((key, node.spec))
                break


def _pass_key(spec: OpSpec | None, inputs: tuple[Node, ...], node: Node) -> tuple[Any, ...]:
    """What ops of one pass have in common."""
    return spec, inputs, tuple(sorted(node.attrs.items()))


def _sink(work: Grouping) -> None:
    for node in reversed(work.nodes):
        group = work.of[node.index]
        if group.anchor is not None:
            continue
        targets = {work.of[u.index] for u in work.users[node.index]}
        if len(targets) == 1 and _joinable(work, node, group, target := targets.pop()):
            work.merge(target, group)


def _joinable(work: Grouping, node: Node, group: Group, target: Group) -> bool:
    """All uses of `node` are direct reads, at the same index, in `target`'s arithmetic."""
    return (
        target.anchor is None
        and node.shape == target.shape
        and agree(group, target)
        and work.sizes.fit(group, target)
        and work.read_plainly(node, target)
    )


def _merge_prologues(work: Grouping) -> None:
    for node in work.nodes:
        if not node.spec.accumulates:
            continue
        source = work.layouts[node.inputs[0].index]
        if source.base.index not in work.of or not source.whole:
            continue
        group, target = work.of[source.base.index], work.of[node.index]
        if (
            group.elementwise
            and group.shape == node.inputs[0].shape
            and group.shape != ()
            and work.users[source.base.index] == [node]
            and _only_for(work, group, target)
            and agree(group, target)
            and work.sizes.fit(group, target)
            and not work.order.detour(group, target)
        ):
            shape = target.shape
            work.merge(group, target)
            group.shape = shape


def _only_for(work: Grouping, group: Group, target: Group) -> bool:
    """Nothing but the two groups reads what `group` makes."""
    for node in group.nodes:
        if node.index in work.results:
            return False
        for user in work.users[node.index]:
            if work.of[user.index] not in (group, target):
                return False
    return True


def _merge_epilogues(work: Grouping) -> None:
    for group in work.groups():
        if group.elementwise:
            _merge_into_producer(work, group)
    for group in work.groups():
        if group.elementwise and group.shape != ():
            _merge_into_consumer(work, group)


def _merge_into_producer(work: Grouping, group: Group) -> None:
    producers: dict[Group, int] = {}  # and the last node of each that is read
    for node in group.nodes:
        for source in work.sources[node.index]:
            producer = work.of[source.index]
            if producer is not group:
                producers[producer] = source.index
    anchored_first = sorted(producers.items(), key=lambda p: (p[0].elementwise, -p[1]))
    for producer, _ in anchored_first:
        if _takes_epilogue(work, producer, group):
            work.merge(producer, group)
            return


def _merge_into_consumer(work: Grouping, group: Group) -> None:
    """Compute a value that needs no matrix product (a dropout mask) where it is first read."""
    readers = [u for n in group.nodes for u in work.users[n.index]]
    apart = [u for u in readers if work.of[u.index] is not group]
    if not apart:
        return
    consumer = work.of[min(u.index for u in apart)]
    needs = _needs_of_anchor(work, consumer)
    if any(u.index in needs for u in readers):
        return
    if _takes_epilogue(work, group, consumer, consumer.anchor):
        work.merge(consumer, group)


def _needs_of_anchor(work: Grouping, group: Group) -> set[int]:
    """A group's anchor and the prologue that it is computed from."""
    if group.anchor is None:
        return set()
    found = {group.anchor.index}
    for node in reversed(group.nodes):
        if node.index in found:
            found.update([s.index for s in work.sources[node.index]])
    return found


def _takes_epilogue(
    work: Grouping, producer: Group, group: Group, anchor: Node | None = None
) -> bool:
    """Elementwise ops of `group` may follow `producer` in one part built around `anchor`."""
    anchor = anchor or producer.anchor
    if anchor is None and group.shape == ():
        return False
    if anchor is not None and not _is_followed(anchor):
        return False
    # What follows reads the anchor's value as its kernel makes it: an argmax of floats, which
    # is made beside floats but is an integer, is followed by nothing.
    if anchor is not None and dtype_name(anchor.dtype) != (producer.compute or group.compute):
        return False
    return (
        producer.shape == group.shape
        and agree(producer, group)
        and work.sizes.fit(producer, group)
        and all(work.read_plainly(n, group) for n in producer.nodes if n.shape == group.shape)
        and not work.order.detour(producer, group)
    )


def _merge_scalars(work: Grouping) -> None:
    scalars: list[Group] = []
    for group in work.groups():
        random = any(n.spec.kind is Kind.RANDOM for n in group.nodes)
        if not group.elementwise or group.shape != () or random:
            continue
        for other in scalars:
            apart = work.order.detour(other, group) or work.order.detour(group, other)
            if not apart and work.sizes.fit(other, group):
                work.merge(other, group)
                other.compute = "scalar"
                break
        else:
            group.compute = "scalar"
            scalars.append(group)


def _is_followed(anchor: Node) -> bool:
    """Its kernel can go on with elementwise ops."""
    return anchor.spec.kind in (Kind.MATMUL, Kind.REDUCE) or anchor.spec.followed
