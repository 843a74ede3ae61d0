"""New values of slots, written in place: every reader of the old value runs first."""

from __future__ import annotations

from gpubp.compiler.grouping import Grouping
from gpubp.core import SLOT, Kind, Node
from gpubp.core.store import Slot


def guard_writes(work: Grouping) -> None:
    """Let every reader of a slot's old value run before its new value is written in place.

    Where that is impossible (the writer feeds a reader, or reads the slot in another order than
    it writes it), the new value goes to a temporary and is copied into the slot at the end.
    """
    for i, (slot, node) in enumerate(work.graph.writes):
        writer = work.of[node.index]
        readers = work.readers_of(slot)
        before = [work.of[r.index] for r in readers if work.of[r.index] is not writer]
        own_reads = [r for r in readers if work.of[r.index] is writer]
        in_place = all(_in_place(work, r, slot, node) for r in own_reads)
        if not in_place or work.order.reaches(writer, before):
            made = work.add_copy(node)
            work.graph.writes[i] = (slot, made)
            writer = work.of[made.index]
            before = [work.of[r.index] for r in readers]
        work.order.run_before(before, writer)


def _in_place(work: Grouping, reader: Node, slot: Slot, written: Node) -> bool:
    """The reader takes element i of the slot only to make element i of what is written."""
    if reader.spec.kind is not Kind.ELEMENTWISE or reader.shape != written.shape:
        return False
    layouts = [work.layouts[read.index] for read in reader.inputs]
    mine = [x for x in layouts if x.base.spec is SLOT and x.base.payload is slot]
    return all(x.shape == reader.shape and x.whole for x in mine)
