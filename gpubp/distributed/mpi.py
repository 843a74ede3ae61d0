"""Ranks that are started by MPI and talk through it, by mpi4py: MPICH, Open MPI, Intel MPI.

Operations are started and then asked for, because MPI's own waits have no end; meanwhile it is
looked whether a rank has told of an error, by messages beside the collectives. MPI ends the whole
job when a rank dies; an exception that nobody catches does so here too, as otherwise MPI would
wait for that rank while Python ends.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed.communicator import TIMEOUT, check_carried, check_root, check_summable
from gpubp.distributed.leaving import ALONE, all_left, note, who_left
from gpubp.distributed.requests import Done, Request, check_rows
from gpubp.errors import DistributedError, LostPeerError, missing_extra

SPINS = 200  # looks before the processor is offered to others between two
LOOK_SECONDS = 0.01  # between two looks for what a rank may have told


class MpiCommunicator:
    """A rank of MPI.

    Args:
        comm: an `mpi4py.MPI.Comm`; default is a copy of COMM_WORLD.
        timeout: seconds that a rank waits for another.

    Raises:
        MissingExtraError: mpi4py is not installed, or finds no MPI.
    """

    name = "mpi"

    def __init__(self, comm: Any = None, timeout: float = TIMEOUT) -> None:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise missing_extra("mpi4py (and an MPI)", "mpi", "the mpi backend") from error
        self._mpi, self.timeout = MPI, timeout
        self._owned = comm is None
        self._begun = self._partings = 0  # operations, and how often all ranks met errors together
        self._notes: dict[tuple[int, int], str] = {}
        self._sent: list[Any] = []
        self._closed = "this communicator is closed"
        self._comm: Any = MPI.COMM_WORLD.Dup() if comm is None else comm
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)
        self._beside: Any = self._comm.Dup()
        self.rank, self.size = int(self._comm.rank), int(self._comm.size)
        if self._owned and self.size > 1:
            _abort_on_exceptions(MPI)

    def _do(self, name: str, *args: Any) -> None:
        self._start(name, *args).wait()

    @property
    def is_open(self) -> bool:
        """See `Carrier`."""
        return self._comm is not None

    def begin(self) -> None:
        """See `Carrier`."""
        if self._comm is None:
            raise DistributedError(f"{self._closed}.")
        self._begun += 1

    def _start(self, name: str, *args: Any) -> _Started:
        self.begin()
        try:
            request = getattr(self._comm, name)(*args)
        except self._mpi.Exception as error:
            raise self._lost(error) from error
        return _Started(self, request, args)

    def finish(self, request: Any) -> None:
        """Wait for an operation of MPI's, within the timeout. Raises LostPeerError."""
        deadline, looks, next_look = time.monotonic() + self.timeout, 0, 0.0
        try:
            while not request.Test():
                looks += 1
                if looks > SPINS:
                    time.sleep(0)
                    now = time.monotonic()
                    if now > next_look:
                        next_look = now + LOOK_SECONDS
                        self.require_all_there()
                    if now > deadline:
                        raise LostPeerError(
                            f"rank {self.rank}: another rank did not come within "
                            f"{self.timeout:g} s."
                        )
        except self._mpi.Exception as error:
            raise self._lost(error) from error

    def _lost(self, error: BaseException) -> LostPeerError:
        return LostPeerError(f"rank {self.rank}: MPI says {error}.")

    def all_reduce(self, array: NDArray[Any]) -> None:
        """See `Communicator`."""
        check_summable(array)
        if array.size:
            self._do("Iallreduce", self._mpi.IN_PLACE, array)

    def start_all_reduce(self, array: NDArray[Any]) -> Request:
        """See `NonBlocking`."""
        check_summable(array)
        return self._start("Iallreduce", self._mpi.IN_PLACE, array) if array.size else Done()

    def start_reduce_scatter(self, rows: NDArray[Any]) -> Request:
        """See `NonBlocking`."""
        check_rows(rows, self.size)
        if not rows.size:
            return Done()
        total = np.empty_like(rows[0])
        started = self._start("Ireduce_scatter_block", rows, total)
        started.put = rows[self.rank], total
        return started

    def broadcast(self, array: NDArray[Any], root: int = 0) -> None:
        """See `Communicator`."""
        check_carried(array)
        check_root(root, self.size)
        if array.size:
            self._do("Ibcast", array.reshape(-1).view(np.uint8), root)

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Communicator`."""
        check_carried(array)
        found = np.empty((self.size, *array.shape), array.dtype)
        if array.size:
            mine = np.array(array, order="C").reshape(-1).view(np.uint8)
            self._do("Iallgather", mine, found.reshape(-1).view(np.uint8))
        return found

    def barrier(self) -> None:
        """See `Communicator`."""
        self._do("Ibarrier")

    def leave(self, why: str, alone: bool = False) -> None:
        """See `Telling`."""
        if self._comm is None or self.size == 1:
            return
        place = ALONE if alone else self._begun
        text = note(place, why)
        self._notes[self._partings, self.rank] = text
        # Kept: a request that Python lets go of may be cut off.
        self._sent += [
            self._beside.isend(text, dest=rank, tag=self._partings)
            for rank in range(self.size)
            if rank != self.rank
        ]
        if not alone and all_left(self.size, place, self._told):
            self._partings += 1
            return
        # Not freed: MPI wants all ranks for that.
        self._comm = None
        self._closed = f"this communicator is closed since this rank has left ({why})"

    def _told(self, rank: int) -> str | None:
        """What a rank has told of its error, if it has."""
        status = self._mpi.Status()
        while self._beside.iprobe(status=status):
            found = status.Get_tag(), status.Get_source()
            self._notes[found] = self._beside.recv(source=found[1], tag=found[0])
        return self._notes.get((self._partings, rank))

    def require_all_there(self) -> None:
        """See `Carrier`."""
        left = who_left(self.size, self._told)
        if left:
            raise LostPeerError(f"rank {self.rank}: {left}.")

    def abort(self, code: int) -> None:
        """End all ranks at once, with an exit code."""
        self._mpi.COMM_WORLD.Abort(code)

    def close(self) -> None:
        """Free what was copied of COMM_WORLD; MPI itself ends with the process."""
        comm, self._comm = self._comm, None
        if comm is not None and self._owned and not self._mpi.Is_finalized():
            self._beside.Free()
            comm.Free()


class _Started:
    """An operation that MPI is at; its arrays stay alive until it is done."""

    def __init__(self, communicator: MpiCommunicator, request: Any, arrays: Any) -> None:
        self._communicator, self._request, self._arrays = communicator, request, arrays
        self.put: tuple[NDArray[Any], NDArray[Any]] | None = None

    def wait(self) -> None:
        """See `Request`."""
        self._communicator.finish(self._request)
        if self.put is not None:
            target, found = self.put
            target[...] = found
        self._arrays = self.put = None


def _abort_on_exceptions(mpi: Any) -> None:
    """An exception that ends Python ends the whole job."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        sys.stderr.flush()
        mpi.COMM_WORLD.Abort(1)

    sys.excepthook = hook
