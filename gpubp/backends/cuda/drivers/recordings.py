"""Recordings that are more than a chain of launches: branches, early starts, loops.

Comes in: nodes, which launch, with what they are behind. Goes out: what drivers record of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class Node(NamedTuple):
    """Launches of a recording that may run beside others.

    Attributes:
        work: what launches them.
        lane: they are behind the last ones in the same lane; 0 is the driver's own stream.
        after: positions of earlier nodes, in other lanes, that they are behind, too.
        early: the first of them, and those that follow it, may begin before the kernel before them
            in their lane has ended, since they wait for it themselves. For drivers with `overlaps`.
    """

    work: Callable[[], None]
    lane: int
    after: tuple[int, ...]
    early: tuple[bool, bool] = (False, False)


def behind(nodes: Sequence[Node]) -> list[tuple[int, ...]]:
    """For each node those that end before it starts: `after`, and the one before in its lane."""
    last: dict[int, int] = {}
    found = []
    for i, node in enumerate(nodes):
        mine = {*node.after} | ({last[node.lane]} if node.lane in last else set())
        last[node.lane] = i
        found.append(tuple(sorted(mine)))
    return found


@runtime_checkable
class BranchingDriver(Protocol):
    """A driver whose recordings may have branches that run beside each other.

    Attributes:
        overlaps: kernels of a recording may begin before those before them have ended
            ("programmatic dependent launch", compute capability 9.0).
    """

    overlaps: bool

    def record_branches(self, nodes: Sequence[Node]) -> Callable[[], None]:
        """As `record`, of what these launch; the first is in lane 0, and every other one is behind
        one before it.
        """
        ...


@runtime_checkable
class LoopingDriver(Protocol):
    """A driver whose recordings may be repeated by the device (conditional nodes of graphs).

    Attributes:
        loops: it is so on this device.
    """

    loops: bool

    def record_loop(
        self, nodes: Sequence[Node], enter: Callable[[int], None]
    ) -> Callable[[], None]:
        """As `record_branches`, again and again.

        Args:
            nodes: of a round; one of them launches the kernel of `kernels/repeat.cu`, which says
                whether there is another one.
            enter: is told the loop's handle, for that kernel, before nodes are recorded.
        """
        ...
