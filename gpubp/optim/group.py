"""Parameter groups: parameters that share options, and the forms in which users give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import shown
from gpubp.core.interop import host_array
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError, unknown_name
from gpubp.kinds import is_iterable
from gpubp.nn.parameter import Parameter

Params = Iterable[Parameter] | Iterable[Mapping[str, Any]]

# What learning-rate schedules keep in a group, under torch's names; no update reads them.
NOTES = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr")


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
        options = {key: plain(value) for key, value in options.items()}
        check(options)
        self.params = list(params)
        self.lr = Slot("lr", float(options["lr"]), np.float64)
        self._options = {key: value for key, value in options.items() if key != "lr"}
        self._notes: dict[str, float] = {}
        self._moving: Slot | None = None
        self._decay: Slot | None = None
        self._check = check
        self._changed = changed

    @property
    def momentum(self) -> Any:
        """The momentum, or the first of the betas: a number, or a slot if a schedule moves it."""
        if self._moving is not None:
            return self._moving
        return self._options["betas"][0] if "betas" in self._options else self._options["momentum"]

    def move_momentum(self) -> Slot:
        """Keep the momentum in a slot from now on, which programs read at every step.

        Raises:
            DataError: the optimiser has neither a momentum nor betas.
        """
        if self._moving is None:
            if "betas" not in self._options and "momentum" not in self._options:
                raise DataError(
                    "the optimizer has neither momentum nor betas to cycle; pass "
                    "cycle_momentum=False."
                )
            self._moving = Slot("momentum", float(self.momentum), np.float64)
            self._changed()
        return self._moving

    @property
    def decay(self) -> Any:
        """The weight decay: a number, 0 where there is none; or a slot, see `in_slot`."""
        return self._options.get("weight_decay", 0.0) if self._decay is None else self._decay

    def slots(self) -> list[Slot]:
        """The options that are kept in slots."""
        return [s for s in (self.lr, self._moving, self._decay) if s is not None]

    def in_slot(self, name: str) -> Slot:
        """Keep an option in a slot from now on, which programs read at every step.

        Args:
            name: "lr", "momentum" (or the first of the betas), or "weight_decay".

        Raises:
            DataError: the optimiser has no such option, or it is baked into programs.
        """
        if name == "lr":
            return self.lr
        if name == "momentum" and ("betas" in self._options or "momentum" in self._options):
            return self.move_momentum()
        if name != "weight_decay" or "weight_decay" not in self._options:
            known = [k for k in ("lr", "momentum", "weight_decay") if k in self._options]
            has = ["lr", *(["momentum"] if "betas" in self._options else []), *known]
            raise DataError(
                f"{name} is no option that may differ from step to step here; those are "
                f"{', '.join(has)}. Others are part of the program."
            )
        if self._decay is None:
            self._decay = Slot("weight_decay", float(self._options["weight_decay"]), np.float64)
            self._changed()
        return self._decay

    def check_option(self, name: str, value: float) -> None:
        """Raise DataError unless this option, of those of `in_slot`, may have this value."""
        if name == "momentum" and "betas" in self._options:
            self._check({**self, "betas": (value, *self._options["betas"][1:])})
        else:
            self._check({**self, name: value})

    @property
    def has_momentum(self) -> bool:
        """The momentum is not 0, or a schedule moves it."""
        return self._moving is not None or bool(self.momentum)

    def __getitem__(self, key: str) -> Any:
        if key == "params":
            return self.params
        if key == "lr":
            return float(self.lr.value)
        if key in self._notes:
            return self._notes[key]
        value = self._options[key]
        if key == "weight_decay" and self._decay is not None:
            return float(self._decay.value)
        if self._moving is None or key not in ("momentum", "betas"):
            return value
        moved = float(self._moving.value)
        return (moved, *value[1:]) if key == "betas" else moved

    def __setitem__(self, key: str, value: Any) -> None:
        if key in NOTES:
            self._notes[key] = float(value)
            return
        if key not in self or key == "params":
            raise unknown_name("option", key, [k for k in self if k != "params"])
        value = plain(value)
        self._check({**self, key: value})
        self._set(key, value)

    def _set(self, key: str, value: Any) -> None:
        if key in NOTES:
            self._notes[key] = float(value)
        elif key == "lr":
            self.lr.value = np.float64(value)
        elif key == "weight_decay" and self._decay is not None:
            self._decay.value = np.float64(value)
        elif self._moving is not None and key in ("momentum", "betas"):
            self._moving.value = np.float64(value[0] if key == "betas" else value)
            if key == "betas":
                self._store(key, (self._options[key][0], *value[1:]))
        else:
            self._store(key, value)

    def _store(self, key: str, value: Any) -> None:
        if self._options[key] != value:
            self._options[key] = value
            self._changed()

    def replace(self, options: Mapping[str, Any]) -> None:
        """Set several options that are valid together, and not always one by one."""
        options = {key: plain(value) for key, value in options.items()}
        self._check({**self, **options})
        for key, value in options.items():
            self._set(key, value)

    @property
    def notes(self) -> dict[str, float]:
        """What schedules keep here, by torch's names (a copy); may be set as a whole."""
        return dict(self._notes)

    @notes.setter
    def notes(self, notes: Mapping[str, float]) -> None:
        self._notes = {key: float(value) for key, value in notes.items() if key in NOTES}

    def __delitem__(self, key: str) -> None:
        raise ArgumentError("options of a parameter group cannot be deleted.")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", "lr", *self._options, *self._notes))

    def __len__(self) -> int:
        return 2 + len(self._options) + len(self._notes)

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.items() if k != "params")
        return f"ParamGroup({len(self.params)} parameters, {shown})"


def plain(value: Any) -> Any:
    """Python's own numbers for NumPy's (and torch's scalars), tuples for lists.

    A Python number takes the dtype of the arrays it meets; a NumPy number would widen them.
    """
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    if isinstance(value, (complex, np.ndarray, np.generic)):
        value = host_array(value, "an option of the optimizer")
    return value.item() if getattr(value, "shape", None) == () else value


def as_groups(params: Params) -> list[Mapping[str, Any]]:
    """One dict a group, from an iterable of parameters or of dicts.

    Raises:
        ArgumentError: a single parameter or dict.
    """
    if isinstance(params, (Parameter, Mapping)):
        raise ArgumentError(
            f"the optimizer got one {type(params).__name__}, expected an iterable of parameters or "
            "of groups. Put it into a list."
        )
    if not is_iterable(params):
        raise ArgumentError(
            f"the optimizer got {shown(params)}, expected parameters: model.parameters()."
        )
    items = list(params)
    if items and all(isinstance(item, Mapping) for item in items):
        return [item for item in items if isinstance(item, Mapping)]
    return [{"params": items}]


def checked_params(params: Any) -> list[Parameter]:
    """A group's parameters as a list, from one parameter or an iterable of them.

    Raises:
        ArgumentError: something that is not a Parameter.
    """
    if not isinstance(params, Parameter) and not is_iterable(params):
        raise ArgumentError(
            f"the optimizer got {shown(params)}, expected parameters (gpubp.nn.Parameter)."
        )
    found = [params] if isinstance(params, Parameter) else list(params)
    for param in found:
        if not isinstance(param, Parameter):
            raise ArgumentError(
                f"the optimizer got a {type(param).__name__}, expected parameters "
                "(gpubp.nn.Parameter)."
            )
    return found
