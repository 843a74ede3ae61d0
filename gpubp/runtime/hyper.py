"""Numbers in which the members of a population differ: options of the optimiser, other slots.

Each stands in a slot that the program reads at every step, so members with different numbers run
the same program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import shown
from gpubp.core.interop import host_array
from gpubp.core.store import Slot, pack
from gpubp.errors import ArgumentError, DataError, ShapeError, unknown_name
from gpubp.runtime.memory import Memory


class Group(Protocol):
    """What is needed of a parameter group; see `gpubp.optim.group.ParamGroup`."""

    def in_slot(self, name: str) -> Slot: ...

    def check_option(self, name: str, value: float) -> None: ...


class Hyper:
    """The numbers, by name.

    Args:
        groups: of the optimiser; an option is that of all of them.
        options: by name, one number for all members or one for each.
        slots: the same for other slots: an array for each member, or one for all.
        memory: where the members' values are put.

    Attributes:
        slots: all of them.

    Raises:
        DataError: another number of values than members, an option out of its range, or one that is
            baked into programs.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        options: Mapping[str, Any],
        slots: Mapping[Slot, ArrayLike],
        memory: Memory,
    ) -> None:
        self._groups, self._memory = groups, memory
        given = {name: self._numbers(name, value) for name, value in options.items()}
        self._slots = {name: [g.in_slot(name) for g in groups] for name in given}
        for name, values in given.items():
            self._check(name, values)
        for slot in slots:
            if not isinstance(slot, Slot):
                raise ArgumentError(
                    f"slots has a key {shown(slot)}, expected a gpubp.nn.Buffer, a Parameter or "
                    "the state of a generator."
                )
        self.slots = [slot for found in self._slots.values() for slot in found] + list(slots)
        pack("hyper", self.slots)
        for name, values in given.items():
            self.put(name, values, slice(None))
        for slot, value in slots.items():
            memory.stacked(slot)[...] = self._arrays(slot, value, memory.members)

    @property
    def names(self) -> list[str]:
        """Of the options that members have for themselves."""
        return list(self._slots)

    def get(self, name: str | Slot, members: Any) -> NDArray[Any]:
        """What members have of one of the options, or of one of the slots (a copy).

        Raises:
            UnknownNameError, DataError: it was not given when the population was made.
        """
        if isinstance(name, Slot):
            self._require(name)
        elif name not in self._slots:
            raise unknown_name("number that members have for themselves", name, self._slots)
        slot = name if isinstance(name, Slot) else self._slots[name][0]
        found: NDArray[Any] = self._memory.stacked(slot)[members].copy()
        return found

    def set(self, name: str | Slot, value: Any, members: Sequence[int]) -> None:
        """Give members other numbers, after a check."""
        if isinstance(name, Slot):
            self._require(name)
            self._memory.stacked(name)[members] = self._arrays(name, value, len(members))
            return
        self.get(name, members)
        array = np.asarray(host_array(value, name), np.float64)
        self._check(name, np.atleast_1d(array))
        self.put(name, array, members)

    def put(self, name: str, value: Any, members: Any) -> None:
        """Write numbers into the slots of all groups."""
        for slot in self._slots[name]:
            self._memory.stacked(slot)[members] = value

    def _check(self, name: str, values: NDArray[np.float64]) -> None:
        for group in self._groups:
            for value in values.tolist():
                group.check_option(name, value)

    def _numbers(self, name: str, value: Any) -> NDArray[np.float64]:
        array = np.asarray(host_array(value, name))
        if array.dtype.kind not in "fiu" or array.shape not in ((), (self._memory.members,)):
            raise DataError(
                f"{name} is {shown(value)}; expected a number, or one for each of the "
                f"{self._memory.members} members."
            )
        return np.broadcast_to(array.astype(np.float64), (self._memory.members,))

    def _require(self, slot: Slot) -> None:
        if not any(slot is own for own in self.slots):
            raise DataError(
                f"{slot.name} is no slot that members have for themselves: pass it to "
                "compile_population in slots={...}."
            )

    def _arrays(self, slot: Slot, value: ArrayLike, members: int) -> NDArray[Any]:
        array = host_array(value, slot.name)
        if array.shape not in (slot.shape, (members, *slot.shape)):
            raise ShapeError(
                f"slots: {slot.name} got values of shape {array.shape}; expected {slot.shape}, or "
                f"{(members, *slot.shape)}: one for each member."
            )
        return array
