"""What the ranks of a shared training decide together: when to look around, and when to stop; and
what each of them evaluates.

Every rank runs the same loop, so decisions that depend on clocks and signals must be alike: how
many steps until the next look is rank 0's word, and a reason to stop on one rank is one for all.
Without a communicator, or with one rank, each decides for itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed.agreement import gather_text, require_alike
from gpubp.distributed.leaving import telling
from gpubp.distributed.parallel import DataParallel, bounds
from gpubp.errors import DistributedError


def share(step_options: dict[str, Any]) -> None:
    """Make a `DataParallel` of a bare communicator: copies of a trainer share that."""
    given = step_options.get("communicator")
    if given is not None and not isinstance(given, DataParallel):
        step_options["communicator"] = DataParallel(given)


class Ranks:
    """The ranks that train together.

    Args:
        parallel: how; None for one process by itself.

    Attributes:
        leads: this is rank 0, which prints and writes files.
        together: there are others.
        size: how many there are.
        divide: each keeps a part of the optimiser's state, so all must come where it is saved.
        kind: [size, divide].
    """

    def __init__(self, parallel: DataParallel | None) -> None:
        self._parallel = parallel
        self.leads = parallel is None or parallel.rank == 0
        self.together = parallel is not None and parallel.size > 1
        self.size = 1 if parallel is None else parallel.size
        self.divide = parallel is not None and parallel.divides
        self.kind = [self.size, self.divide]

    def agree(self, facts: Mapping[str, str]) -> None:
        """Compare facts with the other ranks; see `require_alike`."""
        if self.together and self._parallel is not None:
            require_alike(self._parallel.communicator, facts)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on some rank."""
        if not self.together or self._parallel is None:
            return list(flags)
        found = np.array(flags, np.float64)
        self._parallel.communicator.all_reduce(found)
        return [bool(n > 0) for n in found]

    def steps(self, wish: int, left: int, last: bool) -> int:
        """How many steps to run before all look around: as many as rank 0 wishes, or fewer where a
        rank has fewer at hand.

        Args:
            wish: of this rank.
            left: batches that it has at hand, at least 1.
            last: behind these its epoch ends.

        Raises:
            DistributedError: on every rank; the epoch would end on some ranks alone.
        """
        if not self.together or self._parallel is None:
            return wish
        rows = self._parallel.communicator.gather(np.array([wish, left, last], np.int64))
        steps = int(min(rows[0, 0], rows[:, 1].min()))
        ends = (rows[:, 2] > 0) & (rows[:, 1] <= steps)
        if ends.any() and not ends.all():
            raise DistributedError(
                f"an epoch of rank {int(np.argmax(ends))} ends before that of rank "
                f"{int(np.argmin(ends))}: every rank must have the same number of batches. Give "
                "all of them as many, or repeat or leave out some."
            )
        return steps

    def telling(self) -> AbstractContextManager[None]:
        """While open, an exception that leaves it is told to the others, so that none waits."""
        if not self.together or self._parallel is None:
            return nullcontext()
        return telling(self._parallel.communicator)

    def each(self, count: int, measure: Callable[[int], Mapping[str, float]]) -> list[Any]:
        """What `measure` gives for the numbers up to `count`, of which each rank does some."""
        if not self.together or self._parallel is None:
            return [measure(i) for i in range(count)]
        rank, size = self._parallel.rank, self._parallel.size
        mine = json.dumps([measure(i) for i in range(rank, count, size)])
        parts = [json.loads(text) for text in gather_text(self._parallel.communicator, mine)]
        return [parts[i % size][i // size] for i in range(count)]

    def batches(self, samples: int, size: int) -> list[tuple[int, int]]:
        """(first row, row behind the last) of each batch that this rank evaluates; may be none.

        Args:
            samples: of all ranks; with data="own", of this one.
            size: of a batch, at most. Deterministic ranks divide the batches that one would have.
        """
        parallel = self._parallel
        if not self.together or parallel is None or parallel.data == "own":
            first, last = 0, -(-samples // size)
        else:
            if not parallel.deterministic:
                size = min(size, -(-samples // parallel.size))
            first, last = bounds(-(-samples // size), parallel.rank, parallel.size)
        return [(i * size, min((i + 1) * size, samples)) for i in range(first, last)]

    def gathered(self, rows: Any) -> NDArray[Any]:
        """Arrays of all ranks put together along their first axis, in which they may differ."""
        mine = np.asarray(rows)
        if not self.together or self._parallel is None:
            return mine
        gather = self._parallel.communicator.gather
        counts = gather(np.array([len(mine)], np.int64))[:, 0]
        padded = np.zeros((int(counts.max()), *mine.shape[1:]), mine.dtype)
        padded[: len(mine)] = mine
        parts = [part[:n] for part, n in zip(gather(padded), counts.tolist(), strict=True)]
        return np.concatenate(parts)

    @property
    def own_data(self) -> bool:
        """Each rank has data that the others have not."""
        return self.together and self._parallel is not None and self._parallel.data == "own"
