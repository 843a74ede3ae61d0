"""A GPU through cuda.core: context, streams, memory, copies, kernels, graphs.

Everything here runs on a GPU only; the rest of the backend is tested without one. That cuda.core
and its bindings have the names used here is tested where they are installed
(`tests/cuda/test_numba_cuda_names.py`). What users see of a driver (arrays, streams) is in
`numba_cuda.py`.

The backend works on a stream of its own that does not wait for the default stream, and copies
chunks on another.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.drivers.base import (
    SHARED_BYTES,
    SMALL,
    DeviceMemoryError,
    Dim,
    Event,
    Kernels,
    Memory,
    no_collection,
)
from gpubp.backends.cuda.drivers.core_calls import CoreContexts, CoreNvrtc, called
from gpubp.backends.cuda.drivers.numba_cuda_probe import import_numba_cuda
from gpubp.backends.cuda.drivers.pinned import PinnedBlocks
from gpubp.backends.cuda.drivers.scope import Scope
from gpubp.backends.cuda.nvmath_products import NvmathProducts
from gpubp.backends.cuda.products import Products, Work, opened, setting
from gpubp.core.store import address_of
from gpubp.errors import BackendError


class _Block:
    """Device memory; given back in the order of its stream when the buffer is collected."""

    def __init__(self, buffer: Any, nbytes: int) -> None:
        self._buffer = buffer
        self.nbytes = nbytes

    @property
    def address(self) -> int:
        return int(self._buffer.handle)


@dataclass(frozen=True)
class _Kernel:
    """`found` keeps the code loaded; `handle` is the driver's."""

    found: Any
    handle: int


@dataclass(frozen=True)
class _Module:
    code: Any
    scope: Scope

    def get(self, name: str) -> Any:
        with self.scope:  # loads the code
            found = self.code.get_kernel(name)
            return _Kernel(found, int(found.handle))


@dataclass(frozen=True)
class _Event:
    """See `base.Event`; `event` is cuda.core's."""

    event: Any
    scope: Scope

    def wait(self) -> None:
        with self.scope:
            self.event.sync()


def _argument(params: bytes) -> Any:
    """The addresses of a kernel's arguments, of which there is one; `params` must stay alive."""
    return (ctypes.c_void_p * 1)(address_of(np.frombuffer(params, np.uint8)))


