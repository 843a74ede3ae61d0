"""Schedules of a population's members: each has one of its own, and all run in one program.

By step, the program reads the next rates from a table in slots (see `gpubp.optim.lr_scheduler`),
and each member has its own values of them; by epoch, `step()` is called between epochs. A schedule
thinks that it moves the optimiser it was made for, so for a moment the optimiser's slots hold the
numbers of the member at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gpubp.arguments import shown
from gpubp.core.store import Slot, pack
from gpubp.errors import ArgumentError, DataError, unknown_name
from gpubp.runtime.memory import Memory
from gpubp.runtime.settings import takes_metric

Make = Callable[[Any], Any]


class MemberSchedules:
    """One schedule for each member.

    Args:
        make: makes a member's schedule from the optimiser; one for all members, or one for each.
        optimizer: the population's, whose `param_groups` hold the rates.
        memory: of the members; their rates stand there.
        every: "step": they move inside the program; "epoch": between epochs.

    Raises:
        ArgumentError: no function, or none that makes a schedule.
        DataError: another number of functions than members, or no schedule that can run inside a
            program.
        UnknownNameError: any other `every`.
    """

    def __init__(
        self, make: Make | Sequence[Make], optimizer: Any, memory: Memory, every: str
    ) -> None:
        if every not in ("epoch", "step"):
            raise unknown_name("scheduler_every", every, ("epoch", "step"))
        makes = list(make) if isinstance(make, (list, tuple)) else [make] * memory.members
        if len(makes) != memory.members:
            raise DataError(
                f"scheduler has {len(makes)} functions, expected one, or one for each of the "
                f"{memory.members} members."
            )
        self._memory, self.by_epoch = memory, every == "epoch"
        self._groups = list(optimizer.param_groups)
        pack("hyper", [group.lr for group in self._groups])
        self.all: list[Any] = []
        self._notes = [[group.notes for group in self._groups] for _ in makes]
        numbers = []
        for i, one in enumerate(makes):
            with self._numbers_of(i, [group.lr for group in self._groups]):
                self.all.append(self._made(one, optimizer))
                numbers.append([float(slot.value) for slot in self._moved(self.all[-1])])
        self._table = None if self.by_epoch else self.all[0].table
        self._slots = self._moved(self.all[0])
        if any(self._moved(s) != self._slots for s in self.all):
            raise DataError("the members' schedules must move the same numbers: rates, or momenta.")
        pack("schedule", self._in_program)
        for slot, values in zip(self._slots, zip(*numbers)):
            memory.stacked(slot)[...] = values

    def _made(self, make: Any, optimizer: Any) -> Any:
        if not callable(make):
            raise ArgumentError(
                f"scheduler is {shown(make)}; expected a function that makes a member's schedule, "
                "as in lambda optimizer: CosineAnnealingLR(optimizer, T_max=100)."
            )
        made = make(optimizer)
        if not callable(getattr(made, "step", None)):
            raise ArgumentError(
                f"scheduler makes {shown(made)}, expected a schedule with a step()."
            )
        if not (self.by_epoch or hasattr(made, "table")):
            raise DataError(
                f"{type(made).__name__} cannot run inside the program: its step() needs a metric. "
                'Pass scheduler_every="epoch".'
            )
        return made

    def _moved(self, schedule: Any) -> list[Slot]:
        """What a schedule moves."""
        if hasattr(schedule, "slots"):
            return list(schedule.slots())
        return [group.lr for group in self._groups]

    @property
    def _in_program(self) -> list[Slot]:
        """What the program reads of them."""
        return [*self._slots, *([] if self._table is None else self._table.slots)]

    @property
    def template(self) -> Any:
        """The one that the program is traced with; None by epoch."""
        return None if self.by_epoch else self.all[0]

    @property
    def slots(self) -> list[Slot]:
        """Where the members' rates are, and momenta that are cycled."""
        return list(self._slots)

    @property
    def capacity(self) -> int:
        """How many updates the table looks ahead."""
        assert self._table is not None
        return int(self._table.capacity)

    def fill(self, member: int, updates: int) -> None:
        """Let a member's program make so many updates."""
        assert self._table is not None
        with self._numbers_of(member, self._in_program):
            self._table.fill(self.all[member], updates)

    def settle(self, member: int) -> None:
        """A member's program has run, as far as it came."""
        assert self._table is not None
        with self._numbers_of(member, self._in_program):
            self._table.settle(self.all[member])

    def step(self, member: int, loss: float) -> None:
        """By epoch: a member has ended one, with this loss, which a schedule that watches a number
        is given."""
        schedule = self.all[member]
        with self._numbers_of(member, self._in_program):
            schedule.step(*([loss] if takes_metric(schedule) else []))

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
