"""CuPy and `cupyx.distributed` as far as `gpubp.distributed.nccl` uses them, for ranks in threads.

Arrays lie in the host's memory, as on the tests' device; the collectives are those of threads. It
cannot prove that the real ones take these calls in this way: `test_cupy_names.py` compares names.
"""

from __future__ import annotations

import ctypes
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from gpubp.distributed import thread_group


class Array:
    """An array "on the device"."""

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None) -> None:
        dtype = np.dtype(dtype)
        if memptr is None:
            self.host = np.zeros(shape, dtype)
        else:
            count = int(np.prod(shape)) * dtype.itemsize
            bytes_there = (ctypes.c_ubyte * count).from_address(memptr.mem.ptr + memptr.offset)
            self.host = np.frombuffer(bytes_there, dtype).reshape(shape)

    @property
    def size(self) -> int:
        return int(self.host.size)

    def get(self) -> np.ndarray[Any, Any]:
        return self.host.copy()


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        self.ptr, self.size = ptr, size


class MemoryPointer:
    def __init__(self, mem: UnownedMemory, offset: int) -> None:
        self.mem, self.offset = mem, offset


class Group:
    """What `init_process_group` gives."""

    def __init__(self, communicator: Any, calls: list[str]) -> None:
        self._communicator, self._calls = communicator, calls

    def all_reduce(
        self, in_array: Array, out_array: Array, op: str = "sum", stream: Any = None
    ) -> None:
        assert op == "sum" and stream is None
        self._calls.append("all_reduce")
        total = in_array.get()
        self._communicator.all_reduce(total)
        out_array.host[...] = total

    def broadcast(self, in_out_array: Array, root: int = 0, stream: Any = None) -> None:
        self._communicator.broadcast(in_out_array.host, root)

    def all_gather(self, in_array: Array, out_array: Array, count: int, stream: Any = None) -> None:
        assert count == in_array.size
        out_array.host[...] = self._communicator.gather(in_array.host).reshape(-1)

    def barrier(self) -> None:
        self._communicator.barrier()

    def stop(self) -> None:
        self._calls.append("stop")


def modules(ranks: int, calls: list[str]) -> dict[str, ModuleType]:
    """For `sys.modules`: of a group of so many ranks, which meets once."""
    group, lock = thread_group(ranks, 60), threading.Lock()
    cupy, cupyx, distributed = (ModuleType(n) for n in ("cupy", "cupyx", "cupyx.distributed"))

    def asarray(array: Any) -> Array:
        made = Array(array.shape, array.dtype)
        made.host[...] = array
        return made

    def init_process_group(
        n_devices: int, rank: int, *, backend: str = "nccl", host: str | None = None,
        port: int | None = None, use_mpi: bool = False,
    ) -> Group:  # fmt: skip
        assert n_devices == ranks and backend == "nccl" and host and port and not use_mpi
        with lock:
            return Group(group[rank], calls)

    stream = SimpleNamespace(synchronize=lambda: calls.append("synchronize"))
    cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        UnownedMemory=UnownedMemory,
        MemoryPointer=MemoryPointer,
        get_current_stream=lambda: stream,
    )
    cupy.asarray, cupy.empty, cupy.ndarray = asarray, Array, Array  # type: ignore[attr-defined]
    distributed.init_process_group = init_process_group  # type: ignore[attr-defined]
    return {"cupy": cupy, "cupyx": cupyx, "cupyx.distributed": distributed}
