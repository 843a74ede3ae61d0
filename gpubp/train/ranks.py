"""What the ranks of a shared training decide together: when to look around, and when to stop.

Every rank runs the same loop, so decisions that depend on clocks and signals must be alike: how
many steps until the next look is rank 0's word, and a reason to stop on one rank is one for all.
Without a communicator, or with one rank, each decides for itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.distributed.parallel import DataParallel
from gpubp.errors import DataError


def share(step_options: dict[str, Any], population: bool) -> None:
    """Make a `DataParallel` of a bare communicator: copies of a trainer share that.

    Raises:
        DataError: for a population, whose members cannot be shared by ranks yet.
    """
    given = step_options.get("communicator")
    if given is not None and population:
        raise DataError(
            "a population cannot be shared by ranks yet: leave the communicator out, and train "
            "other members on each rank."
        )
    if given is not None and not isinstance(given, DataParallel):
        step_options["communicator"] = DataParallel(given)


class Ranks:
    """The ranks that train together.

    Args:
        parallel: how; None for one process by itself.

    Attributes:
        leads: this is rank 0, which prints and writes files.
        together: there are others.
    """

    def __init__(self, parallel: DataParallel | None) -> None:
        self._parallel = parallel
        self.leads = parallel is None or parallel.rank == 0
        self.together = parallel is not None and parallel.size > 1

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on some rank."""
        if not self.together or self._parallel is None:
            return list(flags)
        found = np.array(flags, np.float64)
        self._parallel.communicator.all_reduce(found)
        return [bool(n > 0) for n in found]

    def of_first(self, number: int) -> int:
        """Rank 0's number."""
        if not self.together or self._parallel is None:
            return number
        found = np.array([number], np.int64)
        self._parallel.communicator.broadcast(found)
        return int(found[0])
