"""A device that only counts: launches, recordings, copies and waits, and computes nothing.

Comes in: what `gpubp.backends.cuda.drivers.base.Driver` says. Goes out: counts. Memory is addresses
alone, results are zeros, and sources are not compiled: so any model is counted in no time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import Dim, Event
from gpubp.backends.cuda.drivers.recordings import Node, behind
from gpubp.backends.cuda.products import Products
from gpubp.errors import BackendError


@dataclass
class Counts:
    """What the host has asked the device for.

    Attributes:
        kernels: launched one by one.
        together: cooperative launches.
        graphs: launches of recordings.
        nodes: kernels that recordings ran.
        recorded: kernels in each recording that was made.
        depths: kernels on the longest way through it.
        edges: between its kernels.
        loops: launches of recordings that the device repeats; in `graphs`, too.
        early: kernels of recordings that begin before the one before them has ended.
        uploads, uploaded: copies to the device, and their bytes.
        downloads: copies from it.
        waits: of the host, those for downloads included.
    """

    kernels: int = 0
    together: int = 0
    graphs: int = 0
    nodes: int = 0
    recorded: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    edges: list[int] = field(default_factory=list)
    loops: int = 0
    early: int = 0
    uploads: int = 0
    uploaded: int = 0
    downloads: int = 0
    waits: int = 0

    def take(self) -> Counts:
        """What was counted since the last time."""
        found = Counts(**{f.name: getattr(self, f.name) for f in fields(self)})
        self.__init__()  # type: ignore[misc]
        return found


@dataclass(frozen=True)
class Place:
    """Memory that is none."""

    address: int
    nbytes: int


@dataclass(frozen=True)
class Point:
    """An event."""

    counts: Counts

    def wait(self) -> None:
        self.counts.waits += 1


class Sources:
    """Kernels that are their names."""

    def get(self, name: str) -> str:
        return name


class CountingDriver:
    """A `Driver` without a device.

    Attributes:
        counts: what was asked for.
        launched: the names of kernels, in order, those in recordings when they are recorded.
        sources: what was compiled.
        grids: of cooperative launches.
    """

    number, name, architecture, processors = 0, "counter", "sm_90", 132
    products: Products | None = None
    overlaps = loops = True

    def __init__(self) -> None:
        self.counts = Counts()
        self.launched: list[str] = []
        self.sources: list[str] = []
        self.grids: list[Dim] = []
        self._end = 1 << 20
        self._recording: int | None = None
        self._early, self._times = (False, False), 0

    def allocate(self, nbytes: int) -> Place:
        self._not_while_recording("allocate")
        place = Place(self._end, nbytes)
        self._end += -(-max(nbytes, 1) // 256) * 256
        return place

    def free_bytes(self) -> int:
        return 1 << 40

    def upload(self, target: int, array: NDArray[Any]) -> None:
        self._not_while_recording("upload")
        self.counts.uploads += 1
        self.counts.uploaded += array.nbytes

    def download(self, source: int, array: NDArray[Any]) -> None:
        self._not_while_recording("download")
        self.counts.downloads += 1
        self.counts.waits += 1
        array[...] = 0

    def compile(self, source: str) -> Sources:
        self.sources.append(source)
        return Sources()

    def launch(self, kernel: str, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        self.launched.append(kernel)
        if self._recording is None:
            self.counts.kernels += 1
        else:
            self._recording += 1
            if kernel == "repeat_steps":
                self._times = struct.unpack("<QqQ", params)[1]
            self.counts.early += self._early[0]
            self._early = self._early[1], self._early[1]

    def blocks_together(self, kernel: str, threads: int, shared: int) -> int:
        return self.processors

    def launch_together(
        self, kernel: str, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        self._not_while_recording("a cooperative launch")
        self.launched.append(kernel)
        self.counts.together += 1
        self.grids.append(grid)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return self.record_branches([Node(work, 0, ())])

    def record_branches(self, nodes: Sequence[Node]) -> Callable[[], None]:
        self._not_while_recording("record")
        before, sizes, depths, edges = behind(nodes), [], [], 0
        try:
            for i, node in enumerate(nodes):
                assert i == 0 or before[i], "not forked from what is recorded"
                self._recording, self._early = 0, node.early
                node.work()
                sizes.append(self._recording)
                edges += max(self._recording - 1, 0) + len(before[i])
                deepest = max((depths[j] for j in before[i]), default=0)
                depths.append(deepest + self._recording)
        finally:
            self._recording = None
        self.counts.recorded.append(sum(sizes))
        self.counts.depths.append(max(depths))
        self.counts.edges.append(edges)

        def replay(times: int = 1) -> None:
            self.counts.graphs += 1
            self.counts.nodes += times * sum(sizes)

        return replay

    def record_loop(
        self, nodes: Sequence[Node], enter: Callable[[int], None]
    ) -> Callable[[], None]:
        enter(7)
        once: Any = self.record_branches(nodes)
        times = self._times

        def replay() -> None:
            self.counts.loops += 1
            once(times)

        return replay

    def current_stream(self) -> int:
        return 1

    def wait_for(self, stream: int) -> None:
        pass

    def make_wait(self, stream: int) -> None:
        pass

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        raise BackendError("there are no arrays on this device")

    def to_user_array(self, value: Any) -> Any:
        raise BackendError("there are no arrays on this device")

    def borrowed(self, array: Any) -> bool:
        return False

    def device_of(self, address: int) -> int:
        return 0

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return np.zeros(nbytes, np.uint8)

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Event:
        self.counts.uploads += 1
        self.counts.uploaded += array.nbytes
        return Point(self.counts)

    def mark(self) -> Event:
        return Point(self.counts)

    def wait_event(self, event: Event) -> None:
        pass

    def synchronize(self) -> None:
        self._not_while_recording("synchronize")
        self.counts.waits += 1

    def allow_shared(self, kernel: str, nbytes: int) -> None:
        pass

    def _not_while_recording(self, what: str) -> None:
        if self._recording is not None:
            raise BackendError(f"{what} while launches are recorded: a GPU refuses that")
