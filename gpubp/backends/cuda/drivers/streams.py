"""What the drivers for GPUs do alike: order on two streams, uploads through pinned memory,
launching, recording, compiling. What they ask of a library is in `queues.py`, and in the functions
that each driver fills in.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.drivers.base import (
    SMALL,
    DeviceMemoryError,
    Dim,
    Event,
    Kernels,
    no_collection,
)
from gpubp.backends.cuda.drivers.pinned import PinnedBlocks
from gpubp.backends.cuda.drivers.queues import (
    Capture,
    LoopCapture,
    Mark,
    Queue,
    Start,
    fork,
)
from gpubp.backends.cuda.drivers.recordings import Node
from gpubp.backends.cuda.drivers.scope import Scope
from gpubp.backends.cuda.nvmath_products import NvmathProducts
from gpubp.backends.cuda.products import Products, Work, opened, setting
from gpubp.core.store import address_of
from gpubp.errors import BackendError


class StreamDriver(ABC):
    """The part of `base.Driver` that is the same over every library.

    Args:
        scope: in which the library is called.
        stream: of the work.
        copies: of copies beside it.
        compiler: NVRTC.

    Attributes:
        architecture: set by the driver before it compiles.
        name: of the GPU.
        processors: its multiprocessors.
        overlaps: see `recordings.BranchingDriver`.
        loops: see `recordings.LoopingDriver`.
    """

    architecture: str
    name: str
    processors: int
    overlaps = loops = False

    def __init__(
        self, scope: Scope, stream: Queue, copies: Queue, compiler: nvrtc.Compiler
    ) -> None:
        self._device, self._stream, self._copies = scope, stream, copies
        self._sides: list[Queue] = []
        self._early = (False, False)  # the next launch, and those behind it; see `recordings.Node`
        self._compiler = compiler
        self._blocks = PinnedBlocks(self.pinned, lambda point: bool(point.done))

    @abstractmethod
    def _copy_up(self, target: int, array: NDArray[Any], stream: Queue) -> None:
        """Copy host memory, of one byte at least, to the device, in a stream's order."""

    @abstractmethod
    def _copy_down(self, source: int, array: NDArray[Any], stream: Queue) -> None:
        """The other way."""

    @abstractmethod
    def _loaded(self, code: bytes) -> Kernels:
        """The kernels of machine code, or of PTX."""

    @abstractmethod
    def _capture(self) -> Capture:
        """Begin to record the work's stream."""

    @abstractmethod
    def _side(self) -> Queue:
        """A further stream, for branches of recordings."""

    @abstractmethod
    def _launch(self, kernel: Any, start: Start) -> None:
        """Launch a kernel of this driver's."""

    def _launch_early(self, kernel: Any, start: Start) -> None:
        """The same; it may begin before the kernel before it has ended. With `overlaps` alone."""
        raise NotImplementedError(f"{self.name} has no such launches")

    @abstractmethod
    def _launch_together(self, kernel: Any, start: Start) -> None:
        """The same, of blocks that may meet."""

    @abstractmethod
    def _blocks_each(self, kernel: Any, threads: int, shared: int) -> int:
        """Blocks of so many threads and bytes that a multiprocessor has room for."""

    def _loop(self) -> LoopCapture:
        """Begin to record a loop, on a stream of its own. With `loops` alone."""
        raise NotImplementedError(f"{self.name} has no loops in graphs")

    @abstractmethod
    def _pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Pinned memory of the host, of one byte at least."""

    @abstractmethod
    def free_bytes(self) -> int:
        """See `base.Driver`."""

    def _ask_for_products(self) -> None:
        """Raises BackendError: there is no library of products, and GPUBP_CUBLASLT is 1."""
        if setting() == "1":
            _ = self.products  # its absence is an error, and now

    @cached_property
    def products(self) -> Products | None:
        """cuBLASLt; loaded when it is first asked for.

        Raises:
            BackendError: it cannot be used, and GPUBP_CUBLASLT is 1.
        """
        place = (self._device, self._stream.handle, self.architecture)
        return opened(lambda: NvmathProducts(*place, self.seconds))

    def seconds(self, work: Work) -> float:
        """Of some work on the stream, by its events; what `work` returns is dropped."""
        with self._device:
            start = self._stream.mark(timed=True)
            work()
            stop = self._stream.mark(timed=True)
            stop.wait()
            return stop.since(start)

    @contextmanager
    def _room(self, nbytes: int) -> Iterator[None]:
        """Where there is none, the error says how much was asked for."""
        try:
            with self._device:
                yield
        except DeviceMemoryError as err:
            raise DeviceMemoryError(
                f"{self.name} has not enough memory: {nbytes:,} bytes were asked for, "
                f"{self.free_bytes():,} are free."
            ) from err

    def upload(self, target: int, array: NDArray[Any]) -> None:
        with self._device:
            if array.nbytes == 0:
                return
            if array.nbytes <= SMALL:
                self._upload_small(target, array)
            else:
                self._copy_up(target, array, self._stream)
                self._stream.sync()  # the host's array may change when this returns

    def _upload_small(self, target: int, array: NDArray[Any]) -> None:
        """By way of pinned memory, which is kept until the copy has ended."""
        block = self._blocks.take(array.nbytes)
        staged = block[: array.nbytes]
        staged[...] = array.reshape(-1).view(np.uint8)
        self._copy_up(target, staged, self._stream)
        self._blocks.busy(block, self._stream.mark())

    def download(self, source: int, array: NDArray[Any]) -> None:
        with self._device:
            if array.nbytes:
                self._copy_down(source, array, self._stream)
            self._stream.sync()

    def compile(self, source: str) -> Kernels:
        code = nvrtc.compiled(self._compiler, source, self.architecture)
        try:
            with self._device:
                return self._loaded(code)
        except Exception as err:
            raise BackendError(f"a CUDA kernel could not be loaded: {err}") from err

    def launch(self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        how = self._launch_early if self._early[0] else self._launch
        self._early = self._early[1], self._early[1]
        self._started(how, kernel, (*grid, *block, shared), params)

    def launch_together(
        self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        """See `base.CooperativeDriver`."""
        self._started(self._launch_together, kernel, (*grid, *block, shared), params)

    def _started(
        self, how: Callable[[Any, Start], None], kernel: Any, sizes: Sequence[int], params: bytes
    ) -> None:
        """A kernel has one argument, a struct; its bytes stay alive until it is launched."""
        given = (ctypes.c_void_p * 1)(address_of(np.frombuffer(params, np.uint8)))
        with self._device:
            place = (self._stream.handle, ctypes.addressof(given))
            how(kernel, Start._make((*sizes, *place)))

    def blocks_together(self, kernel: Any, threads: int, shared: int) -> int:
        """See `base.CooperativeDriver`."""
        with self._device:
            return self._blocks_each(kernel, threads, shared) * self.processors

    def record_branches(self, nodes: Sequence[Node]) -> Callable[[], None]:
        """See `recordings.BranchingDriver`: lanes are streams, which wait for events."""
        own = self._stream
        work = partial(fork, nodes, own, self._sides, self._use)
        return self._forked(nodes, work, self._capture)

    def _use(self, stream: Queue, node: Node) -> None:
        self._stream, self._early = stream, node.early

    def record_loop(
        self, nodes: Sequence[Node], enter: Callable[[int], None]
    ) -> Callable[[], None]:
        """See `recordings.LoopingDriver`."""
        loop: LoopCapture | None = None

        def begin() -> Capture:
            nonlocal loop
            loop = self._loop()
            return loop

        def rounds() -> None:
            assert loop is not None
            enter(loop.handle)
            fork(nodes, loop.queue, self._sides, self._use)

        return self._forked(nodes, rounds, begin)

    def _forked(
        self, nodes: Sequence[Node], work: Callable[[], None], begin: Callable[[], Capture]
    ) -> Callable[[], None]:
        """What `work` launches on several streams, recorded; afterwards all is as before."""
        own = self._stream
        with self._device:
            while len(self._sides) < max(node.lane for node in nodes):
                self._sides.append(self._side())
        try:
            return self._recorded(work, begin)
        finally:
            self._stream, self._early = own, (False, False)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return self._recorded(work, self._capture)

    def _recorded(
        self, work: Callable[[], None], begin: Callable[[], Capture]
    ) -> Callable[[], None]:
        with self._device, no_collection():
            capture = begin()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # the first error is the one that says what happened
                    capture.cancel()
                raise
            launch = capture.finish()
        return self._device.around(launch)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        try:
            with self._device:
                return self._pinned(max(nbytes, 1))[:nbytes]
        except BackendError as err:
            raise BackendError(f"no {nbytes:,} bytes of pinned host memory: {err}") from err

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Event:
        with self._device:
            self._copies.wait(after.point)  # type: ignore[attr-defined]
            if array.nbytes:
                self._copy_up(target, array, self._copies)
            return Mark(self._copies.mark(), self._device)

    def mark(self) -> Event:
        with self._device:
            return Mark(self._stream.mark(), self._device)

    def wait_event(self, event: Event) -> None:
        with self._device:
            self._stream.wait(event.point)  # type: ignore[attr-defined]

    def synchronize(self) -> None:
        with self._device:
            self._stream.sync()
