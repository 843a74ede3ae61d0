"""What a translation has read of torch modules' Python state, and whether it is still so.

torch's modules do not say when an attribute of theirs is set (`model.eval()`, `dropout.p = 0.1`,
another layer in the place of one). So what they hold is compared at each call: numbers, text and
containers by value, tensors, modules and all else by identity.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from gpubp.core.keys import SIMPLE
from gpubp.errors import warn

_TABLES = ("_modules", "_parameters", "_buffers")
MANY = 12  # states, after which something changes all the time
_COPIED = (list, tuple, dict, set)


class _Snapshot:
    """What some modules held at one time."""

    def __init__(self, modules: Sequence[Any]) -> None:
        self._plain: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._objects: list[tuple[dict[str, Any], str, Any]] = []
        self._sizes: list[tuple[dict[str, Any], int]] = []
        for top in modules:
            for module in top.modules():
                self._add(module.__dict__)

    def _add(self, own: dict[str, Any]) -> None:
        plain: dict[str, Any] = {}
        for name, value in own.items():
            if name in _TABLES:
                self._objects += [(value, key, held) for key, held in value.items()]
                self._sizes.append((value, len(value)))
            elif type(value) in SIMPLE:
                plain[name] = value
            elif isinstance(value, _COPIED):
                plain[name] = copy.copy(value)
            else:
                self._objects.append((own, name, value))
        self._plain.append((own, plain))

    def differing(self, other: _Snapshot) -> set[str]:
        """The names of plain attributes that are not what they were in another one."""
        pairs = zip(self._plain, other._plain)
        return {n for (_, a), (_, b) in pairs for n in a if n not in b or b[n] != a[n]}

    def holds(self) -> bool:
        """They hold it now."""
        try:
            return (
                all(own.items() >= plain.items() for own, plain in self._plain)
                and all(table.get(key) is value for table, key, value in self._objects)
                and all(len(table) == size for table, size in self._sizes)
            )
        except (RuntimeError, TypeError, ValueError):  # things that are no yes or no: other tensors
            return False


class ModelState:
    """The states that modules have been in.

    Args:
        modules: with those below them.

    Attributes:
        number: of the one that they were in at the last look.
    """

    def __init__(self, modules: Sequence[Any]) -> None:
        self._modules = modules
        self._known: list[_Snapshot] = []
        self.number = -1

    def look(self) -> int:
        """Find the number of the state that the modules are in now."""
        if self.number >= 0 and self._known[self.number].holds():
            return self.number
        for number, snapshot in enumerate(self._known):
            if snapshot.holds():
                self.number = number
                return number
        self._known.append(_Snapshot(self._modules))
        self.number = len(self._known) - 1
        if len(self._known) == MANY:
            names = ", ".join(sorted(self._known[-1].differing(self._known[-2]))) or "its layers"
            warn(
                f"the model has been in {MANY} states, and each is compiled anew: {names} changes "
                "from step to step. Keep such a number in a buffer (register_buffer)."
            )
        return self.number

    def fact(self) -> StateFact:
        """For a trace: the modules are in the state of the last look."""
        return StateFact(self, self.number)


class StateFact:
    """Modules are in one state.

    Args:
        state: of these modules.
        number: of that state.
    """

    def __init__(self, state: ModelState, number: int) -> None:
        self._state, self._number = state, number

    def holds(self) -> bool:
        """They are."""
        return self._state.look() == self._number


def tensors_among(modules: Sequence[Any]) -> Iterator[tuple[str, Any, bool]]:
    """(torch.export's name, tensor, whether it is a parameter), shared ones under each name."""
    for i, top in enumerate(modules):
        for name, tensor in top.named_parameters(remove_duplicate=False):
            yield f"models.{i}.{name}", tensor, True
        for name, tensor in top.named_buffers(remove_duplicate=False):
            yield f"models.{i}.{name}", tensor, False
