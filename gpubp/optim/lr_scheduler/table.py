"""A schedule inside the program: its next numbers in a slot, one column an update.

Comes in: a schedule, and how many updates a run will make at most. Goes out: writes of a step's
program: each update reads the learning rates that are there, then writes those of the next column.

Holds in between: the slots of the groups are always the live numbers; the cursor says how many
columns of the table were used, so a run that ends early leaves the schedule where the parameters
are. Between runs it is 0, so that nothing there says how a fit was cut into runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from gpubp import ops
from gpubp.core import Array
from gpubp.core.store import Slot


class Advancing(Protocol):
    """What a table needs of a schedule."""

    last_epoch: int

    def slots(self) -> list[Slot]: ...

    def advance(self, epoch: int, numbers: Sequence[float]) -> list[float]: ...

    def settle(self, epoch: int) -> None: ...


class Table:
    """The numbers of the next updates.

    Args:
        schedule: whose slots the program moves.
    """

    capacity = 1024

    def __init__(self, schedule: Advancing) -> None:
        self._schedule = schedule
        self._columns = Slot("schedule", np.zeros((len(schedule.slots()), self.capacity)))
        self._cursor = Slot("schedule.column", 0, np.int64)

    def emit(self) -> list[tuple[Slot, Array]]:
        """Append the move to the next column: (slot, new value) pairs, read before written."""
        # Along axis 1: then one worker does it, as all scalars, and no barrier stands between.
        column = ops.gather(self._columns, self._cursor, axis=1)
        slots = self._schedule.slots()
        moves = [(slot, ops.getitem(column, i)) for i, slot in enumerate(slots)]
        return [*moves, (self._cursor, ops.add(self._cursor, 1))]

    @contextmanager
    def moving(self, updates: int) -> Iterator[None]:
        """While open, a program may make so many updates, at most `capacity`.

        Afterwards the schedule stands where the program has come to.

        Raises:
            DataError: the schedule ends before.
        """
        self.fill(self._schedule, updates)
        try:
            yield
        finally:
            self.settle(self._schedule)

    @property
    def slots(self) -> list[Slot]:
        """What a program reads and writes of it, beside the slots of the schedule."""
        return [self._columns, self._cursor]

    def fill(self, schedule: Advancing, updates: int) -> None:
        """Put in the numbers of a schedule's next updates; it must be one of the same slots."""
        columns = self._columns.value
        numbers = [float(slot.value) for slot in schedule.slots()]
        for i in range(updates):
            numbers = schedule.advance(schedule.last_epoch + 1 + i, numbers)
            columns[:, i] = numbers

    def settle(self, schedule: Advancing) -> None:
        """Let a schedule stand where the program has come to, and the table at its start."""
        schedule.settle(schedule.last_epoch + int(self._cursor.value))
        self._cursor.value = np.int64(0)
