"""A GPU as a driver: CuPy's memory, NVRTC compilation, launches and graph capture.

Everything here runs on a GPU only; the rest of the backend is tested without one. CuPy keeps
compiled kernels in its own cache (CUPY_CACHE_DIR), under a key of source, options, architecture and
compiler, and writes them atomically; sources come with their headers written out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cupy.driver import DeviceMemoryError, Dim, Kernels, Memory
from gpubp.backends.cupy.nvmath_products import NvmathProducts
from gpubp.backends.cupy.products import Products, opened, setting
from gpubp.errors import BackendError
from gpubp.store import address_of

OPTIONS = ("-std=c++17", "-default-device")


def probe() -> tuple[bool, str, dict[str, str]]:
    """(usable, why or why not, details) of the first GPU; never raises."""
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
        if count == 0:
            return False, "CuPy is installed, but there is no GPU.", {"cupy": cupy.__version__}
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        name = properties["name"]
        details = {
            "cupy": cupy.__version__,
            "gpu": name.decode() if isinstance(name, bytes) else str(name),
            "gpus": str(count),
            "driver": str(cupy.cuda.runtime.driverGetVersion()),
            "runtime": str(cupy.cuda.runtime.runtimeGetVersion()),
        }
    except Exception as err:
        return False, f"CuPy cannot use a GPU here: {type(err).__name__}: {err}", {}
    return True, "fused CUDA kernels in CUDA graphs", details


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


class CupyDriver:
    """See `driver.Driver`.

    Args:
        device: number of the GPU.

    Raises:
        BackendError: there is no such GPU.
    """

    def __init__(self, device: int = 0) -> None:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= device < count:
            raise BackendError(f"cuda:{device} was asked for, but there are {count} GPUs.")
        self._cupy = cupy
        self._device = cupy.cuda.Device(device)
        with self._device:
            properties = cupy.cuda.runtime.getDeviceProperties(device)
            self._stream = cupy.cuda.Stream(non_blocking=True)
        name = properties["name"]
        self.name = name.decode() if isinstance(name, bytes) else str(name)
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
        place = (self._device, self._stream, self.architecture)
        return opened(lambda: NvmathProducts(self._cupy, *place))

    def allocate(self, nbytes: int) -> Memory:
        with self._device, self._stream:
            try:
                memory = self._cupy.cuda.alloc(max(nbytes, 1))
            except self._cupy.cuda.memory.OutOfMemoryError as err:
                raise DeviceMemoryError(
                    f"{self.name} has not enough memory: {nbytes:,} bytes were asked for, "
                    f"{self.free_bytes():,} are free."
                ) from err
            memory.memset_async(0, nbytes, self._stream)
        return _Block(memory, nbytes)

    def free_bytes(self) -> int:
        with self._device:
            free: int = self._cupy.cuda.runtime.memGetInfo()[0]
            return free + int(self._cupy.get_default_memory_pool().free_bytes())

    def upload(self, target: int, array: NDArray[Any]) -> None:
        self._copy(target, address_of(array), array.nbytes, "HostToDevice")

    def download(self, source: int, array: NDArray[Any]) -> None:
        self._copy(address_of(array), source, array.nbytes, "DeviceToHost")
        self._stream.synchronize()

    def _copy(self, to: int, start: int, nbytes: int, kind: str) -> None:
        runtime = self._cupy.cuda.runtime
        with self._device:
            runtime.memcpyAsync(
                to, start, nbytes, getattr(runtime, f"memcpy{kind}"), self._stream.ptr
            )
            if kind == "HostToDevice":
                self._stream.synchronize()  # the host's array may change when this returns

    def compile(self, source: str) -> Kernels:
        with self._device:
            try:
                module = self._cupy.RawModule(code=source, options=OPTIONS, backend="nvrtc")
                module.compile()
            except Exception as err:
                raise BackendError(f"a CUDA kernel did not compile: {err}") from err
        return _Module(module)

    def launch(self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        argument = np.frombuffer(params, np.uint8)
        pointer = (ctypes.c_void_p * 1)(address_of(argument))
        with self._device:
            try:
                self._cupy.cuda.driver.launchKernel(
                    kernel.kernel.ptr,
                    *grid,
                    *block,
                    shared,
                    self._stream.ptr,
                    ctypes.addressof(pointer),
                    0,
                )
            except self._cupy.cuda.driver.CUDADriverError as err:
                raise BackendError(f"a kernel could not be launched: {err}.") from err

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        with self._device, self._stream:
            self._stream.begin_capture()
            try:
                work()
            finally:
                graph = self._stream.end_capture()
        stream, device = self._stream, self._device

        def replay() -> None:
            with device:
                graph.launch(stream)

        return replay

    def wait_for(self, stream: int) -> None:
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            # 1 and 2 name the default streams in the array interface; CuPy's handles are 0 and 2.
            event.record(self._cupy.cuda.ExternalStream(0 if stream == 1 else stream))
            self._stream.wait_event(event)

    def synchronize(self) -> None:
        try:
            self._stream.synchronize()
        except Exception as err:
            raise BackendError(f"a kernel failed on {self.name}: {err}.") from err
