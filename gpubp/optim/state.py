"""What an optimiser remembers: arrays beside the parameters, and the steps each has taken.

Comes in: parameters, as they are added to groups, frozen and thawed. Goes out: slots that the
step's program reads and writes.

Holds in between: every parameter is in exactly one cohort, and the trained parameters of a cohort
have taken the same number of steps. So one scalar count serves many parameters, and a parameter
that is thawed later starts from its own first step, as in torch. Arrays are found by the parameter
itself, so that a copy's are found by the copied parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.core import Shape
from gpubp.core.announce import announce
from gpubp.core.interop import host_array
from gpubp.core.store import Slot, pack, siblings
from gpubp.errors import DataError, ShapeError, UnknownNameError
from gpubp.nn.parameter import Parameter
from gpubp.nn.piece import Piece, Pieces, by_piece

# The shape of a state array, and what it is filled with.
Start = tuple[Shape, float]
# Steps taken, and scalar state by name.
Past = tuple[int, tuple[tuple[str, float], ...]]


class Edits:
    """How often something was changed that traces depend on; shallow copies share it.

    Attributes:
        count: so often.
    """

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        """One more; traces are looked at again."""
        self.count += 1
        announce()


class Cohort:
    """Parameters that have taken the same steps.

    Attributes:
        members: the parameters.
        key: cohorts with different keys are never one.
        count: int64 scalar slot: steps taken.
        scalars: float64 scalar slots by name: state that the members share.
    """

    def __init__(self, members: Iterable[Parameter], key: int, past: Past) -> None:
        self.members = list(members)
        self.key = key
        self.count = Slot("t", past[0], np.int64)
        self.scalars = {name: Slot(name, value, np.float64) for name, value in past[1]}

    def next(self) -> Any:
        """The step count after this step: a traced int64 scalar."""
        return ops.add(self.count, 1)

    @property
    def past(self) -> Past:
        """Steps taken and scalar state, as numbers."""
        scalars = tuple((name, float(slot.value)) for name, slot in self.scalars.items())
        return int(self.count.value), scalars

    def set_past(self, past: Past) -> None:
        """Overwrite steps and scalar state; programs see it at their next step."""
        self.count.value = np.int64(past[0])
        for name, value in past[1]:
            self.scalars[name].value = np.float64(value)

    def __contains__(self, param: Parameter) -> bool:
        return any(p is param for p in self.members)


class Cohorts:
    """All cohorts of an optimiser.

    Args:
        changed: called when a parameter moves to another cohort: programs are stale then.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._all: list[Cohort] = []
        self._changed = changed

    def __iter__(self) -> Any:
        return iter(self._all)

    def of(self, param: Parameter) -> Cohort:
        """The cohort of a parameter."""
        return next(c for c in self._all if param in c)

    def add(self, params: Sequence[Parameter], key: int, past: Past) -> None:
        """New parameters join a cohort that has the same past, or make one."""
        for cohort in self._all:
            if cohort.key == key and cohort.past == past:
                cohort.members += params
                return
        self._all.append(Cohort(params, key, past))

    def split(self, apart: Callable[[Parameter], bool] | None = None) -> None:
        """Part trained from frozen parameters: their counts differ from now on.

        Args:
            apart: which to part from the others instead.
        """
        chosen = apart or _is_frozen
        for cohort in list(self._all):
            gone = [p for p in cohort.members if chosen(p)]
            if gone and len(gone) < len(cohort.members):
                cohort.members = [p for p in cohort.members if not chosen(p)]
                self._all.append(Cohort(gone, cohort.key, cohort.past))
                self._changed()

    def restore(self, pasts: Mapping[Parameter, Past]) -> None:
        """Take over steps and scalar state, by parameter."""
        for cohort in self._all:
            found = {pasts[p] for p in cohort.members}
            if len(found) > 1:
                self._rebuild(pasts)
                return
        for cohort in self._all:
            if cohort.members:
                cohort.set_past(pasts[cohort.members[0]])

    def _rebuild(self, pasts: Mapping[Parameter, Past]) -> None:
        members = [(p, c.key) for c in self._all for p in c.members]
        self._all = []
        for param, key in members:
            self.add([param], key, pasts[param])
        self._changed()


def _is_frozen(param: Parameter) -> bool:
    return not param.requires_grad


