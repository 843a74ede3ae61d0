"""Which rank this process is, from what started it, and the communicator for it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import NamedTuple

from gpubp.arguments import checked
from gpubp.distributed.communicator import TIMEOUT, Communicator, LocalCommunicator
from gpubp.distributed.gloo import GlooCommunicator
from gpubp.distributed.mpi import MpiCommunicator
from gpubp.distributed.neighbourhood import among_neighbours
from gpubp.errors import DataError, DistributedError, unknown_name

RANK, SIZE, ADDRESS = "GPUBP_RANK", "GPUBP_WORLD_SIZE", "GPUBP_ADDRESS"
BACKEND, WAIT = "GPUBP_DISTRIBUTED_BACKEND", "GPUBP_DISTRIBUTED_TIMEOUT"
NAMES = ("auto", "local", "mpi", "gloo", "nccl")
# (rank, size) as the starters of MPI tell it: MPICH and Intel MPI, Open MPI.
_OF_MPI = (("PMI_RANK", "PMI_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))
_OF_SLURM = ("SLURM_PROCID", "SLURM_NTASKS")
_OF_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
DEFAULT_PORT = 29517


class Place(NamedTuple):
    """Where a process stands among those that were started with it.

    Attributes:
        rank, size: of them.
        address: "host:port" of rank 0, for backends that meet there; "" if nobody said.
        by_mpi: a starter of MPI's started it.
    """

    rank: int
    size: int
    address: str
    by_mpi: bool


def place_of(environment: Mapping[str, str]) -> Place:
    """Where this process stands, by its environment; rank 0 of 1 if that says nothing.

    Raises:
        DistributedError: numbers that do not fit.
    """
    address = environment.get(ADDRESS, "")
    pairs = [(RANK, SIZE, False), *((*pair, True) for pair in _OF_MPI)]
    if all(name in environment for name in _OF_TORCHRUN):
        pairs.append((*_OF_TORCHRUN[:2], False))
        address = address or f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
    if address:
        pairs.append((*_OF_SLURM, False))
    for rank, size, by_mpi in pairs:
        if rank in environment and size in environment:
            return _checked_place(environment, rank, size, address, by_mpi)
    return Place(0, 1, address, False)


def _checked_place(
    environment: Mapping[str, str], rank: str, size: str, address: str, by_mpi: bool
) -> Place:
    try:
        found = Place(int(environment[rank]), int(environment[size]), address, by_mpi)
    except ValueError:
        found = Place(-1, 0, address, by_mpi)
    if not 0 <= found.rank < found.size:
        raise DistributedError(
            f"{rank}={environment[rank]!r} and {size}={environment[size]!r} name no rank: expected "
            "whole numbers, the rank from 0 to one below the number of ranks."
        )
    return found


@checked
def init(backend: str | None = None, timeout: float | None = None) -> Communicator:
    """The communicator of this process: of the ranks that were started together.

    Args:
        backend: "auto", "local", "mpi", "gloo" or "nccl"; default from GPUBP_DISTRIBUTED_BACKEND,
            else "auto": local for a process alone, mpi for one that `mpirun` started, else gloo.
        timeout: seconds that a rank waits for another; default from GPUBP_DISTRIBUTED_TIMEOUT, else
            300.

    Raises:
        UnknownNameError: no such backend.
        MissingExtraError: what it needs is not installed.
        DistributedError: the environment names no rank, or the ranks could not meet.
    """
    name = backend or os.environ.get(BACKEND) or "auto"
    if name not in NAMES:
        raise unknown_name("backend of gpubp.distributed", name, NAMES)
    wait = _timeout(timeout)
    place = place_of(os.environ)
    if name == "auto":
        name = _chosen(place)
    if name == "local":
        if place.size > 1:
            raise DistributedError(
                f"the backend 'local' is one process by itself, but {place.size} were started."
            )
        return LocalCommunicator()
    if name == "mpi":
        return among_neighbours(MpiCommunicator(timeout=wait))
    if not place.address:
        raise DistributedError(
            f"the backend {name!r} needs to know where rank 0 is: start with `python -m "
            f"gpubp.distributed run`, or set {ADDRESS}=host:port on every rank."
        )
    if name == "gloo":
        return among_neighbours(GlooCommunicator(place.rank, place.size, place.address, wait))
    from gpubp.distributed.nccl import NcclCommunicator

    return NcclCommunicator(place.rank, place.size, place.address, wait)


def _chosen(place: Place) -> str:
    if place.size == 1:
        return "local"
    if place.by_mpi and importlib.util.find_spec("mpi4py") is not None:
        return "mpi"
    return "gloo"


def _timeout(given: float | None) -> float:
    text = os.environ.get(WAIT)
    try:
        wait = float(text) if given is None and text else (TIMEOUT if given is None else given)
    except ValueError:
        wait = 0.0
    if not wait > 0:
        shown = text if given is None else given
        raise DataError(f"the timeout is {shown!r}, expected seconds above 0.")
    return wait
