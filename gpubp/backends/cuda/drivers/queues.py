"""What the drivers for GPUs need of a library: streams, events, captures; and recordings on several
streams, of launches that may run beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gpubp.backends.cuda.drivers.recordings import Node
from gpubp.backends.cuda.drivers.scope import Scope


class Point(Protocol):
    """An event of a library."""

    @property
    def done(self) -> bool:
        """The work before it is."""
        ...

    def wait(self) -> None:
        """Let the host wait until it is."""
        ...

    def since(self, earlier: Any) -> float:
        """Seconds from another one to this one; of both the time was asked for."""
        ...


class Queue(Protocol):
    """A stream of a library, which does not wait for the default stream."""

    @property
    def handle(self) -> int: ...

    def mark(self, timed: bool = False) -> Point:
        """An event, behind the work so far."""
        ...

    def wait(self, point: Any) -> None:
        """Let what comes next wait for an event."""
        ...

    def sync(self) -> None:
        """Let the host wait for the work so far."""
        ...


class Capture(Protocol):
    """Launches that are being recorded."""

    def finish(self) -> Callable[[], None]:
        """What launches them all again."""
        ...

    def cancel(self) -> None:
        """No recording is wanted any more."""
        ...


class LoopCapture(Capture, Protocol):
    """Launches that are being recorded as the round of a loop.

    Attributes:
        queue: that they go to.
        handle: of the word that says whether there is another round.
    """

    @property
    def queue(self) -> Queue: ...

    @property
    def handle(self) -> int: ...


class Start(NamedTuple):
    """A launch, as CUDA's driver takes it: after the kernel, in this order.

    Attributes:
        grid_x, grid_y, grid_z, block_x, block_y, block_z: sizes.
        shared: bytes of dynamic shared memory.
        stream: its handle.
        arguments: the address of the addresses of the kernel's arguments.
    """

    grid_x: int
    grid_y: int
    grid_z: int
    block_x: int
    block_y: int
    block_z: int
    shared: int
    stream: int
    arguments: int


def fork(
    nodes: Sequence[Node], own: Queue, sides: Sequence[Queue], use: Callable[[Queue, Node], None]
) -> None:
    """Launch nodes on streams that wait for each other by events: while `own` is captured, all are.

    Args:
        nodes: in an order in which they may run.
        own: lane 0; in the end it waits for every other lane.
        sides: the other lanes.
        use: lets launches of a node go to a stream.
    """
    points: dict[int, Point] = {}
    ends = {node.lane: i for i, node in enumerate(nodes)}
    waited = {i for node in nodes for i in node.after} | {*ends.values()}
    for i, node in enumerate(nodes):
        here = sides[node.lane - 1] if node.lane else own
        for other in node.after:
            here.wait(points[other])
        use(here, node)
        node.work()
        if i in waited:
            points[i] = here.mark()
    for lane, last in ends.items():
        if lane:
            own.wait(points[last])


@dataclass(frozen=True)
class Mark:
    """See `base.Event`."""

    point: Point
    scope: Scope

    def wait(self) -> None:
        with self.scope:
            self.point.wait()
