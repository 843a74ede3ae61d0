"""A GPU as a driver: CuPy's memory, streams, launches and graph capture.

Everything here runs on a GPU only; the rest of the backend is tested without one. That CuPy has
the names used here is tested where it is installed (`tests/cuda/test_cupy_names.py`).

User arrays are CuPy's, on CuPy's current stream. The backend works on a stream of its own that does
not wait for the default stream (`non_blocking`), and copies chunks on another.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
from gpubp.backends.cuda.drivers.cupy_probe import gpu_name, import_cupy
from gpubp.backends.cuda.drivers.cupy_scope import CupyContexts
from gpubp.backends.cuda.drivers.numba_arrays import NumbaCuda, Place
from gpubp.backends.cuda.drivers.scope import Scope
from gpubp.backends.cuda.nvmath_products import NvmathProducts
from gpubp.backends.cuda.products import Products, Work, opened, setting
from gpubp.core.interop import on_device
from gpubp.core.store import address_of
from gpubp.errors import BackendError

# CuPy's classes for memory that is not its own.
_BORROWED = ("UnownedMemory", "DLPackMemory")
_LEGACY = 1  # the default stream's handle, where 0 is not allowed


class _Block:
    """Device memory that belongs to its owner; CuPy frees it."""

    def __init__(self, memory: Any, nbytes: int) -> None:
        self._memory = memory
        self.nbytes = nbytes

    @property
    def address(self) -> int:
        return int(self._memory.ptr)


class _Module:
    def __init__(self, module: Any) -> None:
        self._module = module

    def get(self, name: str) -> Any:
        return self._module.get_function(name)


@dataclass(frozen=True)
class _Event:
    """See `driver.Event`; `event` is CuPy's."""

    event: Any
    scope: Scope

    def wait(self) -> None:
        with self.scope:
            self.event.synchronize()


def _argument(params: bytes) -> Any:
    """The addresses of a kernel's arguments, of which there is one; `params` must stay alive."""
    return (ctypes.c_void_p * 1)(address_of(np.frombuffer(params, np.uint8)))


