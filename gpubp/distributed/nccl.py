"""Ranks with a GPU each, which talk through NCCL, by `cupyx.distributed`.

Arrays of the host are copied to the GPU and back; banks that live on the GPU are summed there, see
`gpubp.runtime.rank_sums`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed.communicator import TIMEOUT, check_carried, check_root, check_summable
from gpubp.errors import LostPeerError, missing_extra


class NcclCommunicator:
    """A rank of NCCL, on the current device.

    Args:
        rank: of this process.
        size: how many will come.
        address: "host:port" of rank 0.
        timeout: seconds that a rank waits for the others to come.

    Raises:
        MissingExtraError: CuPy or NCCL is not installed.
        LostPeerError: not all ranks have come.
    """

    name = "nccl"

    def __init__(self, rank: int, size: int, address: str, timeout: float = TIMEOUT) -> None:
        try:
            import cupy
            from cupyx.distributed import init_process_group
        except ImportError as error:
            raise missing_extra("CuPy with NCCL", "cuda13", "the nccl backend") from error
        self.rank, self.size, self._timeout, self._cupy = rank, size, timeout, cupy
        host, _, port = address.rpartition(":")
        try:
            self._group: Any = init_process_group(
                size, rank, backend="nccl", host=host, port=int(port)
            )
        except (RuntimeError, OSError) as error:
            raise LostPeerError(
                f"rank {rank} of {size} could not meet the others at {address}: {error}."
            ) from error

    def _do(self, name: str, *args: Any) -> None:
        try:
            getattr(self._group, name)(*args)
            self._cupy.cuda.get_current_stream().synchronize()
        except (RuntimeError, OSError) as error:
            raise LostPeerError(f"rank {self.rank}: NCCL says {error}.") from error

    def all_reduce(self, array: NDArray[Any]) -> None:
        """See `Communicator`."""
        check_summable(array)
        if array.size:
            device = self._cupy.asarray(array)
            self._do("all_reduce", device, device)
            array[...] = device.get()

    def all_reduce_at(self, address: int, size: int, dtype: np.dtype[Any]) -> None:
        """See `DeviceCommunicator`."""
        cuda = self._cupy.cuda
        memory = cuda.UnownedMemory(address, size * dtype.itemsize, self)
        array = self._cupy.ndarray((size,), dtype, cuda.MemoryPointer(memory, 0))
        self._do("all_reduce", array, array)

    def broadcast(self, array: NDArray[Any], root: int = 0) -> None:
        """See `Communicator`."""
        check_carried(array)
        check_root(root, self.size)
        if array.size:
            device = self._cupy.asarray(array.reshape(-1).view(np.uint8))
            self._do("broadcast", device, root)
            array.reshape(-1).view(np.uint8)[...] = device.get()

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Communicator`."""
        check_carried(array)
        found = np.empty((self.size, *array.shape), array.dtype)
        if array.size:
            mine = self._cupy.asarray(np.array(array, order="C").reshape(-1).view(np.uint8))
            rows = self._cupy.empty(self.size * mine.size, np.uint8)
            self._do("all_gather", mine, rows, mine.size)
            found.reshape(-1).view(np.uint8)[...] = rows.get()
        return found

    def barrier(self) -> None:
        """See `Communicator`."""
        self._do("barrier")

    def close(self) -> None:
        """Let go of the group."""
        if self._group is not None:
            self._group.stop()
            self._group = None
