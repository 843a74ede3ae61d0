"""What must run before what: paths between groups, so that no merge closes a cycle.

Each group has a level above those of all that must run before it, so a search for a path from a
group looks at none that cannot follow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gpubp.compiler.group import Group
from gpubp.core import Node


class GroupOrder:
    """Paths between the groups of a graph.

    Args:
        of: node -> its group; kept up to date by whoever merges.
        users: node -> those that read it, or a view of it.
        sources: node -> the computed nodes that it reads, directly or through a view.

    Attributes:
        together: group -> all that share its instruction; empty until groups do.
    """

    def __init__(
        self,
        of: Mapping[int, Group],
        users: Mapping[int, Sequence[Node]],
        sources: Mapping[int, Sequence[Node]],
    ) -> None:
        self._of, self._users, self._sources = of, users, sources
        self.together: dict[Group, list[Group]] = {}
        # Beside what values say: readers of a slot's old value run before its writer.
        self._after: dict[Group, list[Group]] = {}
        self._followers: dict[Group, list[Group]] = {}

    def run_before(self, readers: Sequence[Group], writer: Group) -> None:
        """`readers` must run before `writer`, though it reads nothing of theirs."""
        self._after.setdefault(writer, []).extend(readers)
        for reader in readers:
            self._followers.setdefault(reader, []).append(writer)
        self._lift((writer, reader.level + 1) for reader in readers)

    def share(self, host: Group, group: Group) -> None:
        """`group` runs in the instruction of `host`."""
        shared = self.together[group] = self.together[host]
        shared.append(group)
        level = max(g.level for g in shared)
        self._lift((g, level) for g in shared)

    def merged(self, kept: Group, moved: Sequence[Node], level: int) -> None:
        """`kept` has become larger, and its nodes that are `moved` now have this level."""
        kept.level = level
        if moved:
            self._lift((g, level + 1) for g in self._behind(kept, moved))

    def feeds(self, first: Group, second: Group) -> bool:
        """A path leads from `first` to `second`."""
        return self.reaches(first, self._before(second))

    def detour(self, first: Group, second: Group) -> bool:
        """A path leads from `first` to `second` through another group."""
        for group in self._behind(first, first.nodes):
            if group is not second:
                break
        else:
            return False  # found without walking back from `second`, which may come much later
        return self.reaches(first, [g for g in self._before(second) if g is not first])

    def reaches(self, first: Group, frontier: Iterable[Group]) -> bool:
        """`first` is, or feeds, one of `frontier`."""
        lowest, waiting = first.level, list(frontier)
        seen: set[Group] = set()
        while waiting:
            group = waiting.pop()
            if group is first:
                return True
            if group.level > lowest and group not in seen:
                seen.add(group)
                waiting.extend(self._before(group))
        return False

    def _lift(self, groups: Iterable[tuple[Group, int]]) -> None:
        """Give groups at least these levels, and all that follow them higher ones."""
        work = list(groups)
        while work:
            group, level = work.pop()
            if group.level < level:
                group.level = level
                work.extend([(g, level + 1) for g in self._behind(group, group.nodes)])

    def _behind(self, group: Group, nodes: Sequence[Node]) -> Iterator[Group]:
        """Groups that run after some nodes of a group, and what shares their instructions."""
        of, users, together = self._of, self._users, self.together
        for follower in self._followers.get(group, ()):
            if follower is not group:
                yield from together.get(follower, (follower,))
        for node in nodes:
            for user in users[node.index]:
                follower = of[user.index]
                if follower is not group:
                    yield from together.get(follower, (follower,))

    def _before(self, group: Group) -> list[Group]:
        """Groups that must run before `group`, or before one that shares its instruction."""
        of, sources = self._of, self._sources
        found: list[Group] = []
        for member in self.together.get(group, (group,)):
            found += self._after.get(member, ())
            for node in member.nodes:
                for source in sources[node.index]:
                    producer = of[source.index]
                    if producer is not member:
                        found.append(producer)
        return found
