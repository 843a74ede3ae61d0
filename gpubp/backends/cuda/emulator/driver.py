"""The emulator as a device: `device="cuda-emulated"`.

Comes in: what `drivers/base.py` says. Goes out: the same work as on a GPU, done when a call
returns, or a `KernelError`. Bounds, alignment and memory that nobody wrote are looked at in every
launch; races, which take longer to look for, in the first launches of each kernel and size
(GPUBP_EMULATOR_RACES: "first", "all" or "off").
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import SHARED_BYTES, Dim, Event
from gpubp.backends.cuda.drivers.recordings import Node, behind
from gpubp.backends.cuda.emulator.compiler import compiled
from gpubp.backends.cuda.emulator.graphs import Branches
from gpubp.backends.cuda.emulator.launches import Device, Sizes, launch
from gpubp.backends.cuda.emulator.memory import WRITTEN, DeviceSpace, Piece
from gpubp.backends.cuda.emulator.program import Kernel, Program, loaded
from gpubp.backends.cuda.products import Products
from gpubp.errors import BackendError, unknown_name

RACES = ("first", "all", "off")
FIRST = 2  # launches of a kernel and size that races are looked for in
_GIBIBYTE = 1 << 30


class _Done:
    """An event: everything before it is done."""

    def wait(self) -> None:
        pass


class EmulatedKernel:
    """A kernel for `EmulatedDriver.launch`.

    Attributes:
        kernel: translated when it is first launched.
        allowed: bytes of dynamic shared memory.
        seen: launches, by their sizes.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.allowed = kernel, SHARED_BYTES
        self.seen: Counter[tuple[Dim, Dim]] = Counter()


