"""Schedules of a population's members: each has one of its own, and all run in one program.

The program reads the next rates from a table in slots (see `gpubp.optim.lr_scheduler.table`), and
each member has its own values of them. A schedule thinks that it moves the optimiser it was made
for, so for a moment the optimiser's slots hold the numbers of the member at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gpubp.arguments import shown
from gpubp.core.store import Slot, pack
from gpubp.errors import ArgumentError, DataError
from gpubp.runtime.memory import Memory

Make = Callable[[Any], Any]


class MemberSchedules:
    """One schedule for each member.

    Args:
        make: makes a member's schedule from the optimiser; one for all members, or one for each.
        optimizer: the population's, whose `param_groups` hold the rates.
        memory: of the members; their rates stand there.

    Raises:
        ArgumentError: no function, or no schedule that can run inside a program.
        DataError: another number of functions than members.
    """

    def __init__(self, make: Make | Sequence[Make], optimizer: Any, memory: Memory) -> None:
        makes = list(make) if isinstance(make, (list, tuple)) else [make] * memory.members
        if len(makes) != memory.members:
            raise DataError(
                f"scheduler has {len(makes)} functions, expected one, or one for each of the "
                f"{memory.members} members."
            )
        self._memory = memory
        self._groups = list(optimizer.param_groups)
        pack("hyper", [group.lr for group in self._groups])
        self.all: list[Any] = []
        self._notes = [[group.notes for group in self._groups] for _ in makes]
        numbers = []
        for i, one in enumerate(makes):
            with self._numbers_of(i, [group.lr for group in self._groups]):
                self.all.append(self._made(one, optimizer))
                numbers.append([float(slot.value) for slot in self.all[-1].slots()])
        self._table = self.all[0].table
        self._slots = list(self.all[0].slots())
        if any(list(s.slots()) != self._slots for s in self.all):
            raise DataError("the members' schedules must move the same numbers: rates, or momenta.")
        pack("schedule", [*self._slots, *self._table.slots])
        for slot, values in zip(self._slots, zip(*numbers)):
            memory.stacked(slot)[...] = values

    @staticmethod
    def _made(make: Any, optimizer: Any) -> Any:
        if not callable(make):
            raise ArgumentError(
                f"scheduler is {shown(make)}; expected a function that makes a member's schedule, "
                "as in lambda optimizer: CosineAnnealingLR(optimizer, T_max=100)."
            )
        made = make(optimizer)
        if not hasattr(made, "table"):
            raise DataError(
                f"{type(made).__name__} cannot run inside the program: its step() needs a metric."
            )
        return made

    @property
    def template(self) -> Any:
        """The one that the program is traced with."""
        return self.all[0]

    @property
    def slots(self) -> list[Slot]:
        """Where the members' rates are, and momenta that are cycled."""
        return list(self._slots)

    @property
    def capacity(self) -> int:
        """How many updates the table looks ahead."""
        return int(self._table.capacity)

    def fill(self, member: int, updates: int) -> None:
        """Let a member's program make so many updates."""
        with self._numbers_of(member, [*self._slots, *self._table.slots]):
            self._table.fill(self.all[member], updates)

    def settle(self, member: int) -> None:
        """A member's program has run, as far as it came."""
        with self._numbers_of(member, [*self._slots, *self._table.slots]):
            self._table.settle(self.all[member])

    def require(self, member: int, updates: int) -> None:
        """Raise DataError if a member's schedule ends before so many more updates."""
        schedule = self.all[member]
        schedule.require(schedule.last_epoch + updates)

    def copy(self, source: int, target: int) -> None:
        """Give one member's schedule the state of another's."""
        self.all[target].load_state_dict(self.all[source].state_dict())
        self._notes[target] = [dict(notes) for notes in self._notes[source]]

    def state_dict(self) -> list[Mapping[str, Any]]:
        """The state of each, and what it keeps in the groups: {"schedule", "notes"}."""
        states = zip(self.all, self._notes, strict=True)
        return [{"schedule": one.state_dict(), "notes": list(notes)} for one, notes in states]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from a state of each."""
        for i, (schedule, state) in enumerate(zip(self.all, states, strict=True)):
            schedule.load_state_dict(state["schedule"])
            self._notes[i] = [dict(notes) for notes in state["notes"]]

    @contextmanager
    def _numbers_of(self, member: int, slots: Sequence[Slot]) -> Iterator[None]:
        """While open, slots hold a member's numbers; what is written there is the member's."""
        kept = [slot.value.copy() for slot in slots]
        notes = [group.notes for group in self._groups]
        for slot in slots:
            slot.value = self._memory.stacked(slot)[member]
        self._put_notes(self._notes[member])
        try:
            yield
        finally:
            self._notes[member] = [group.notes for group in self._groups]
            self._put_notes(notes)
            for slot, before in zip(slots, kept, strict=True):
                self._memory.stacked(slot)[member] = slot.value
                slot.value = before

    def _put_notes(self, notes: Sequence[Mapping[str, float]]) -> None:
        for group, own in zip(self._groups, notes, strict=True):
            group.notes = own
