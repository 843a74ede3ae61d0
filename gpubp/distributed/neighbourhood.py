"""How the ranks of one machine find each other's memory.

Comes in: a communicator of ranks that were started together. Goes out: one that goes through shared
memory, if all of them can; else the same. They can where one kernel runs them all, each may open
what the others made, and Numba is there, whose kernels know how to wait.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed import meeting
from gpubp.distributed.communicator import Communicator
from gpubp.distributed.neighbours import SMALL, SWITCH, Carrier, Neighbours
from gpubp.distributed.shared_memory import Peer, Place, SharedMemory

_ROW = 8  # words of what a rank says in one operation
_MACHINE = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")
ABLE, MACHINE, PROCESS = range(3)  # words of what a rank tells; behind them are two places


def among_neighbours(communicator: Communicator) -> Communicator:
    """The same ranks through shared memory, or the communicator as it is.

    All ranks call.
    """
    if communicator.size == 1 or not isinstance(communicator, Carrier):
        return communicator
    memory, kept = SharedMemory(), list[NDArray[Any]]()
    told = communicator.gather(_own(memory, communicator.size, kept))
    found: Communicator = communicator
    if told[:, ABLE].all() and len(set(told[:, MACHINE].tolist())) == 1:
        found = _joined(communicator, memory, kept, told)
    agreed = communicator.gather(np.array([found is not communicator]))
    return found if agreed.all() else communicator


def _own(memory: SharedMemory, ranks: int, kept: list[NDArray[Any]]) -> NDArray[np.int64]:
    """What this rank tells; its memory is put to `kept`."""
    told = np.zeros(11, np.int64)
    able = hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")
    if not able or os.environ.get(SWITCH, "1") == "0":
        return told
    try:
        from gpubp.backends.numba_cpu.pool import native

        native("ranks_wait")(0, 0, 0)  # compiled now
        os.close(os.pidfd_open(os.getpid()))
        kept.append(memory.zeros(2 * SMALL, np.uint8))
        kept.append(memory.zeros(meeting.words(ranks) + 2 * ranks * _ROW, np.int64))
        desk, control = (memory.place_of(array) for array in kept)
        assert desk is not None and control is not None
        told[:] = (1, _machine(), os.getpid(), *desk, *control)
    except (ImportError, OSError):  # no Numba, no room, an old system
        pass
    return told


def _machine() -> int:
    """A number of the kernel that runs this process, and of its numbers of processes."""
    boot, processes = _MACHINE
    with open(boot) as file:
        text = file.read() + os.readlink(processes)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def _joined(
    carrier: Carrier, memory: SharedMemory, kept: list[NDArray[Any]], told: NDArray[np.int64]
) -> Communicator:
    """Open what the others have made; the carrier where that cannot be."""
    desk, control = kept
    processes = told[:, PROCESS].tolist()
    try:
        peers = [None if r == carrier.rank else Peer(p) for r, p in enumerate(processes)]
        places = [Place(*row[3:7].tolist()) for row in told]
        desks = [
            desk if peer is None else peer.array(place, 2 * SMALL, np.uint8)
            for peer, place in zip(peers, places, strict=True)
        ]
        first = peers[0]
        if first is not None:
            control = first.array(Place(*told[0, 7:11].tolist()), control.size, np.int64)
        words = meeting.words(carrier.size)
        met = meeting.Meeting(control[:words], carrier.rank, processes, carrier.timeout)
    except OSError:
        return carrier
    return Neighbours(carrier, memory, control[words:], peers, desks, met)