class EmulatedKernels:
    """The kernels of one source."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def get(self, name: str) -> EmulatedKernel:
        return EmulatedKernel(self._program.get(name))


class EmulatedDriver:
    """See `driver.Driver`.

    Args:
        architecture: what sources are compiled for.
        processors: as many multiprocessors are claimed.
        memory: bytes that the device has.
        races: one of RACES; None: GPUBP_EMULATOR_RACES, else "first".
        shuffle: seed of the order in which branches of recordings run, another one each time; None:
            as they were recorded.

    Attributes:
        together: how many cooperative launches there were.
        early: how many were recorded that begin before the kernel before them has ended.
        overlaps: see `BranchingDriver`.
        looped: how often a loop was launched.
    """

    number = 0
    loops = True
    name = "emulated GPU"
    products: Products | None = None

    def __init__(
        self,
        architecture: str = "sm_90",
        processors: int = 4,
        memory: int = 16 * _GIBIBYTE,
        races: str | None = None,
        shuffle: int | None = None,
    ) -> None:
        self.architecture, self.processors = architecture, processors
        self.together = self.early = self.looped = 0
        self._early = (False, False)  # the next launch, and those behind it; see `recordings.Node`
        self.overlaps = int(architecture.removeprefix("sm_").rstrip("af")) >= 90
        self._races = races or os.environ.get("GPUBP_EMULATOR_RACES") or "first"
        if self._races not in RACES:
            raise unknown_name("GPUBP_EMULATOR_RACES", self._races, RACES)
        number = int(architecture.removeprefix("sm_").rstrip("af"))
        self._device = Device(DeviceSpace(memory), number)
        self._memory = self._device.memory
        self._lock = threading.RLock()
        self._recorded: list[tuple[str, Callable[[], None]]] | None = None
        self._shuffle = None if shuffle is None else Random(shuffle)

    def start_anew(self) -> None:
        """In a forked child, whose lock another thread may have held."""
        self._lock = threading.RLock()

    def allocate(self, nbytes: int) -> Piece:
        self._not_while_recording("allocate")
        with self._lock:
            return self._memory.allocate(nbytes, WRITTEN)

    def free_bytes(self) -> int:
        return self._memory.limit - self._memory.used

    def upload(self, target: int, array: NDArray[Any]) -> None:
        self._not_while_recording("upload")
        self._memory.write(target, array)

    def download(self, source: int, array: NDArray[Any]) -> None:
        self._not_while_recording("download")
        array.reshape(-1).view(np.uint8)[...] = self._memory.read(source, array.nbytes)

    def compile(self, source: str) -> EmulatedKernels:
        ptx = compiled(source, self.architecture)
        with self._lock:
            return EmulatedKernels(loaded(ptx, source, self._memory))

    def launch(
        self, kernel: EmulatedKernel, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        early, self._early = self._early[0], (self._early[1], self._early[1])
        self.early += early
        self._do(kernel, self._bound(kernel, grid, block, shared, bytes(params), early=early))

    def blocks_together(self, kernel: EmulatedKernel, threads: int, shared: int) -> int:
        """See `CooperativeDriver`: one on each multiprocessor."""
        return self.processors if shared <= kernel.allowed else 0

    def launch_together(
        self, kernel: EmulatedKernel, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        """See `CooperativeDriver`."""
        self._not_while_recording("a cooperative launch")
        self.together += 1
        self._do(kernel, self._bound(kernel, grid, block, shared, bytes(params), together=True))

    def _do(self, kernel: EmulatedKernel, work: Callable[[], None]) -> None:
        if self._recorded is not None:
            self._recorded.append((kernel.kernel.name, work))
        else:
            work()

    def _bound(
        self,
        kernel: EmulatedKernel,
        grid: Dim,
        block: Dim,
        shared: int,
        params: bytes,
        together: bool = False,
        early: bool = False,
    ) -> Callable[[], None]:
        sizes = Sizes(grid, block, shared, kernel.allowed)

        def work() -> None:
            kernel.seen[grid, block] += 1
            few = kernel.seen[grid, block] <= FIRST
            races = self._races == "all" or (self._races == "first" and few)
            with self._lock:
                how = (races, together, False, early)
                for text in launch(self._device, kernel.kernel, sizes, params, *how):
                    print(text, end="")

        return work

    def allow_shared(self, kernel: EmulatedKernel, nbytes: int) -> None:
        most = self._device.most_shared()
        if nbytes > most:
            raise BackendError(f"{nbytes} bytes of shared memory, {self.architecture} has {most}")
        kernel.allowed = max(kernel.allowed, nbytes)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return self.record_branches([Node(work, 0, ())])

    def record_branches(self, nodes: Sequence[Node]) -> Callable[[], None]:
        """See `BranchingDriver`. Where races are looked for, launches that no edge orders must not
        meet in memory, in the first replay or in all.
        """
        graph, seen = self._graph(nodes), 0

        def replay() -> None:
            nonlocal seen
            self._not_while_recording("replay")
            seen += 1
            watch = self._races == "all" or (self._races == "first" and seen == 1)
            with self._lock:
                graph.run(self._shuffle, watch)

        return replay

    def record_loop(
        self, nodes: Sequence[Node], enter: Callable[[int], None]
    ) -> Callable[[], None]:
        """See `LoopingDriver`."""
        conditions = self._memory.conditions
        handle = 1 + len(conditions)
        conditions[handle] = 1
        enter(handle)
        once = self.record_branches(nodes)

        def replay() -> None:
            self.looped += 1
            conditions[handle] = 1
            while conditions[handle]:
                once()

        return replay

    def _graph(self, nodes: Sequence[Node]) -> Branches:
        self._not_while_recording("record")
        taken: list[list[tuple[str, Callable[[], None]]]] = []
        try:
            for node in nodes:
                taken.append([])
                self._recorded, self._early = taken[-1], node.early
                node.work()
        finally:
            self._recorded, self._early = None, (False, False)
        return Branches(taken, behind(nodes), self._memory)

    def current_stream(self) -> int:
        return 1

    def wait_for(self, stream: int) -> None:
        """Nothing is ever left to wait for."""

    def make_wait(self, stream: int) -> None:
        """Nothing is ever left to wait for."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        raise BackendError(_NO_ARRAYS)

    def to_user_array(self, value: Any) -> Any:
        raise BackendError(_NO_ARRAYS)

    def borrowed(self, array: Any) -> bool:
        return False

    def device_of(self, address: int) -> int:
        return 0

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return np.zeros(nbytes, np.uint8)

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Event:
        self._memory.write(target, array)
        return _Done()

    def mark(self) -> Event:
        return _Done()

    def wait_event(self, event: Event) -> None:
        """Everything is done when a call returns."""

    def synchronize(self) -> None:
        self._not_while_recording("synchronize")

    def _not_while_recording(self, what: str) -> None:
        if self._recorded is not None:
            raise BackendError(f"{what} while launches are recorded: a GPU refuses that")


_NO_ARRAYS = (
    "arrays of the emulated GPU cannot be handed out: give and take NumPy arrays on this device."
)
