"""A device for the tests: CUDA sources built with g++ and run on the CPU, thread by thread.

Comes in: what `gpubp.backends.cuda.drivers.base.Driver` says. Goes out: the same work as on a GPU,
or a `KernelError` that names kernel, block and thread. In between: every launch is done when it
returns (unless `copies` says otherwise, see `shim_streams`); threads run in the order asked for,
shared memory starts as NaN, and every allocation is watched (see `shim/gp_memory.h`). What a GPU
would refuse (too many threads, an upload while launches are recorded) is refused here, too.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shim_array import ShimArray, to_user_array
from shim_build import built, runtime
from shim_streams import Copy, Mark, Streams

from gpubp.backends.cuda.drivers.base import SHARED_BYTES, DeviceMemoryError, Dim, Event
from gpubp.backends.cuda.drivers.recordings import Node, behind
from gpubp.backends.cuda.emulator.graphs import shuffled
from gpubp.backends.cuda.products import Products
from gpubp.errors import BackendError, unknown_name

ORDERS = ("forward", "reverse", "random")

# Bytes of dynamic shared memory that a block may have when it asks for them, after the CUDA C++
# Programming Guide, "Technical Specifications per Compute Capability".
MOST_SHARED = {"sm_75": 64 << 10, "sm_80": 163 << 10, "sm_90": 227 << 10}
MOST_THREADS, MOST_BLOCKS = (1024, 1024, 64), (2**31 - 1, 65535, 65535)
MOST_PARAMS = 4096

_lock = threading.RLock()  # the runtime's state is one for the process


class KernelError(BackendError):
    """A kernel did what it must not do.

    Attributes:
        kernel: its name.
        block: index of the block; None if no block was running.
        thread: index of the thread in it; None if it was no single thread's doing.
        reason: in words.
    """

    def __init__(self, kernel: str, block: Dim | None, thread: Dim | None, reason: str) -> None:
        self.kernel, self.block, self.thread, self.reason = kernel, block, thread, reason
        where = f", block {block}" * (block is not None) + f", thread {thread}" * bool(thread)
        super().__init__(f"kernel {kernel}{where}: {reason}")


class _Failure(ctypes.Structure):
    _fields_ = (
        ("has_thread", ctypes.c_int),
        ("block", ctypes.c_uint * 3),
        ("thread", ctypes.c_uint * 3),
        ("text", ctypes.c_char * 400),
    )


class _Entry(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("params_size", ctypes.c_size_t),
        ("run", ctypes.c_void_p),
        ("shared", ctypes.c_void_p),
    )


class ShimMemory:
    """Watched memory; freed with the object, and checked then.

    Attributes:
        address: of its first byte.
        nbytes: the size that was asked for.
    """

    def __init__(self, driver: ShimDriver, nbytes: int) -> None:
        self._driver = driver
        self.nbytes = nbytes
        if nbytes > driver.free_bytes():
            free = driver.free_bytes()
            raise DeviceMemoryError(f"{nbytes:,} bytes were asked for, {free:,} are free.")
        self.address: int = runtime().gp_allocate(nbytes, id(driver)) or 0
        if not self.address:
            raise BackendError(f"cannot allocate {nbytes} bytes")
        driver.used += nbytes

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self._driver.streams.finish()
            self._driver.used -= self.nbytes
            with _lock:
                damage = runtime().gp_free(self.address)
            if damage:
                self._driver.late_errors.append(_damaged(damage, self.nbytes))


class ShimKernel:
    """One kernel: its name, and its entry for the runtime."""

    def __init__(self, name: str, entry: _Entry) -> None:
        self.name = name
        self.entry = entry
        self.allowed = SHARED_BYTES


class ShimKernels:
    """The kernels of one source, built and loaded.

    Attributes:
        path: of the library; the source lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))

    def get(self, name: str) -> ShimKernel:
        """A kernel by its name.

        Raises:
            BackendError: the source has none of this name, or no GP_KERNEL line for it.
        """
        try:
            return ShimKernel(name, _Entry.in_dll(self._library, f"gp_kernel_{name}"))
        except ValueError as error:
            raise BackendError(f"no GP_KERNEL({name}, ...) in {self.path.stem}.cu") from error


