"""Members of a population over ranks: each rank trains some of them, and all know where all stand.

Comes in: the parts of a run, a member's steps each. Goes out: the same numbers on every rank, bit
for bit those of one rank, since members share nothing that is written.

Holds in between: before and after each part every rank holds the memory, losses and orders of all
members, so what is done between runs (stop, copy, set numbers, save) is done by all alike, and is
compared before the next part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed.agreement import require_alike
from gpubp.distributed.leaving import telling
from gpubp.distributed.parallel import DataParallel
from gpubp.errors import DataError
from gpubp.runtime.outputs import OutputBuffers
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.rank_digest import hashed

CHUNK = 1 << 28  # bytes of a message, at most


class Room(NamedTuple):
    """What a part of a run writes.

    Attributes:
        arrays: live: what the member has, and where its steps put what they return.
        buffers: of the run; say how many steps are done.
        stop: the step behind the part.
    """

    arrays: Sequence[NDArray[Any]]
    buffers: OutputBuffers
    stop: int


class RankMembers:
    """Shares members between ranks.

    Args:
        parallel: the ranks.
    """

    def __init__(self, parallel: DataParallel) -> None:
        self.parallel, self._alike = parallel, set[str]()

    def owns(self, number: int) -> bool:
        """The part of this number is computed here."""
        return number % self.parallel.size == self.parallel.rank

    def agree(self, facts: Mapping[str, str]) -> None:
        """Compare facts; see `require_alike`."""
        require_alike(self.parallel.communicator, facts)

    def any(self, flag: bool) -> bool:
        """Whether it is set on some rank."""
        found = np.array([float(flag)])
        self.parallel.communicator.all_reduce(found)
        return bool(found[0] > 0)

    def telling(self) -> AbstractContextManager[None]:
        """While open, an exception that leaves it is told to the others."""
        return telling(self.parallel.communicator)

    def settle(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Let all members have what they have on rank 0, the first time; then compare.

        Args:
            state: values of all members by the names of slots; live.

        Raises:
            DistributedError: they were changed since, and not alike on all ranks.
        """
        self.agree({"what members have": ", ".join(state)})
        known = {name: hashed(values) for name, values in state.items() if name in self._alike}
        self.agree({f"what members have in {name}": text for name, text in known.items()})
        self._take_over([values for name, values in state.items() if name not in self._alike], 0)
        self._alike.update(state)

    def run(self, work: Callable[[], None], rooms: Sequence[Room], pauses: Pauses) -> None:
        """Let each rank run its parts, and take over those of the others.

        Ctrl-C on one rank ends the run of all here, each member where it has come to.

        Args:
            work: runs those that this rank owns; raises KeyboardInterrupt where `pauses` has heard.
            rooms: of all parts, in the same order on all ranks.
            pauses: of the run.
        """
        heard = False
        try:
            work()
        except KeyboardInterrupt:
            if not pauses.heard:  # pressed twice: this rank leaves at once
                raise
            heard = True
        told = np.zeros(1 + len(rooms))
        told[0] = heard
        for number, room in enumerate(rooms):
            if self.owns(number):
                told[1 + number] = room.buffers.done if heard else room.stop
        self.parallel.communicator.all_reduce(told)
        for rank in range(self.parallel.size):
            theirs = rooms[rank :: self.parallel.size]
            self._take_over([array for room in theirs for array in room.arrays], rank)
        for room, done in zip(rooms, told[1:], strict=True):
            room.buffers.done = int(done)
        if told[0]:
            pauses.end_together()

    def _take_over(self, arrays: Sequence[NDArray[Any]], rank: int) -> None:
        """Let all have what a rank has in these arrays."""
        there = [array for array in arrays if array.size]
        if not there:
            return
        flat = np.concatenate([np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in there])
        self._send(flat, rank)
        if rank == self.parallel.rank:
            return
        start = 0
        for array in there:
            part = flat[start : start + array.nbytes]
            array[...] = part.view(array.dtype).reshape(array.shape)
            start += array.nbytes

    def _send(self, flat: NDArray[np.uint8], rank: int) -> None:
        for low in range(0, flat.size, CHUNK):
            self.parallel.communicator.broadcast(flat[low : low + CHUNK], rank)


def for_members(parallel: DataParallel | None) -> RankMembers | None:
    """The ranks that share the members of a population; None for one process by itself.

    Raises:
        DataError: an option that divides batches, which members do not.
    """
    if parallel is None or parallel.size == 1:
        return None
    given = {
        'data="own"': parallel.data == "own",
        "average_every": parallel.average_every is not None,
        "sync_batch_norm": parallel.sync_batch_norm,
        "shard_optimizer": parallel.shard_optimizer,
        "bucket_cap_mb": parallel.bucket_cap_mb is not None,
    }
    odd = [name for name, there in given.items() if there]
    if odd:
        raise DataError(
            f"{odd[0]} is for ranks that share batches; of a population each rank trains whole "
            "members: pass the communicator alone."
        )
    return RankMembers(parallel)