class CupyDriver:
    """See `driver.Driver`.

    Args:
        device: number of the GPU.

    Raises:
        BackendError: there is no such GPU, or a piece of software is missing.
    """

    def __init__(self, device: int = 0) -> None:
        cupy, count = import_cupy()
        if not 0 <= device < count:
            raise BackendError(f"cuda:{device} was asked for, but there are {count} GPUs.")
        self._compiler = nvrtc.CupyNvrtc(cupy.cuda.nvrtc)
        self._compiler.version()
        self._cupy = cupy
        properties = cupy.cuda.runtime.getDeviceProperties(device)
        self.number = device
        self.name = gpu_name(properties)
        self._device = Scope(CupyContexts(cupy), device, self.name)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._copies = cupy.cuda.Stream(non_blocking=True)
        self._in_flight: deque[tuple[Event, Any]] = deque()  # small uploads' pinned memory
        self.architecture = f"sm_{properties['major']}{properties['minor']}"
        self.processors = int(properties["multiProcessorCount"])
        if setting() == "1":
            _ = self.products  # its absence is an error, and now

    @cached_property
    def products(self) -> Products | None:
        """cuBLASLt; loaded when it is first asked for.

        Raises:
            BackendError: it cannot be used, and GPUBP_CUBLASLT is 1.
        """
        place = (self._device, self._stream.ptr, self.architecture)
        return opened(lambda: NvmathProducts(*place, self._seconds))

    def _seconds(self, work: Work) -> float:
        with self._device:
            start, stop = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            start.record(self._stream)
            work()
            stop.record(self._stream)
            stop.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(start, stop)) / 1e3

    def allocate(self, nbytes: int) -> Memory:
        with self._device, self._stream, self._room(nbytes):
            memory = self._cupy.cuda.alloc(max(nbytes, 1))
            memory.memset_async(0, nbytes, self._stream)
        return _Block(memory, nbytes)

    @contextmanager
    def _room(self, nbytes: int) -> Iterator[None]:
        """Where there is none, the error says how much was asked for."""
        try:
            yield
        except self._cupy.cuda.memory.OutOfMemoryError as err:
            raise DeviceMemoryError(
                f"{self.name} has not enough memory: {nbytes:,} bytes were asked for, "
                f"{self.free_bytes():,} are free."
            ) from err

    def free_bytes(self) -> int:
        with self._device:
            free: int = self._cupy.cuda.runtime.memGetInfo()[0]
            return free + int(self._cupy.get_default_memory_pool().free_bytes())

    def upload(self, target: int, array: NDArray[Any]) -> None:
        with self._device:
            if array.nbytes <= SMALL:
                self._upload_small(target, array)
            else:
                self._copy(target, address_of(array), array.nbytes, "HostToDevice", self._stream)
                self._stream.synchronize()  # the host's array may change when this returns

    def _upload_small(self, target: int, array: NDArray[Any]) -> None:
        """By way of pinned memory, which is kept until the copy has ended."""
        staged, memory = self._pinned(array.nbytes)
        staged[...] = array.reshape(-1).view(np.uint8)
        self._copy(target, int(memory.ptr), array.nbytes, "HostToDevice", self._stream)
        self._in_flight.append((self.mark(), memory))
        while self._in_flight and self._in_flight[0][0].event.done:  # type: ignore[attr-defined]
            self._in_flight.popleft()

    def download(self, source: int, array: NDArray[Any]) -> None:
        with self._device:
            self._copy(address_of(array), source, array.nbytes, "DeviceToHost", self._stream)
            self._stream.synchronize()

    def _copy(self, to: int, start: int, nbytes: int, kind: str, stream: Any) -> None:
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(to, start, nbytes, getattr(runtime, f"memcpy{kind}"), stream.ptr)

    def compile(self, source: str) -> Kernels:
        code = nvrtc.compiled(self._compiler, source, self.architecture)
        with self._device:
            try:
                module = self._cupy.cuda.function.Module()
                module.load(code)
            except Exception as err:
                raise BackendError(f"a CUDA kernel could not be loaded: {err}") from err
        return _Module(module)

    def launch(self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        given = _argument(params)
        at = (shared, self._stream.ptr, ctypes.addressof(given))
        with self._device:
            self._cupy.cuda.driver.launchKernel(kernel.ptr, *grid, *block, *at, 0)

    def blocks_together(self, kernel: Any, threads: int, shared: int) -> int:
        """See `base.CooperativeDriver`."""
        driver = self._cupy.cuda.driver
        with self._device:
            each = driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.ptr, threads, shared)
        return int(each) * self.processors

    def launch_together(
        self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        """See `base.CooperativeDriver`."""
        given = _argument(params)
        at = (shared, self._stream.ptr, ctypes.addressof(given))
        with self._device:
            self._cupy.cuda.driver.launchCooperativeKernel(kernel.ptr, *grid, *block, *at)

    def allow_shared(self, kernel: Any, nbytes: int) -> None:
        driver = self._cupy.cuda.driver
        if nbytes > SHARED_BYTES:
            what = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            with self._device:
                driver.funcSetAttribute(kernel.ptr, what, nbytes)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        with self._device, self._stream, no_collection():
            self._stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # the first error is the one that says what happened
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        return self._device.around(lambda: graph.launch(self._stream))

    def bind_kernel(self, kernel: Any, places: Sequence[Place], numbers: Sequence[float]) -> Work:
        """See `base.KernelDriver`."""
        try:
            numba = NumbaCuda()
        except ImportError as err:
            raise BackendError(f"a kernel of numba.cuda cannot be launched: {err}.") from err
        with self._device:
            start = numba.bound(kernel, places, numbers, int(self._stream.ptr))
        return self._device.around(start)

    def current_stream(self) -> int:
        with self._device:
            return int(self._cupy.cuda.get_current_stream().ptr) or _LEGACY

    def wait_for(self, stream: int) -> None:
        runtime = self._cupy.cuda.runtime
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            runtime.eventRecord(event.ptr, stream)
            runtime.streamWaitEvent(self._stream.ptr, event.ptr)

    def make_wait(self, stream: int) -> None:
        runtime = self._cupy.cuda.runtime
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            runtime.eventRecord(event.ptr, self._stream.ptr)
            runtime.streamWaitEvent(stream, event.ptr)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        with self._device, self._room(int(np.prod(shape)) * dtype.itemsize):
            return self._cupy.empty(shape, dtype)

    def to_user_array(self, value: Any) -> Any:
        with self._device:
            if isinstance(value, self._cupy.ndarray):
                return value
            if on_device(value) and hasattr(value, "__dlpack__"):
                return self._cupy.from_dlpack(value)
            return self._cupy.asarray(value)

    def borrowed(self, array: Any) -> bool:
        if not isinstance(array, self._cupy.ndarray):
            return False
        return type(array.data.mem).__name__ in _BORROWED

    def device_of(self, address: int) -> int:
        with self._device:
            return int(self._cupy.cuda.runtime.pointerGetAttributes(address).device)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return self._pinned(nbytes)[0]

    def _pinned(self, nbytes: int) -> tuple[NDArray[np.uint8], Any]:
        with self._device:
            try:
                memory = self._cupy.cuda.alloc_pinned_memory(max(nbytes, 1))
            except self._cupy.cuda.runtime.CUDARuntimeError as err:
                raise BackendError(f"no {nbytes:,} bytes of pinned host memory: {err}.") from err
        return np.frombuffer(memory, np.uint8, nbytes), memory

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Event:
        with self._device:
            self._copies.wait_event(after.event)  # type: ignore[attr-defined]
            if array.nbytes:
                self._copy(target, address_of(array), array.nbytes, "HostToDevice", self._copies)
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(self._copies)
        return _Event(event, self._device)

    def mark(self) -> Event:
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(self._stream)
        return _Event(event, self._device)

    def wait_event(self, event: Event) -> None:
        with self._device:
            self._stream.wait_event(event.event)  # type: ignore[attr-defined]

    def synchronize(self) -> None:
        with self._device:
            self._stream.synchronize()
