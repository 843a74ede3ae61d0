"""Parameter groups: parameters that share options, and the forms in which users give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from gpubp.errors import unknown_name
from gpubp.nn.parameter import Parameter
from gpubp.store import Slot

Params = Iterable[Parameter] | Iterable[Mapping[str, Any]]


class ParamGroup(MutableMapping[str, Any]):
    """Parameters that share options; reads and writes like torch's dict.

    `group["lr"]` reads and writes a slot that programs read at every step.

    Attributes:
        params: the parameters, also found as group["params"].
        lr: float64 scalar slot.
    """

    def __init__(
        self,
        params: Sequence[Parameter],
        options: Mapping[str, Any],
        check: Callable[[Mapping[str, Any]], None],
        changed: Callable[[], None],
    ) -> None:
        check(options)
        self.params = list(params)
        self.lr = Slot("lr", float(options["lr"]), np.float64)
        self._options = {key: value for key, value in options.items() if key != "lr"}
        self._check = check
        self._changed = changed

    def __getitem__(self, key: str) -> Any:
        if key == "params":
            return self.params
        return float(self.lr.value) if key == "lr" else self._options[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self or key == "params":
            raise unknown_name("option", key, [k for k in self if k != "params"])
        self._check({**self, key: value})
        if key == "lr":
            self.lr.value = np.float64(value)
        elif self._options[key] != value:
            self._options[key] = value
            self._changed()

    def replace(self, options: Mapping[str, Any]) -> None:
        """Set several options that are valid together, and not always one by one."""
        self._check({**self, **options})
        self._options.update({key: value for key, value in options.items() if key != "lr"})
        self.lr.value = np.float64(options.get("lr", self["lr"]))
        self._changed()

    def __delitem__(self, key: str) -> None:
        raise TypeError("options of a parameter group cannot be deleted.")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", "lr", *self._options))

    def __len__(self) -> int:
        return 2 + len(self._options)

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.items() if k != "params")
        return f"ParamGroup({len(self.params)} parameters, {shown})"


def as_groups(params: Params) -> list[Mapping[str, Any]]:
    """One dict a group, from an iterable of parameters or of dicts.

    Raises:
        TypeError: a single parameter or dict.
    """
    if isinstance(params, (Parameter, Mapping)):
        raise TypeError(
            f"the optimizer got one {type(params).__name__}, expected an iterable of parameters or "
            "of groups. Put it into a list."
        )
    items = list(params)
    if items and all(isinstance(item, Mapping) for item in items):
        return [item for item in items if isinstance(item, Mapping)]
    return [{"params": items}]


def checked_params(params: Any) -> list[Parameter]:
    """A group's parameters as a list, from one parameter or an iterable of them.

    Raises:
        TypeError: something that is not a Parameter.
    """
    found = [params] if isinstance(params, Parameter) else list(params)
    for param in found:
        if not isinstance(param, Parameter):
            raise TypeError(
                f"the optimizer got a {type(param).__name__}, expected parameters "
                "(gpubp.nn.Parameter)."
            )
    return found
