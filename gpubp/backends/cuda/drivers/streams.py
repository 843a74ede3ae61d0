"""What the drivers for GPUs do alike: order on two streams, uploads through pinned memory,
recording, compiling. What they ask of a library is in `Queue`, `Point` and `Capture`, and in the
functions that each driver fills in.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.drivers.base import (
    SMALL,
    DeviceMemoryError,
    Event,
    Kernels,
    no_collection,
)
from gpubp.backends.cuda.drivers.pinned import PinnedBlocks
from gpubp.backends.cuda.drivers.scope import Scope
from gpubp.backends.cuda.nvmath_products import NvmathProducts
from gpubp.backends.cuda.products import Products, Work, opened, setting
from gpubp.core.store import address_of
from gpubp.errors import BackendError


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


@dataclass(frozen=True)
class _Event:
    """See `base.Event`."""

    point: Point
    scope: Scope

    def wait(self) -> None:
        with self.scope:
            self.point.wait()


def argument(params: bytes) -> Any:
    """The addresses of a kernel's arguments, of which there is one; `params` must stay alive."""
    return (ctypes.c_void_p * 1)(address_of(np.frombuffer(params, np.uint8)))


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
    """

    architecture: str
    name: str

    def __init__(
        self, scope: Scope, stream: Queue, copies: Queue, compiler: nvrtc.Compiler
    ) -> None:
        self._device, self._stream, self._copies = scope, stream, copies
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

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        with self._device, no_collection():
            capture = self._capture()
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
            return _Event(self._copies.mark(), self._device)

    def mark(self) -> Event:
        with self._device:
            return _Event(self._stream.mark(), self._device)

    def wait_event(self, event: Event) -> None:
        with self._device:
            self._stream.wait(event.point)  # type: ignore[attr-defined]

    def synchronize(self) -> None:
        with self._device:
            self._stream.sync()
