"""A GPU as a driver: CuPy's memory, streams, launches and graph capture.

Everything here runs on a GPU only; the rest of the backend is tested without one. That CuPy has
the names used here is tested where it is installed (`tests/cuda/test_cupy_names.py`).

User arrays are CuPy's, on CuPy's current stream. The backend works on a stream of its own that does
not wait for the default stream (`non_blocking`), and copies chunks on another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.drivers.base import SHARED_BYTES, Kernels, Memory
from gpubp.backends.cuda.drivers.cupy_probe import gpu_name, import_cupy
from gpubp.backends.cuda.drivers.cupy_scope import CupyContexts
from gpubp.backends.cuda.drivers.numba_arrays import NumbaCuda, Place
from gpubp.backends.cuda.drivers.queues import Capture, Queue, Start
from gpubp.backends.cuda.drivers.scope import Scope
from gpubp.backends.cuda.drivers.streams import StreamDriver
from gpubp.backends.cuda.products import Work
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
class _Point:
    """See `queues.Point`."""

    event: Any
    _cupy: Any

    @property
    def done(self) -> bool:
        return bool(self.event.done)

    def wait(self) -> None:
        self.event.synchronize()

    def since(self, earlier: _Point) -> float:
        return float(self._cupy.cuda.get_elapsed_time(earlier.event, self.event)) / 1e3


class _Stream:
    """See `queues.Queue`; `own` is CuPy's."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self.own = cupy.cuda.Stream(non_blocking=True)
        self.handle = int(self.own.ptr)

    def mark(self, timed: bool = False) -> _Point:
        event = self._cupy.cuda.Event(disable_timing=not timed)
        event.record(self.own)
        return _Point(event, self._cupy)

    def wait(self, point: _Point) -> None:
        self.own.wait_event(point.event)

    def sync(self) -> None:
        self.own.synchronize()


@dataclass(frozen=True)
class _Capture:
    """See `queues.Capture`."""

    stream: Any

    def finish(self) -> Callable[[], None]:
        graph = self.stream.end_capture()
        return lambda: graph.launch(self.stream)

    def cancel(self) -> None:
        self.stream.end_capture()


class CupyDriver(StreamDriver):
    """See `base.Driver`.

    Args:
        device: number of the GPU.

    Raises:
        BackendError: there is no such GPU, or a piece of software is missing.
    """

    _stream: _Stream

    def __init__(self, device: int = 0) -> None:
        cupy, count = import_cupy()
        if not 0 <= device < count:
            raise BackendError(f"cuda:{device} was asked for, but there are {count} GPUs.")
        compiler = nvrtc.CupyNvrtc(cupy.cuda.nvrtc)
        compiler.version()
        self._cupy = cupy
        properties = cupy.cuda.runtime.getDeviceProperties(device)
        self.number = device
        self.name = gpu_name(properties)
        self.architecture = f"sm_{properties['major']}{properties['minor']}"
        self.processors = int(properties["multiProcessorCount"])
        scope = Scope(CupyContexts(cupy), device, self.name)
        with scope:
            super().__init__(scope, _Stream(cupy), _Stream(cupy), compiler)
        self._ask_for_products()

    def _side(self) -> _Stream:
        return _Stream(self._cupy)

    def allocate(self, nbytes: int) -> Memory:
        with self._room(nbytes), self._stream.own:
            memory = self._cupy.cuda.alloc(max(nbytes, 1))
            memory.memset_async(0, nbytes, self._stream.own)
        return _Block(memory, nbytes)

    def free_bytes(self) -> int:
        with self._device:
            free: int = self._cupy.cuda.runtime.memGetInfo()[0]
            return free + int(self._cupy.get_default_memory_pool().free_bytes())

    def _copy_up(self, target: int, array: NDArray[Any], stream: Queue) -> None:
        self._copy(target, address_of(array), array.nbytes, "HostToDevice", stream)

    def _copy_down(self, source: int, array: NDArray[Any], stream: Queue) -> None:
        self._copy(address_of(array), source, array.nbytes, "DeviceToHost", stream)

    def _copy(self, to: int, start: int, nbytes: int, kind: str, stream: Queue) -> None:
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(to, start, nbytes, getattr(runtime, f"memcpy{kind}"), stream.handle)

    def _loaded(self, code: bytes) -> Kernels:
        module = self._cupy.cuda.function.Module()
        module.load(code)
        return _Module(module)

    def _launch(self, kernel: Any, start: Start) -> None:
        self._cupy.cuda.driver.launchKernel(kernel.ptr, *start, 0)

    def _launch_together(self, kernel: Any, start: Start) -> None:
        self._cupy.cuda.driver.launchCooperativeKernel(kernel.ptr, *start)

    def _blocks_each(self, kernel: Any, threads: int, shared: int) -> int:
        driver = self._cupy.cuda.driver
        return int(driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.ptr, threads, shared))

    def allow_shared(self, kernel: Any, nbytes: int) -> None:
        driver = self._cupy.cuda.driver
        if nbytes > SHARED_BYTES:
            what = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            with self._device:
                driver.funcSetAttribute(kernel.ptr, what, nbytes)

    def _recorded(
        self, work: Callable[[], None], begin: Callable[[], Capture]
    ) -> Callable[[], None]:
        with self._device, self._stream.own:  # CuPy's current one, for what `work` asks of CuPy
            return super()._recorded(work, begin)

    def _capture(self) -> _Capture:
        self._stream.own.begin_capture()
        return _Capture(self._stream.own)

    def bind_kernel(self, kernel: Any, places: Sequence[Place], numbers: Sequence[float]) -> Work:
        """See `base.KernelDriver`."""
        try:
            numba = NumbaCuda()
        except ImportError as err:
            raise BackendError(f"a kernel of numba.cuda cannot be launched: {err}.") from err
        with self._device:
            start = numba.bound(kernel, places, numbers, self._stream.handle)
        return self._device.around(start)

    def current_stream(self) -> int:
        with self._device:
            return int(self._cupy.cuda.get_current_stream().ptr) or _LEGACY

    def wait_for(self, stream: int) -> None:
        runtime = self._cupy.cuda.runtime
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            runtime.eventRecord(event.ptr, stream)
            runtime.streamWaitEvent(self._stream.handle, event.ptr)

    def make_wait(self, stream: int) -> None:
        runtime = self._cupy.cuda.runtime
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            runtime.eventRecord(event.ptr, self._stream.handle)
            runtime.streamWaitEvent(stream, event.ptr)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        with self._room(int(np.prod(shape)) * dtype.itemsize):
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

    def _pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return np.frombuffer(self._cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)
