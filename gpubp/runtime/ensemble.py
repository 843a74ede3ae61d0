"""`gp.Ensemble`: several models of one architecture that answer together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked, shown
from gpubp.backends import get_backend
from gpubp.backends.base import Backend
from gpubp.core.store import Slot, pack
from gpubp.errors import ArgumentError, DataError, ShapeError, UnknownNameError
from gpubp.runtime.arguments import checked_arguments
from gpubp.runtime.member_outputs import MemberOutputs
from gpubp.runtime.memory import Memory

States = Sequence[Mapping[str, ArrayLike]]


class Ensemble:
    """Members of one architecture, each with weights of its own; one compiled program runs all.

    Args:
        model: the architecture; its own weights are not used. It returns one array.
        states: for each member, weights and buffers by name, as `model.state_dict()` gives them.
        backend, device: as of `gp.compile`.

    Raises:
        DataError: no members.
        UnknownNameError, ShapeError: a state does not fit the model.
    """

    @checked
    def __init__(
        self,
        model: Any,
        states: Sequence[Mapping[str, Any]],
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> None:
        slots: dict[str, Slot] = slots_of(model)
        if not len(states):
            raise DataError("an ensemble needs at least one member.")
        for state in states:
            if set(state) != set(slots):
                odd = sorted(set(state) ^ set(slots))
                raise UnknownNameError(f"a state does not fit the model: {', '.join(odd)}.")
        values = [{name: s.fitting(state[name]) for name, s in slots.items()} for state in states]
        pack("params", slots.values())
        memory = Memory(len(states))
        for name, slot in slots.items():
            memory.stacked(slot)[...] = [value[name] for value in values]
        self.members = len(states)
        self._floating = next((s.dtype for s in slots.values() if s.dtype.kind == "f"), None)
        self._backend = get_backend(backend, device)
        self._outputs = MemberOutputs(model, self._backend, memory)
        self._model, self._memory = model, memory

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has members, and programs, of its own."""
        states = [
            {
                name: self._memory.stacked(slot)[i].copy()
                for name, slot in slots_of(self._model).items()
            }
            for i in range(self.members)
        ]
        return type(self), (self._model, states, self._backend)

    @checked
    def outputs(self, X: Any, batch_size: int = 1024) -> NDArray[Any]:
        """What each member says, (members, samples, ...).

        Args:
            X: samples along the first axis, or several such arrays as a tuple.
            batch_size: samples at a time.
        """
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}, expected at least 1.")
        floating = self._floating or np.dtype(np.float32)
        data = checked_arguments(X if isinstance(X, tuple) else (X,), floating, self._backend)
        found: NDArray[Any] = self._outputs(data, range(self.members), batch_size)
        return found

    def mean(self, X: Any, softmax: bool = False) -> NDArray[Any]:
        """The mean of what members say, (samples, ...), in float64.

        Args:
            X: as of `outputs`.
            softmax: of their probabilities: the softmax of outputs along the last axis.
        """
        found: NDArray[Any] = _as_means(self.outputs(X), softmax).mean(axis=0)
        return found

    def spread(self, X: Any, softmax: bool = False) -> NDArray[Any]:
        """By how much members differ: the standard deviation of what they say, (samples, ...)."""
        found: NDArray[Any] = _as_means(self.outputs(X), softmax).std(axis=0)
        return found

    def votes(self, X: Any) -> NDArray[np.int64]:
        """How many members have each class as their largest output, (samples, classes).

        Raises:
            ShapeError: outputs are not (samples, classes).
        """
        found = self.outputs(X)
        if found.ndim != 3:
            raise ShapeError(
                f"votes are counted among classes: outputs are {found.shape[1:]}, expected "
                "(samples, classes)."
            )
        each = found.argmax(axis=2)
        return np.stack([(each == c).sum(axis=0) for c in range(found.shape[2])], axis=1)

    def __len__(self) -> int:
        return self.members

    def __repr__(self) -> str:
        return f"Ensemble({self.members} members)"


def as_ensemble(model: Any, states: States, backend: Backend) -> Ensemble:
    """An ensemble on a backend at hand."""
    return Ensemble(model, states, backend)


def _as_means(outputs: NDArray[Any], softmax: bool) -> NDArray[np.float64]:
    values = outputs.astype(np.float64)
    if softmax:
        values = np.exp(values - values.max(axis=-1, keepdims=True))
        values = values / values.sum(axis=-1, keepdims=True)
    return values


def slots_of(model: Any) -> dict[str, Slot]:
    found = getattr(model, "_slots_by_name", None)
    if found is None:
        raise ArgumentError(f"model is {shown(model)}, expected a gpubp.nn.Module.")
    slots: dict[str, Slot] = found()
    return slots