class ShimDriver:
    """A `Driver` on the CPU.

    Args:
        order: in which threads, and blocks, run: "forward", "reverse" or "random".
        seed: of the random order.
        architecture: which GPU's limits hold, and what generated sources are made for.
        processors: as many streaming multiprocessors as are claimed.
        seconds: of processor time that a launch may take; more is an error.
        memory: bytes that the device has.
        copies: "now", "late" or "early"; see `shim_streams`.
        number: of the device.
        alive: blocks of a cooperative launch, at most.
        shuffle: seed of the order in which branches of recordings run, another one each time; None:
            as they were recorded.

    Attributes:
        together: how many cooperative launches there were.
        stream: the user's current one.
        log: what was said about other streams: ("wait_for", stream), ("make_wait", stream),
            ("dlpack", stream that the producer was told), ("launch", 0), ("synchronize", 0).
        launched: how often each kernel was launched, replays included.
        branched: nodes of each recording with branches.
        late_errors: damage that was found when memory was freed; raised by what comes next.
    """

    name = "CPU (test shim)"
    overlaps, loops = False, True
    products: Products | None = None  # see shim_products.py

    def __init__(
        self,
        order: str = "forward",
        seed: int = 0,
        architecture: str = "sm_80",
        processors: int = 4,
        seconds: float = 60.0,
        memory: int = 1 << 40,
        copies: str = "now",
        number: int = 0,
        alive: int = 4,
        shuffle: int | None = 0,
    ) -> None:
        if order not in ORDERS:
            raise unknown_name("order", order, ORDERS)
        if architecture not in MOST_SHARED:
            raise unknown_name("architecture", architecture, MOST_SHARED)
        self.order, self.seed, self.seconds = order, seed, seconds
        self.architecture, self.processors = architecture, processors
        self.memory, self.used = memory, 0
        self.number, self.stream = number, 1
        self.alive, self.together = alive, 0
        self._shuffle = None if shuffle is None else Random(shuffle)
        self.branched: list[list[Node]] = []
        self.log: list[tuple[str, int | None]] = []
        self.streams = Streams(copies)
        self.launched: Counter[str] = Counter()
        self.late_errors: list[BackendError] = []
        self._recorded: list[Callable[[], None]] | None = None

    def allocate(self, nbytes: int) -> ShimMemory:
        """Zeroed memory with watched ends."""
        self._not_while_recording("allocate")
        self.streams.finish()
        with _lock:
            return ShimMemory(self, nbytes)

    def free_bytes(self) -> int:
        """What is left of the device's memory."""
        return self.memory - self.used

    def upload(self, target: int, array: NDArray[Any]) -> None:
        """Copy a C-contiguous host array to a device address."""
        self._not_while_recording("upload")
        self._check_copy(target, array)
        taken = array.tobytes()
        self.streams.do(lambda: ctypes.memmove(target, taken, len(taken)) and None)

    def download(self, source: int, array: NDArray[Any]) -> None:
        """Copy from a device address into a C-contiguous host array."""
        self.synchronize()
        self._check_copy(source, array)
        ctypes.memmove(array.ctypes.data, source, array.nbytes)

    def compile(self, source: str) -> ShimKernels:
        """Build a source with g++, or find it in the cache.

        Raises:
            BackendError: the compiler's messages.
        """
        runtime()
        return ShimKernels(built(source))

    def launch(self, kernel: ShimKernel, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        """Run a kernel, or record it.

        Raises:
            KernelError: the launch is one that a GPU refuses, or a thread did something wrong.
        """
        self._check_launch(kernel, grid, block, shared, params)
        copied = bytes(params)
        self.enqueue(lambda: self._run(kernel, grid, block, shared, copied))

    def blocks_together(self, kernel: ShimKernel, threads: int, shared: int) -> int:
        """See `CooperativeDriver`: `alive`, if a block has its shared memory."""
        return self.alive if shared <= kernel.allowed else 0

    def launch_together(
        self, kernel: ShimKernel, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        """Run a kernel whose blocks are all alive, and take turns.

        Raises:
            KernelError: as for `launch`; or there are more blocks than the device has room for.
        """
        self._check_launch(kernel, grid, block, shared, params)
        if math.prod(grid) > self.alive:
            reason = f"cannot be launched: {grid} are more than {self.alive} blocks together"
            raise KernelError(kernel.name, None, None, reason)
        self.together += 1
        copied = bytes(params)
        self.enqueue(lambda: self._run(kernel, grid, block, shared, copied, together=True))

    def allow_shared(self, kernel: ShimKernel, nbytes: int) -> None:
        """See `Driver.allow_shared`."""
        most = MOST_SHARED[self.architecture]
        if nbytes > most:
            raise BackendError(f"{nbytes} bytes of shared memory, {self.architecture} has {most}")
        kernel.allowed = max(kernel.allowed, nbytes)

    def enqueue(self, work: Callable[[], None]) -> None:
        """Do some work in stream order, or record it."""
        if self._recorded is not None:
            self._recorded.append(work)
        else:
            self.log.append(("launch", 0))
            self.streams.do(work)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` launches; the result launches it all, parameters as they were then."""
        return self._replayed([self._taken(work)], [()])

    def record_branches(self, nodes: Sequence[Node]) -> Callable[[], None]:
        """See `BranchingDriver`: each time in another order of those that edges allow."""
        self.branched.append(list(nodes))
        return self._replayed([self._taken(node.work) for node in nodes], behind(nodes))

    def record_loop(
        self, nodes: Sequence[Node], enter: Callable[[int], None]
    ) -> Callable[[], None]:
        """See `LoopingDriver`; the handle is an address of the word."""
        condition = self.allocate(4)
        enter(condition.address)
        once = self.record_branches(nodes)

        def replay() -> None:
            again = ctypes.c_uint.from_address(condition.address)
            again.value = 1
            while again.value:
                once()
                self.streams.finish()

        return replay

    def _taken(self, work: Callable[[], None]) -> list[Callable[[], None]]:
        """What `work` launches, not done."""
        self._not_while_recording("record")
        self._recorded = recorded = []
        try:
            work()
        finally:
            self._recorded = None
        return recorded

    def _replayed(
        self, taken: list[list[Callable[[], None]]], before: Sequence[Sequence[int]]
    ) -> Callable[[], None]:
        def replay() -> None:
            self._not_while_recording("replay")
            self.log.append(("launch", 0))
            order: Iterable[int] = range(len(taken))
            if self._shuffle is not None:
                order = shuffled(before, self._shuffle)
            for i in order:
                for launch in taken[i]:
                    self.streams.do(launch)

        return replay

    def current_stream(self) -> int:
        return self.stream

    def wait_for(self, stream: int) -> None:
        """Noted: nothing is ever left to wait for here."""
        self.log.append(("wait_for", stream))

    def make_wait(self, stream: int) -> None:
        """Noted."""
        self.log.append(("make_wait", stream))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> ShimArray:
        memory = self.allocate(max(math.prod(shape) * np.dtype(dtype).itemsize, 1))
        return ShimArray(self, memory.address, shape, dtype, memory)

    def to_user_array(self, value: Any) -> ShimArray:
        return to_user_array(self, value)

    def borrowed(self, array: Any) -> bool:
        return isinstance(array, ShimArray) and array.borrowed

    def device_of(self, address: int) -> int:
        """Memory of the process belongs to device 0, as far as its address tells."""
        return 0

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return self.streams.pinned(nbytes)

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Copy:
        self._check_copy(target, array)
        return self.streams.start_upload(target, array, after)

    def mark(self) -> Mark:
        return self.streams.mark()

    def wait_event(self, event: Event) -> None:
        self.streams.wait_event(event)

    def synchronize(self) -> None:
        """Do what is queued; raise what was found late."""
        self._not_while_recording("synchronize")
        self.log.append(("synchronize", 0))
        self.streams.finish()
        self._check_memory("a copy or kernel before this call")
        if self.late_errors:
            raise self.late_errors.pop(0)

    def _run(
        self,
        kernel: ShimKernel,
        grid: Dim,
        block: Dim,
        shared: int,
        params: bytes,
        together: bool = False,
    ) -> None:
        self.launched[kernel.name] += 1
        failure = _Failure()
        three = ctypes.c_uint * 3
        with _lock:
            code = runtime().gp_run(
                *(ctypes.byref(kernel.entry), three(*grid), three(*block), shared, params),
                *(ORDERS.index(self.order), together, self.seed, self.seconds),
                ctypes.byref(failure),
            )
        if code == 2:
            raise BackendError("no memory for shared memory, or no timer")
        if code:
            x, y, z = failure.thread
            thread = (x, y, z) if failure.has_thread else None
            bx, by, bz = failure.block
            raise KernelError(kernel.name, (bx, by, bz), thread, failure.text.decode())
        self._check_memory(kernel.name)

    def _check_memory(self, kernel: str) -> None:
        size = ctypes.c_size_t()
        with _lock:
            damage = runtime().gp_check(id(self), ctypes.byref(size))
        if damage:
            raise KernelError(kernel, None, None, str(_damaged(damage, size.value)))

    def _check_launch(
        self, kernel: ShimKernel, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        def refuse(reason: str) -> None:
            raise KernelError(kernel.name, None, None, f"cannot be launched: {reason}")

        for what, sizes, most in (("grid", grid, MOST_BLOCKS), ("block", block, MOST_THREADS)):
            if len(sizes) != 3 or not all(1 <= n <= m for n, m in zip(sizes, most)):
                refuse(f"the {what} is {sizes}, expected 1 to {most}")
        if block[0] * block[1] * block[2] > MOST_THREADS[0]:
            refuse(f"{block} are more than {MOST_THREADS[0]} threads in a block")
        if not 0 <= shared <= kernel.allowed:
            refuse(f"{shared} bytes of shared memory, it was allowed {kernel.allowed}")
        if len(params) != kernel.entry.params_size or len(params) > MOST_PARAMS:
            expected = kernel.entry.params_size
            refuse(f"{len(params)} bytes of parameters, expected {expected}, at most {MOST_PARAMS}")

    def _check_copy(self, address: int, array: NDArray[Any]) -> None:
        if not array.flags.c_contiguous:
            raise BackendError("only C-contiguous arrays are copied")
        if array.nbytes and not runtime().gp_holds(address, array.nbytes):
            raise BackendError(f"{array.nbytes} bytes at {address:#x} are not in one allocation")

    def _not_while_recording(self, what: str) -> None:
        if self._recorded is not None:
            raise BackendError(f"{what} while launches are recorded: a GPU refuses that")


def _damaged(damage: bytes, nbytes: int) -> BackendError:
    return BackendError(f"wrote {damage.decode()} an allocation of {nbytes} bytes")