class CoreDevice:
    """See `base.Driver`, of which this is the part below the user's arrays.

    Args:
        device: number of the GPU.

    Raises:
        BackendError: there is no such GPU, or a piece of software is missing.
    """

    def __init__(self, device: int = 0) -> None:
        self._numba, found = import_numba_cuda()
        count = self._numba.count()
        if not 0 <= device < count:
            raise BackendError(f"cuda:{device} was asked for, but there are {count} GPUs.")
        self._core, self._cuda, self._utils = found.core, found.driver, found.utils
        self._compiler = CoreNvrtc(found)
        self._compiler.version()
        self._here = here = self._core.Device(device)
        self.number, self.name = device, str(here.name)
        self._device = Scope(CoreContexts(found), device, self.name)
        with self._device:
            here.set_current()  # the context that is current anyway; `here` wants to be told
            options = self._core.StreamOptions(nonblocking=True)
            self._stream = here.create_stream(options=options)
            self._copies = here.create_stream(options=options)
            self._handle = int(self._stream.handle)
            self._default = here.default_stream
            self.processors = int(here.properties.multiprocessor_count)
        major, minor = here.compute_capability
        self.architecture = f"sm_{major}{minor}"
        self._blocks = PinnedBlocks(self._numba.pinned, lambda event: bool(event.is_done))
        if setting() == "1":
            _ = self.products  # its absence is an error, and now

    @cached_property
    def products(self) -> Products | None:
        """cuBLASLt; loaded when it is first asked for.

        Raises:
            BackendError: it cannot be used, and GPUBP_CUBLASLT is 1.
        """
        place = (self._device, self._handle, self.architecture)
        return opened(lambda: NvmathProducts(*place, self._seconds))

    def _seconds(self, work: Work) -> float:
        timed = self._core.EventOptions(timing_enabled=True)
        with self._device:
            start = self._stream.record(options=timed)
            work()
            stop = self._stream.record(options=timed)
            stop.sync()
            return float(stop - start) / 1e3

    def allocate(self, nbytes: int) -> Memory:
        with self._device, self._room(nbytes):
            buffer = self._here.allocate(max(nbytes, 1), stream=self._stream)
            buffer.fill(0, stream=self._stream)
        return _Block(buffer, nbytes)

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

    def free_bytes(self) -> int:
        with self._device:
            free = int(called(self._cuda.cuMemGetInfo())[0])
            pool = getattr(self._here.memory_resource, "attributes", None)
            if pool is None:  # a device without pools
                return free
            return free + int(pool.reserved_mem_current) - int(pool.used_mem_current)

    def upload(self, target: int, array: NDArray[Any]) -> None:
        with self._device:
            if array.nbytes <= SMALL:
                self._upload_small(target, array)
            else:
                self._to_device(target, array, self._handle)
                self._stream.sync()  # the host's array may change when this returns

    def _upload_small(self, target: int, array: NDArray[Any]) -> None:
        """By way of pinned memory, which is kept until the copy has ended."""
        block = self._blocks.take(array.nbytes)
        staged = block[: array.nbytes]
        staged[...] = array.reshape(-1).view(np.uint8)
        self._to_device(target, staged, self._handle)
        self._blocks.busy(block, self._stream.record())

    def _to_device(self, target: int, array: NDArray[Any], stream: int) -> None:
        if array.nbytes:
            called(self._cuda.cuMemcpyHtoDAsync(target, address_of(array), array.nbytes, stream))

    def download(self, source: int, array: NDArray[Any]) -> None:
        with self._device:
            if array.nbytes:
                place = (address_of(array), source, array.nbytes, self._handle)
                called(self._cuda.cuMemcpyDtoHAsync(*place))
            self._stream.sync()

    def compile(self, source: str) -> Kernels:
        code = nvrtc.compiled(self._compiler, source, self.architecture)
        make = self._core.ObjectCode.from_cubin
        if not code.startswith(b"\x7fELF"):
            make = self._core.ObjectCode.from_ptx
        try:
            with self._device:
                return _Module(make(code, name="gpubp.cu"), self._device)
        except Exception as err:
            raise BackendError(f"a CUDA kernel could not be loaded: {err}") from err

    def launch(self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        given = _argument(params)
        at = (shared, self._handle, ctypes.addressof(given))
        with self._device:
            called(self._cuda.cuLaunchKernel(kernel.handle, *grid, *block, *at, 0))

    def blocks_together(self, kernel: Any, threads: int, shared: int) -> int:
        """See `base.CooperativeDriver`."""
        ask = self._cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor
        with self._device:
            return int(called(ask(kernel.handle, threads, shared))) * self.processors

    def launch_together(
        self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        """See `base.CooperativeDriver`."""
        given = _argument(params)
        at = (shared, self._handle, ctypes.addressof(given))
        with self._device:
            called(self._cuda.cuLaunchCooperativeKernel(kernel.handle, *grid, *block, *at))

    def allow_shared(self, kernel: Any, nbytes: int) -> None:
        if nbytes > SHARED_BYTES:
            attributes = self._cuda.CUfunction_attribute
            what = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            with self._device:
                called(self._cuda.cuKernelSetAttribute(what, nbytes, kernel.handle, self.number))

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        with self._device, no_collection():
            builder = self._stream.create_graph_builder()
            builder.begin_building()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # the first error is the one that says what happened
                    builder.close()
                raise
            graph = builder.end_building().complete()
            builder.close()
            graph.upload(self._stream)
        return self._device.around(lambda: graph.launch(self._stream))

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        try:
            with self._device:
                return self._numba.pinned(max(nbytes, 1))[:nbytes]
        except BackendError as err:
            raise BackendError(f"no {nbytes:,} bytes of pinned host memory: {err}") from err

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Event:
        with self._device:
            self._copies.wait(after.event)  # type: ignore[attr-defined]
            self._to_device(target, array, int(self._copies.handle))
            return _Event(self._copies.record(), self._device)

    def mark(self) -> Event:
        with self._device:
            return _Event(self._stream.record(), self._device)

    def wait_event(self, event: Event) -> None:
        with self._device:
            self._stream.wait(event.event)  # type: ignore[attr-defined]

    def synchronize(self) -> None:
        with self._device:
            self._stream.sync()
