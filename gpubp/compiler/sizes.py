"""How many numbers describe a group of ops, so that fusion makes no part that takes too many.

A CUDA kernel takes 4096 bytes of parameters: the places and strides of its operands, and the
attributes of its ops. A bound is kept for each group, from its ops alone; only where that is too
large the group's operands are counted, and from then on kept up to date: the work of a merge does
not grow with the groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gpubp.compiler.group import Group
from gpubp.compiler.views import Layout
from gpubp.core import Node

MOST_NUMBERS = 440  # of the 512 that there is room for: some are for the sizes of arrays
_PLACE = 3  # an address, and where to find it if it moves


class _Interface(NamedTuple):
    """The operands of a group.

    Attributes:
        reads: node that is read -> how many numbers say where and how.
        leaving: nodes whose value is read elsewhere, or is a result.
        attrs: how many its ops have.
    """

    reads: dict[int, int]
    leaving: set[int]
    attrs: int

    @property
    def numbers(self) -> int:
        return sum(self.reads.values()) + _PLACE * len(self.leaving) + self.attrs


class Sizes:
    """The numbers of each group.

    Args:
        layouts: of all nodes.
        users: node -> those that read it, or a view of it.
        of: node -> its group; kept up to date by whoever merges.
        results: nodes that are outputs or are written to slots.
    """

    def __init__(
        self,
        layouts: Mapping[int, Layout],
        users: Mapping[int, list[Node]],
        of: Mapping[int, Group],
        results: set[int],
    ) -> None:
        self._layouts, self._users, self._of, self._results = layouts, users, of, results
        self._bounds: dict[Group, int] = {}
        self._exact: dict[Group, _Interface] = {}

    def fit(self, a: Group, b: Group) -> bool:
        """The two together do not take too many numbers to describe."""
        if self._bound(a) + self._bound(b) <= MOST_NUMBERS:
            return True
        return self._joined(a, b).numbers <= MOST_NUMBERS

    def merge(self, kept: Group, gone: Group) -> None:
        """Both are going to be one; called before `of` and their nodes change."""
        total = self._bound(kept) + self._bound(gone)
        if total > MOST_NUMBERS or kept in self._exact or gone in self._exact:
            self._exact[kept] = joined = self._joined(kept, gone)
            total = joined.numbers
        self._bounds[kept] = total

    def _bound(self, group: Group) -> int:
        found = self._bounds.get(group)
        if found is None:
            found = 0
            for node in group.nodes:
                found += node.spec.numbers(node.attrs) + _PLACE * (1 + len(node.inputs))
                for read in node.inputs:
                    found += len(read.shape)
            self._bounds[group] = found
        return found

    def _joined(self, a: Group, b: Group) -> _Interface:
        both, parts = (a, b), [self._interface(g) for g in (a, b)]
        reads = {
            i: count
            for part in parts
            for i, count in part.reads.items()
            if self._of.get(self._layouts[i].base.index) not in both
        }
        leaving = {
            i
            for part in parts
            for i in part.leaving
            if i in self._results or any(self._of[u.index] not in both for u in self._users[i])
        }
        return _Interface(reads, leaving, sum(part.attrs for part in parts))

    def _interface(self, group: Group) -> _Interface:
        known = self._exact.get(group)
        if known is not None:
            return known
        reads: dict[int, int] = {}
        for source in {i.index: i for n in group.nodes for i in n.inputs}.values():
            layout = self._layouts[source.index]
            if self._of.get(layout.base.index) is not group:
                reads[source.index] = _PLACE + (0 if layout.whole else len(source.shape))
        leaving = {
            n.index
            for n in group.nodes
            if n.index in self._results
            or any(self._of[u.index] is not group for u in self._users[n.index])
        }
        return _Interface(reads, leaving, sum(n.spec.numbers(n.attrs) for n in group.nodes))
