"""Collectives that are started, and waited for later, so that a rank computes while arrays travel.

A communicator that can do that is `NonBlocking`; of others the whole collective is done when it is
started, with the same result. All ranks start them in the same order, and nobody touches an array
between its start and its end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp.core.store import aligned_zeros
from gpubp.distributed.communicator import Communicator, check_summable
from gpubp.errors import DataError


class Request(Protocol):
    """A collective that has been started."""

    def wait(self) -> None:
        """Return when it is done. Raises LostPeerError."""
        ...


class NonBlocking(Protocol):
    """A communicator that starts collectives without waiting for them."""

    def start_all_reduce(self, array: NDArray[Any]) -> Request:
        """`Communicator.all_reduce`, done when the request is."""
        ...

    def start_reduce_scatter(self, rows: NDArray[Any]) -> Request:
        """Sum rows over all ranks, each for one of them (MPI's Reduce_scatter_block).

        Args:
            rows: (size, n), float32 or float64, C-contiguous. In the end row number `rank` is the
                sum of that row over all ranks; what the others hold is not said.
        """
        ...


class Gathering(Protocol):
    """A communicator that gathers to where the arrays shall be."""

    def start_all_gather(self, rows: NDArray[Any]) -> Request:
        """Let every rank have all rows, of which each has its own (MPI's Allgather in place).

        Args:
            rows: (size, n), C-contiguous. Before, row number `rank` counts; in the end all do.
        """
        ...


class Sharing(Protocol):
    """A communicator with memory from where its ranks take each other's arrays."""

    def zeros(self, size: int, dtype: Any) -> NDArray[Any]:
        """Zeros of shape (size,), 64-byte aligned."""
        ...


class Done:
    """A request with nothing left to wait for."""

    def wait(self) -> None:
        """It is done."""


class AtWait:
    """A request whose work is done by those who wait."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def wait(self) -> None:
        """See `Request`."""
        self._work()


class StartsAtWait(ABC):
    """A communicator whose started collectives are done by those who wait: `NonBlocking`."""

    size: int

    @abstractmethod
    def all_reduce(self, array: NDArray[Any]) -> None:
        """See `Communicator`."""

    @abstractmethod
    def reduce_scatter(self, rows: NDArray[Any]) -> None:
        """What `NonBlocking.start_reduce_scatter` starts."""

    def start_all_reduce(self, array: NDArray[Any]) -> Request:
        """See `NonBlocking`."""
        check_summable(array)
        return AtWait(lambda: self.all_reduce(array))

    def start_reduce_scatter(self, rows: NDArray[Any]) -> Request:
        """See `NonBlocking`."""
        check_rows(rows, self.size)
        return AtWait(lambda: self.reduce_scatter(rows))


# What a communicator can do is asked by name below: `isinstance` of a protocol takes as long as a
# step of a small network.
def start_all_reduce(communicator: Communicator, array: NDArray[Any]) -> Request:
    """Start an all-reduce; see `Communicator.all_reduce`."""
    start: Callable[..., Request] | None = getattr(communicator, "start_all_reduce", None)
    if start is not None:
        return start(array)
    communicator.all_reduce(array)
    return Done()


def start_reduce_scatter(communicator: Communicator, rows: NDArray[Any]) -> Request:
    """Start a reduce-scatter; see `NonBlocking.start_reduce_scatter`."""
    start: Callable[..., Request] | None = getattr(communicator, "start_reduce_scatter", None)
    if start is not None:
        return start(rows)
    communicator.all_reduce(rows)
    return Done()


def start_all_gather(communicator: Communicator, rows: NDArray[Any]) -> Request:
    """Start an all-gather; see `Gathering.start_all_gather`."""
    start: Callable[..., Request] | None = getattr(communicator, "start_all_gather", None)
    if start is not None:
        return start(rows)
    rows[...] = communicator.gather(rows[communicator.rank])
    return Done()


def zeros_for(communicator: Communicator) -> Callable[[int, Any], NDArray[Any]]:
    """What makes memory for arrays that will travel: zeros of a size and a dtype."""
    made: Callable[[int, Any], NDArray[Any]] = getattr(communicator, "zeros", aligned_zeros)
    return made


def check_rows(rows: NDArray[Any], size: int) -> None:
    """Raise DataError unless an array has a row for each rank."""
    check_summable(rows)
    if rows.ndim != 2 or len(rows) != size:
        raise DataError(
            f"reduce_scatter got an array of shape {np.shape(rows)}, expected ({size}, n): a row "
            "for each rank."
        )
