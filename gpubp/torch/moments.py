"""The state of a torch optimiser and of its counterpart: moments in one memory, and counts.

torch keeps for each parameter a dict of tensors: moments of its shape, and numbers (steps, a
product of momenta) as tensors of no axes. gpubp keeps moments in banks, and one count for all
parameters that have taken the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpubp.nn.parameter import Parameter
from gpubp.optim.base import Optimizer
from gpubp.torch.dtypes import as_array


class _Numbers:
    """One number for each parameter, each a tensor of its own in torch.

    Args:
        size: how many parameters.
    """

    def __init__(self, size: int) -> None:
        # torch keeps them in float32, or in float64 where that is its default.
        wide = torch.get_default_dtype() is torch.float64
        self._values: NDArray[Any] = np.zeros(size, np.float64 if wide else np.float32)
        self._told = self._values.copy()

    def tensor(self, i: int) -> Any:
        """That of a parameter."""
        return torch.from_numpy(self._values[i : i + 1].reshape(()))

    def tell(self, rows: Any, value: float) -> None:
        """Let those of some parameters have this value."""
        self._values[rows] = value
        self._told[rows] = value

    def hold(self) -> bool:
        """Nobody has changed them since they were told."""
        return bool((self._values == self._told).all())


class Moments:
    """What both optimisers remember.

    Args:
        mine: of gpubp.
        slots: its parameters, in torch's order.
    """

    def __init__(self, mine: Optimizer, slots: Sequence[Parameter]) -> None:
        self._mine, self._slots = mine, list(slots)
        self._numbers: dict[str, _Numbers] = {}
        self._linked: list[tuple[Any, dict[str, tuple[Any, int]]]] = []
        self._rows: list[tuple[Any, Any]] = []
        self._state: Any = None
        self._shared = True
        self._edits = -1

    def pull(self, theirs: Any) -> None:
        """Before a step: take over what the torch optimiser holds, if others have changed it."""
        if self._state is not None and self._hold(theirs.state):
            return
        state: dict[int, dict[str, Any]] = {}
        for i, param in enumerate(_parameters(theirs)):
            own = {k: v for k, v in theirs.state.get(param, {}).items() if v is not None}
            if own:
                state[i] = {k: as_array(v, k) if _is_tensor(v) else v for k, v in own.items()}
        if state or self._state is not None:
            groups = self._mine.state_dict()["param_groups"]
            self._mine.load_state_dict({"state": state, "param_groups": groups})
        self._state = None

    def push(self, theirs: Any) -> None:
        """After a step: let the torch optimiser hold what is here."""
        if self._state is not theirs.state or self._edits != self._mine._facts():
            self._link(theirs)
        for cohort, rows in self._rows:
            steps, scalars = cohort.past
            for name, value in (("step", steps), *scalars):
                if name in self._numbers:
                    self._numbers[name].tell(rows, value)

    def _hold(self, state: Any) -> bool:
        """Nobody has changed the torch optimiser's state since it was linked."""
        if state is not self._state or not all(n.hold() for n in self._numbers.values()):
            return False
        if len(state) != len(self._linked) and sum(map(bool, state.values())) != len(self._linked):
            return False
        for param, tensors in self._linked:
            own = state.get(param)
            if own is None:
                return False
            for name, (tensor, address) in tensors.items():
                if own.get(name) is not tensor or tensor.data_ptr() != address:
                    return False
        return True

    def _link(self, theirs: Any) -> None:
        """Put tensors over all that is remembered here into the torch optimiser's state."""
        state = self._mine.state_dict()["state"]
        self._numbers, self._linked, self._shared = {}, [], True
        for i, param in enumerate(_parameters(theirs)):
            if i in state:
                tensors = self._tensors(i, state[i])
                theirs.state[param] = tensors
                addressed = {name: (t, t.data_ptr()) for name, t in tensors.items()}
                self._linked.append((param, addressed))
        self._rows = list(self._cohorts())
        self._state = theirs.state if self._shared else None
        self._edits = self._mine._facts()

    def _tensors(self, i: int, own: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in own.items():
            if name in self._mine.state_names:
                slot = self._mine._arrays._slots.get(name, {}).get(self._slots[i])
                self._shared = self._shared and slot is not None
                found[name] = torch.from_numpy(value if slot is None else slot.value)
            else:
                numbers = self._numbers.setdefault(name, _Numbers(len(self._slots)))
                numbers.tell(i, float(value))
                found[name] = numbers.tensor(i)
        return found

    def _cohorts(self) -> Any:
        """(cohort, the places of its parameters)."""
        place = {id(slot): i for i, slot in enumerate(self._slots)}
        for cohort in self._mine._cohorts:
            rows = [place[id(p)] for p in cohort.members]
            yield cohort, slice(None) if len(rows) == len(self._slots) else np.array(rows, np.intp)


def _parameters(theirs: Any) -> list[Any]:
    return [p for group in theirs.param_groups for p in group["params"]]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
