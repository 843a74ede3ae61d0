"""Collectives that are started, and waited for later, so that a rank computes while arrays travel.

A communicator that can do that is `NonBlocking`; of others the whole collective is done when it is
started, with the same result. All ranks start them in the same order, and nobody touches an array
between its start and its end.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed.communicator import Communicator, check_summable
from gpubp.errors import DataError


class Request(Protocol):
    """A collective that has been started."""

    def wait(self) -> None:
        """Return when it is done. Raises LostPeerError."""
        ...


@runtime_checkable
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


class Done:
    """A request with nothing left to wait for."""

    def wait(self) -> None:
        """It is done."""


def start_all_reduce(communicator: Communicator, array: NDArray[Any]) -> Request:
    """Start an all-reduce; see `Communicator.all_reduce`."""
    if isinstance(communicator, NonBlocking):
        return communicator.start_all_reduce(array)
    communicator.all_reduce(array)
    return Done()


def start_reduce_scatter(communicator: Communicator, rows: NDArray[Any]) -> Request:
    """Start a reduce-scatter; see `NonBlocking.start_reduce_scatter`."""
    if isinstance(communicator, NonBlocking):
        return communicator.start_reduce_scatter(rows)
    communicator.all_reduce(rows)
    return Done()


def check_rows(rows: NDArray[Any], size: int) -> None:
    """Raise DataError unless an array has a row for each rank."""
    check_summable(rows)
    if rows.ndim != 2 or len(rows) != size:
        raise DataError(
            f"reduce_scatter got an array of shape {np.shape(rows)}, expected ({size}, n): a row "
            "for each rank."
        )
