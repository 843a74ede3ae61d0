"""What the CUDA backend needs of a device: memory, compiled kernels, launches, recorded launches.

Comes in: CUDA C++ source, addresses, parameter blocks. Goes out: work done in order on one stream,
and copies from pinned memory beside it on a second one.
`CupyDriver` (in `cupy.py`) and `NumbaCudaDriver` (in `numba_cuda.py`) are GPUs. The tests have
another one, which builds the same sources with g++ and runs them on the CPU, so everything above
this line is the same code in all.

The convention for kernels, which both rely on: a kernel is `extern "C" __global__ void name(const
Params p)` with one trivially copyable struct by value, and the line `GP_KERNEL(name, Params)`
follows it (empty for CUDA; an entry point for the tests' build). Addresses in `Params` are device
addresses. Headers are found in `gpubp.kernels`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.products import Products
from gpubp.errors import BackendError

Dim = tuple[int, int, int]
SHARED_BYTES = 48 << 10  # of dynamic shared memory that a kernel has without `allow_shared`
SMALL = 1 << 21  # uploads of fewer bytes go through pinned memory, and do not make the host wait


class DeviceMemoryError(BackendError):
    """The device has not enough memory."""


class Memory(Protocol):
    """Device memory; freed when the object is."""

    @property
    def address(self) -> int:
        """Of its first byte: a multiple of 256."""
        ...

    @property
    def nbytes(self) -> int: ...


class Kernels(Protocol):
    """The kernels of one compiled source."""

    def get(self, name: str) -> Any:
        """A kernel by its name, for `Driver.launch`."""
        ...


class Event(Protocol):
    """A point in a stream's work."""

    def wait(self) -> None:
        """Let the host wait until all work before it is done."""
        ...


class Driver(Protocol):
    """One device, a stream on it for the work, and another for copies beside it.

    Attributes:
        number: of the device.
        name: for messages, such as "NVIDIA H100".
        architecture: what kernels are compiled for, such as "sm_90".
        processors: streaming multiprocessors.
    """

    number: int
    name: str
    architecture: str
    processors: int

    @property
    def products(self) -> Products | None:
        """A library of matrix products; None where there is none, or it is not wanted."""
        ...

    def allocate(self, nbytes: int) -> Memory:
        """Zeroed memory.

        Raises:
            DeviceMemoryError: there is not enough.
        """
        ...

    def free_bytes(self) -> int:
        """Memory that `allocate` could still give."""
        ...

    def upload(self, target: int, array: NDArray[Any]) -> None:
        """Copy a C-contiguous host array to a device address, in stream order; the array may change
        when this returns.
        """
        ...

    def download(self, source: int, array: NDArray[Any]) -> None:
        """Copy from a device address into a C-contiguous host array; done on return."""
        ...

    def compile(self, source: str) -> Kernels:
        """Compile a source, or find it in the cache.

        Raises:
            BackendError: the compiler's messages.
        """
        ...

    def launch(self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        """Start a kernel, in stream order. `shared`: bytes of dynamic shared memory; more than
        SHARED_BYTES must have been allowed.
        """
        ...

    def allow_shared(self, kernel: Any, nbytes: int) -> None:
        """From now on the kernel may be launched with so many bytes of dynamic shared memory.

        Raises:
            BackendError: no block of the device can have so much.
        """
        ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` launches, without running it; the result runs it all again."""
        ...

    def current_stream(self) -> int:
        """The handle of the stream that the user's own work is queued on now."""
        ...

    def wait_for(self, stream: int) -> None:
        """Let what comes next wait for the work on another stream, given by its handle."""
        ...

    def make_wait(self, stream: int) -> None:
        """Let what comes next on another stream wait for the work so far on this one."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """An array for the user, with the CUDA array interface, in memory of its own that follows
        the order of the user's current stream.

        Raises:
            DeviceMemoryError: there is not enough.
        """
        ...

    def to_user_array(self, value: Any) -> Any:
        """An array of the kind that `empty` gives: over the memory of another library's array on
        the device, ordered after its work; or a copy of a host array. In the order of the user's
        current stream.
        """
        ...

    def borrowed(self, array: Any) -> bool:
        """It is of the kind that `empty` gives, but over the memory of another library, which works
        on streams that the array does not name.
        """
        ...

    def device_of(self, address: int) -> int:
        """The number of the device that an address belongs to."""
        ...

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Host memory that `start_upload` can read; it may hold what somebody left there."""
        ...

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Event:
        """Copy pinned memory to a device address on the second stream, not before `after`.

        Returns:
            The copy's end. Until then the array must not change; what comes next on the first
            stream must `wait_event` before it reads the target.
        """
        ...

    def mark(self) -> Event:
        """The point that the first stream's work has reached with what was queued so far."""
        ...

    def wait_event(self, event: Event) -> None:
        """Let what comes next on the first stream wait for an event."""
        ...

    def synchronize(self) -> None:
        """Wait until all work is done.

        Raises:
            BackendError: a kernel failed.
        """
        ...


@runtime_checkable
class KernelDriver(Protocol):
    """A driver that also launches kernels of the user's own."""

    def bind_kernel(
        self,
        kernel: Any,
        places: Sequence[tuple[int, tuple[int, ...], np.dtype[Any]]],
        numbers: Sequence[float],
    ) -> Callable[[], None]:
        """What launches a `numba.cuda.jit` kernel, in stream order.

        Args:
            kernel: of arrays, the last of which is the result, and then of numbers.
            places: address, shape and dtype of each array; the elements lie in C order.
            numbers: float64.
        """
        ...


@runtime_checkable
class CooperativeDriver(Protocol):
    """A driver that also launches grids whose blocks are all alive at a time, and may meet."""

    def blocks_together(self, kernel: Any, threads: int, shared: int) -> int:
        """How many blocks of so many threads, with so many bytes of dynamic shared memory, the
        device has room for at a time.
        """
        ...

    def launch_together(
        self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        """As `launch`, of no more blocks than `blocks_together` says."""
        ...


@contextmanager
def no_collection() -> Iterator[None]:
    """While launches are recorded nothing is collected: memory that is freed then, from a pool that
    frees in stream order, would be freed again by every replay.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
