"""The values of a population's slots by name: of one member for a model, of all for a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.core.interop import host_array
from gpubp.core.store import Slot, pack
from gpubp.errors import DataError, ShapeError, UnknownNameError
from gpubp.ops.random import default_generator
from gpubp.runtime.memory import Memory
from gpubp.runtime.step_programs import StepPrograms

Arrays = dict[str, NDArray[Any]]


class MemberState:
    """Slots with a value for each member.

    Args:
        memory: where they are.
        programs: of the step; what they write is state, once they were traced.
        batches: the slot that counts batches which wait for an update.
        parameters: that are trained.
        named: the model's slots by name.
        others: that members have for themselves.
    """

    def __init__(
        self,
        memory: Memory,
        programs: StepPrograms,
        batches: Slot,
        parameters: Sequence[Slot],
        named: Mapping[str, Slot],
        others: Sequence[Slot],
    ) -> None:
        self.memory, self.parameters = memory, list(parameters)
        self._programs, self._batches, self._named = programs, batches, dict(named)
        known = [*self.parameters, *named.values(), *others]
        self._base = list({id(slot): slot for slot in known}.values())
        self._waiting: Arrays = {}  # of a file, for slots that are made when programs are traced

    @property
    def floating(self) -> np.dtype[Any]:
        """The parameters' dtype."""
        return self.parameters[0].dtype

    @property
    def pending(self) -> NDArray[np.int64]:
        """For each member, the batches whose gradients wait for an update."""
        pack("slots", [self._batches])
        return self.memory.stacked(self._batches)

    def named(self, member: int) -> Arrays:
        """A member's weights and buffers by name (copies)."""
        found = {name: self.memory.stacked(slot) for name, slot in self._named.items()}
        return {name: values[member].copy() for name, values in found.items()}

    def load_named(self, member: int, state: Mapping[str, ArrayLike]) -> None:
        """Give a member weights and buffers by name; all of them, or an error and none."""
        missing = [name for name in self._named if name not in state]
        unexpected = [str(name) for name in state if name not in self._named]
        if missing or unexpected:
            raise UnknownNameError(
                f"the state does not fit the population: missing {', '.join(missing) or 'nothing'};"
                f" unexpected {', '.join(unexpected) or 'nothing'}."
            )
        fitting = {name: slot.fitting(state[name]) for name, slot in self._named.items()}
        for name, value in fitting.items():
            self.memory.stacked(self._named[name])[member] = value

    def copy(self, source: int, target: int) -> None:
        """All of one member's, but for its random numbers."""
        self.memory.copy(source, target, [default_generator.state])
        for values in self._waiting.values():
            values[target] = values[source]

    def _slots(self) -> dict[str, Slot]:
        """All by name, those that programs have made behind the others."""
        base = {id(slot) for slot in self._base}
        made = [slot for slot in self._programs.written_slots() if id(slot) not in base]
        return {f"{i}.{slot.name}": slot for i, slot in enumerate([*self._base, *made])}

    @property
    def base(self) -> list[str]:
        """The names of slots that are known before programs are traced."""
        return list(self._slots())[: len(self._base)]

    def arrays(self) -> Arrays:
        """All values of all members by name, (n, ...) each (copies)."""
        found = {name: self.memory.stacked(slot).copy() for name, slot in self._slots().items()}
        return {**found, **{name: values.copy() for name, values in self._waiting.items()}}

    def live(self) -> Arrays:
        """All values of all members by name, (n, ...) each, where they are."""
        return {name: self.memory.stacked(slot) for name, slot in self._slots().items()}

    def check(self, arrays: Mapping[str, ArrayLike], base: Sequence[str]) -> None:
        """Raise DataError or ShapeError unless `load` can take these arrays, of which `base`
        were known before programs were traced."""
        fresh = self._fresh(arrays)
        missing = [name for name in self._slots() if name not in arrays and name not in fresh]
        odd = missing or sorted(set(self.base) ^ set(base))
        if odd:
            raise DataError(
                f"{odd[0]} is not in both: the state is of another model, optimizer, schedule or "
                "choice of what members have for themselves."
            )
        for name, slot in self._slots().items():
            if name not in fresh:
                self._fitting(name, slot, arrays[name])

    def _fresh(self, arrays: Mapping[str, ArrayLike]) -> set[str]:
        """Slots that programs have made since the state was taken, before any was traced: there
        members have what stands in the bank, as they had at first."""
        made = set(self._slots()) - set(self.base)
        return set() if made & set(arrays) else made

    def load(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Take over values that `check` has seen."""
        slots, fresh = self._slots(), self._fresh(arrays)
        for name, slot in slots.items():
            given = slot.value if name in fresh else self._fitting(name, slot, arrays[name])
            self.memory.stacked(slot)[...] = given
        rest = {name: value for name, value in arrays.items() if name not in slots}
        self._waiting = {name: np.array(host_array(value, name)) for name, value in rest.items()}

    def settle(self) -> None:
        """Programs were traced: what waited for their slots is put there.

        Raises:
            DataError, ShapeError: their slots are not those of the state.
        """
        if not self._waiting:
            return
        slots = self._slots()
        unknown = [name for name in self._waiting if name not in slots]
        if unknown:
            raise DataError(f"the state has {unknown[0]}, which this population's step has not.")
        for name, values in self._waiting.items():
            self.memory.stacked(slots[name])[...] = self._fitting(name, slots[name], values)
        self._waiting = {}

    def _fitting(self, name: str, slot: Slot, values: ArrayLike) -> NDArray[Any]:
        array = host_array(values, name)
        wanted = (self.memory.members, *slot.shape)
        if array.shape != wanted or array.dtype != slot.dtype:
            raise ShapeError(
                f"{name}: got {array.dtype}{list(array.shape)}, expected {slot.dtype}"
                f"{list(wanted)}: one for each member."
            )
        return array
