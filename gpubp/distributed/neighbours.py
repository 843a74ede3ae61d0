"""Ranks that are processes of one machine: arrays go through memory that all of them have mapped.

What started the ranks (MPI, gloo) stays: through it they find each other's memory, and tell of
errors. Sums are made in the order of ranks, each element by one rank or by all alike, so all have
the same bits. Small arrays are copied to a desk of two places, which are taken in turn: who comes
to the next operation has read what lies on the other place. Of larger ones each rank adds up its
part, from where they lie if that is in such memory (`zeros`), and the others copy it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpubp.core.store import ALIGN_BYTES, aligned_zeros
from gpubp.distributed.communicator import (
    Communicator,
    check_carried,
    check_root,
    check_summable,
)
from gpubp.distributed.meeting import LEFT, OPEN, Meeting
from gpubp.distributed.requests import AtWait, Request, StartsAtWait
from gpubp.distributed.shared_memory import Peer, Place, SharedMemory
from gpubp.errors import DistributedError, LostPeerError

SWITCH = "GPUBP_SHARED_MEMORY"  # 0: not to be used
SMALL = 1 << 14  # bytes that every rank adds up by itself
CHUNK = 1 << 13  # elements that are added at a time: they stay in a cache
ALL_REDUCE, REDUCE_SCATTER, GATHER, ALL_GATHER, BROADCAST, BARRIER = range(6)
_NAMES = ("all_reduce", "reduce_scatter", "gather", "all_gather", "broadcast", "barrier")
_WHAT = 4  # words of an announcement that must be alike; behind them is where the array lies


@runtime_checkable
class Carrier(Communicator, Protocol):
    """A communicator that lets its ranks talk in another way too."""

    @property
    def timeout(self) -> float:
        """Seconds that a rank waits for another."""
        ...

    def begin(self) -> None:
        """Count an operation that goes another way. Raises DistributedError where it is closed."""
        ...

    def require_all_there(self) -> None:
        """Raise LostPeerError where a rank has told that it left."""
        ...

    def leave(self, why: str, alone: bool = False) -> None:
        """See `Telling`."""
        ...

    @property
    def is_open(self) -> bool:
        """It has been neither closed nor left."""
        ...


class Neighbours(StartsAtWait):
    """A rank among those of its machine; made by `neighbourhood.among_neighbours`.

    Args:
        carrier: through which they have met.
        memory: of this process.
        desk: (2, SMALL): bytes: this rank's, in that memory.
        control: int64: mapped by all.
        peers: the other processes' memory, by rank; None for this one's.
        desks: everybody's.
        meeting: of all.
    """

    def __init__(
        self,
        carrier: Carrier,
        memory: SharedMemory,
        control: NDArray[np.int64],
        peers: Sequence[Peer | None],
        desks: Sequence[NDArray[np.uint8]],
        meeting: Meeting,
    ) -> None:
        self.carrier, self.name, self.rank, self.size = (
            carrier, carrier.name, carrier.rank, carrier.size,
        )  # fmt: skip
        self._memory, self._peers, self._meeting = memory, peers, meeting
        self._desks = [desk.reshape(2, SMALL) for desk in desks]
        self._said = control.reshape(2, self.size, 8)
        self._turn = 0
        self._stage = aligned_zeros(0, np.uint8)

    def zeros(self, size: int, dtype: Any) -> NDArray[Any]:
        """Zeros of shape (size,), 64-byte aligned, which operations take from where they lie."""
        if size * np.dtype(dtype).itemsize > SMALL:
            try:
                return self._memory.zeros(size, dtype)
            except OSError:  # no room for it: it will be copied
                pass
        return aligned_zeros(size, dtype)

    def _meet(self) -> None:
        try:
            self._meeting.all_here(self.carrier.require_all_there)
        except LostPeerError:
            raise
        except BaseException as error:  # Ctrl-C: the others would wait for this rank
            self.leave(type(error).__name__, alone=True)
            raise

    def _begin(self, what: int, array: NDArray[Any], more: int, place: Place | None = None) -> Any:
        """Say what this rank has come for, meet, and compare; what all have said.

        `more`: the root, or bytes of what goes with the array: alike, too.
        """
        self.carrier.begin()
        self._turn ^= 1
        said = self._said[self._turn]
        said[self.rank] = (what, array.dtype.num, array.nbytes, more, *(place or (0, 0, 0, 0)))
        self._meet()
        if (said[:, :_WHAT] != said[self.rank, :_WHAT]).any():
            raise DistributedError(
                "ranks came to different operations: "
                + "; ".join(f"rank {r} to {_said(row)}" for r, row in enumerate(said[:, :_WHAT]))
                + ". All must call the same ones, in the same order, with arrays alike."
            )
        return said

    def _lying(self, array: NDArray[Any]) -> Place:
        """Where others find an array: where it is, or copied to the stage."""
        found = self._memory.place_of(array)
        if found is None:
            if self._stage.nbytes < array.nbytes:
                self._stage = self._memory.zeros(1 << (array.nbytes - 1).bit_length(), np.uint8)
            self._stage[: array.nbytes] = array.reshape(-1).view(np.uint8)
            found = self._memory.place_of(self._stage)
            assert found is not None
        return found

    def _arrays(self, said: Any, array: NDArray[Any]) -> list[NDArray[Any]]:
        """What every rank has laid down, flat; of this one the array itself."""
        return [self._of(rank, said, array) for rank in range(self.size)]

    def _of(self, rank: int, said: Any, like: NDArray[Any]) -> NDArray[Any]:
        peer = self._peers[rank]
        if peer is None:
            return like.reshape(-1)
        place = Place(*said[rank, _WHAT:].tolist())
        try:
            return peer.array(place, like.size, like.dtype)
        except OSError as error:
            raise DistributedError(
                f"rank {self.rank} cannot reach the memory of rank {rank}: {error}. "
                f"{SWITCH}=0 sends everything through {self.name}."
            ) from error

    def all_reduce(self, array: NDArray[Any]) -> None:
        """See `Communicator`."""
        check_summable(array)
        if array.nbytes <= SMALL:
            self._all_reduce_small(array)
            return
        said = self._begin(ALL_REDUCE, array, 0, self._lying(array))
        arrays = self._arrays(said, array)
        ends = _ends(array.size, self.size, array.itemsize)
        low, high = ends[self.rank]
        mine = arrays[self.rank]
        in_place = self._memory.place_of(array) is not None
        # Where the others find this rank's sums.
        shown = mine if in_place else self._stage[: array.nbytes].view(array.dtype)
        _add([a[low:high] for a in arrays], shown[low:high])
        self._meet()
        arrays[self.rank] = shown
        for rank, (low, high) in enumerate(ends):
            if rank != self.rank or not in_place:
                mine[low:high] = arrays[rank][low:high]
        self._meet()

    def _all_reduce_small(self, array: NDArray[Any]) -> None:
        if not array.size:
            return
        place, nbytes = self._turn ^ 1, array.nbytes
        self._desks[self.rank][place, :nbytes] = array.reshape(-1).view(np.uint8)
        self._begin(ALL_REDUCE, array, 0)
        rows = [desk[place, :nbytes].view(array.dtype) for desk in self._desks]
        _add(rows, array.reshape(-1))

    def reduce_scatter(self, rows: NDArray[Any]) -> None:
        """See `StartsAtWait`."""
        if rows.size:
            self.reduce_scatter_beside(rows, np.zeros(0))

    def reduce_scatter_beside(self, rows: NDArray[Any], vector: NDArray[Any]) -> None:
        """A reduce-scatter, and in the same two meetings an all-reduce of a few numbers.

        Args:
            rows: see `NonBlocking.start_reduce_scatter`; not empty.
            vector: at most `SMALL` bytes; gets the sum.
        """
        place, nbytes = self._turn ^ 1, vector.nbytes
        self._desks[self.rank][place, :nbytes] = vector.view(np.uint8)
        said = self._begin(REDUCE_SCATTER, rows, nbytes, self._lying(rows))
        parts = [a.reshape(rows.shape)[self.rank] for a in self._arrays(said, rows)]
        _add(parts, rows[self.rank])
        if nbytes:
            _add([desk[place, :nbytes].view(vector.dtype) for desk in self._desks], vector)
        self._meet()

    def start_all_gather(self, rows: NDArray[Any]) -> Request:
        """See `Gathering`; done by those who wait."""
        return AtWait(lambda: self._all_gather(rows))

    def _all_gather(self, rows: NDArray[Any]) -> None:
        check_carried(rows)
        if not rows.size:
            return
        mine = rows[self.rank]
        said = self._begin(ALL_GATHER, mine, 0, self._lying(mine))
        for rank in range(self.size):
            if rank != self.rank:
                rows[rank] = self._of(rank, said, mine).reshape(mine.shape)
        self._meet()

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Communicator`."""
        check_carried(array)
        found = np.empty((self.size, *array.shape), array.dtype)
        found[self.rank] = array
        self._all_gather(found)
        return found

    def broadcast(self, array: NDArray[Any], root: int = 0) -> None:
        """See `Communicator`."""
        check_carried(array)
        check_root(root, self.size)
        if not array.size:
            return
        mine = self._lying(array) if root == self.rank else None
        said = self._begin(BROADCAST, array, root, mine)
        if root != self.rank:
            array.reshape(-1)[:] = self._of(root, said, array)
        self._meet()

    def barrier(self) -> None:
        """See `Communicator`."""
        self._begin(BARRIER, np.zeros(0), 0)

    def leave(self, why: str, alone: bool = False) -> None:
        """See `Telling`."""
        if self.carrier.is_open:
            self._meeting.tell(LEFT)
            self.carrier.leave(why, alone)
            if self.carrier.is_open:
                self._meeting.tell(OPEN)

    def close(self) -> None:
        """See `Communicator`."""
        if self.carrier.is_open:
            self._meeting.close()
        self.carrier.close()


def _said(row: NDArray[np.int64]) -> str:
    return f"{_NAMES[int(row[0])]} of {row[2]} bytes (kind {row[1]}, {row[3]})"


def _ends(size: int, ranks: int, itemsize: int) -> list[tuple[int, int]]:
    """(first, the one behind the last) of each rank's part, at whole cache lines."""
    step = ALIGN_BYTES // itemsize
    each = -(-size // (ranks * step)) * step
    return [(min(r * each, size), min((r + 1) * each, size)) for r in range(ranks)]


def _add(rows: Sequence[NDArray[Any]], out: NDArray[Any]) -> None:
    """The sum of flat arrays, in their order; `out` may be one of them."""
    with np.errstate(all="ignore"):  # what is not finite is the same for all, and found later
        if len(rows) == 2:
            np.add(rows[0], rows[1], out=out)
            return
        for start in range(0, out.size, CHUNK):
            part = slice(start, start + CHUNK)
            total = rows[0][part] + rows[1][part]
            for row in rows[2:]:
                total += row[part]
            out[part] = total
