"""What carries arrays between ranks: the protocol, and the one of a process by itself.

A rank is a process (or a thread, in tests) that runs the same program as the others on a share of
the data. The words are MPI's (Message Passing Interface Forum, "MPI: A message-passing interface
standard", version 4.1, 2023): rank, size, all-reduce, broadcast, gather, barrier.

Holds for every backend: all ranks call the same operations in the same order; an all-reduce leaves
the same bits on every rank; a peer that is lost is a `LostPeerError` within the communicator's
timeout, and never a wait without end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpubp.core import describe
from gpubp.errors import DataError

# What a lost peer may cost, in seconds, before it is an error.
TIMEOUT = 300.0
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@runtime_checkable
class Communicator(Protocol):
    """Carries arrays between ranks.

    Attributes:
        name: of the backend.
        rank: of this process, 0 to size - 1.
        size: how many ranks there are.
    """

    @property
    def name(self) -> str: ...

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def all_reduce(self, array: NDArray[Any]) -> None:
        """Replace the array, on every rank, by the sum of all ranks' arrays.

        Args:
            array: float32 or float64, C-contiguous; of the same shape and dtype on each rank.

        Raises:
            LostPeerError: a rank is gone, or has not come within the timeout.
            DataError: another dtype, or memory with gaps.
        """
        ...

    def broadcast(self, array: NDArray[Any], root: int = 0) -> None:
        """Replace the array by that of the rank `root`; any dtype, C-contiguous.

        Raises:
            LostPeerError, DataError: as `all_reduce`.
        """
        ...

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """Every rank's array, in order of ranks, on every rank (MPI's Allgather).

        Args:
            array: of the same shape and dtype on each rank.

        Returns:
            Shape (size, *array.shape).

        Raises:
            LostPeerError, DataError: as `all_reduce`.
        """
        ...

    def barrier(self) -> None:
        """Wait until every rank has come here. Raises LostPeerError."""
        ...

    def close(self) -> None:
        """Let go of connections; what comes after is an error. May be called twice."""
        ...


@runtime_checkable
class DeviceCommunicator(Protocol):
    """A communicator that also reaches a device's memory."""

    def all_reduce_at(self, address: int, size: int, dtype: np.dtype[Any]) -> None:
        """`Communicator.all_reduce` of so many elements at an address of the device; done when it
        returns."""
        ...


class LocalCommunicator:
    """One process by itself: rank 0 of 1, and nothing to carry."""

    name = "local"
    rank = 0
    size = 1

    def all_reduce(self, array: NDArray[Any]) -> None:
        """The sum of one array is that array."""
        check_summable(array)

    def broadcast(self, array: NDArray[Any], root: int = 0) -> None:
        """The array stays as it is."""
        check_carried(array)
        check_root(root, self.size)

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy, with one more axis in front."""
        check_carried(array)
        return array[np.newaxis].copy()

    def barrier(self) -> None:
        """Nobody else will come."""

    def close(self) -> None:
        """There is nothing to let go of."""


def check_carried(array: NDArray[Any]) -> None:
    """Raise DataError unless an array can be sent as it lies in memory."""
    if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
        given = describe(array) if hasattr(array, "dtype") else type(array).__name__
        raise DataError(
            f"a communicator carries NumPy arrays in C order, got {given}: pass "
            "numpy.ascontiguousarray(array)."
        )
    if array.dtype.hasobject:
        raise DataError("a communicator carries numbers, got an array of Python objects.")


def check_summable(array: NDArray[Any]) -> None:
    """Raise DataError unless an array can be all-reduced."""
    check_carried(array)
    if array.dtype not in FLOATS:
        raise DataError(
            f"all_reduce adds float32 and float64, got {array.dtype}. Convert it, or gather the "
            "arrays and combine them."
        )


def check_root(root: int, size: int) -> None:
    """Raise DataError unless there is such a rank."""
    if not 0 <= root < size:
        raise DataError(f"root is {root}, expected a rank from 0 to {size - 1}.")


def all_reduced(communicator: Communicator) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """`all_reduce` as a function that leaves its argument as it is."""

    def reduce(array: NDArray[Any]) -> NDArray[Any]:
        own = np.array(array, order="C")
        communicator.all_reduce(own)
        return own

    return reduce