class Arrays:
    """State arrays; one of the parameter's shape has the parameter's offset in its bank."""

    def __init__(self) -> None:
        self._slots: dict[str, dict[Parameter, Slot]] = {}
        self._waiting: dict[str, dict[Parameter, NDArray[Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """In copies all values wait: a copied parameter has no bank yet to put an array beside."""
        waiting = {name: dict(values) for name, values in self._waiting.items()}
        for name, slots in self._slots.items():
            live = {param: slot.value.copy() for param, slot in slots.items()}
            waiting[name] = {**waiting.get(name, {}), **live}
        return {"_slots": {}, "_waiting": waiting}

    def of(self, name: str, param: Parameter) -> Slot:
        """The slot, which exists after `make`. Raises DataError where it does not."""
        found = self._slots.get(name, {}).get(param)
        if found is None:
            raise DataError(
                f"there is no state {name!r} of {param.name}: it is made when a step is compiled, "
                "for parameters that are trained; of a divided optimizer "
                "(shard_optimizer=True) each rank has pieces, and state_dict() the whole."
            )
        return found

    def value(self, name: str, param: Parameter) -> NDArray[Any] | None:
        """A copy of the live or restored value, if there is one."""
        slot = self._slots.get(name, {}).get(param)
        found = self._waiting.get(name, {}).get(param) if slot is None else slot.value
        return None if found is None else found.copy()

    def make(self, wanted: Mapping[str, Sequence[tuple[Parameter, Start]]]) -> None:
        """Create the arrays, by name, of those parameters that have none, once they have banks."""
        for name, starts in wanted.items():
            self._make(name, starts)

    def _make(self, name: str, wanted: Sequence[tuple[Parameter, Start]]) -> None:
        known = self._slots.setdefault(name, {})
        new = [(p, start) for p, start in wanted if p not in known]
        beside = [p for p, (shape, _) in new if shape == p.shape and not isinstance(p, Piece)]
        made = dict(zip(beside, siblings(name, beside), strict=True))
        for param, (shape, _) in new:
            if param not in made:
                made[param] = Slot(f"{param.name}.{name}", np.zeros(shape, param.dtype))
        pack(name, made.values())
        for param, (_, fill) in new:
            slot = made[param]
            saved = self._waiting.get(name, {}).pop(param, None)
            if saved is None:
                slot.value.fill(fill)
            else:
                slot.value = saved
            known[param] = slot

    def divide(self, pieces: Pieces, params: Sequence[Parameter]) -> bool:
        """Keep what belongs to pieces of parameters, and wait with it until `make`; whether there
        was something to cut."""
        cut = False
        for name in {**self._slots, **self._waiting}:
            live, waiting = self._slots.get(name, {}), self._waiting.setdefault(name, {})
            values = {p: found for p in params if (found := self.value(name, p)) is not None}
            for param in values:
                live.pop(param, None)
                waiting.pop(param, None)
            waiting.update(by_piece(pieces, values, params))
            cut = cut or bool(values)
        return cut

    def divided(self) -> list[Slot]:
        """The pieces that have an array, and their arrays."""
        found = [(p, s) for slots in self._slots.values() for p, s in slots.items()]
        return [slot for pair in found if isinstance(pair[0], Piece) for slot in pair]

    def restore(
        self,
        saved: dict[str, dict[Parameter, NDArray[Any]]],
        fill: Callable[[str, Parameter], float],
    ) -> None:
        """Overwrite all arrays, by name and parameter; what is not in `saved` starts anew."""
        for name, slots in self._slots.items():
            for param, slot in slots.items():
                start = np.full(slot.shape, fill(name, param), slot.dtype)
                slot.value = saved.get(name, {}).pop(param, start)
        self._waiting = saved


def as_state(owner: Any, name: str, param: Parameter, value: Any) -> NDArray[Any]:
    """A saved state array of an optimiser's, in its parameter's dtype.

    Raises:
        ShapeError: its shape is not the parameter's.
        UnknownNameError: the optimiser has no such state.
    """
    if name not in owner.state_names:
        raise UnknownNameError(f"{type(owner).__name__} has no state named {name!r}.")
    array = np.array(host_array(value, f"{param.name}: state {name}"), dtype=param.dtype)
    shape = owner.state_shape(name, param)
    if array.shape != shape:
        expected = "none" if shape is None else f"{shape}"
        raise ShapeError(
            f"{param.name}: state {name} has shape {array.shape}, expected {expected}."
        )
    return array
