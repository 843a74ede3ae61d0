"""Values by name into the slots of a module: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from numpy.typing import ArrayLike

from gpubp.core.interop import host_array
from gpubp.errors import ShapeError, UnknownNameError
from gpubp.nn.parameter import Buffer


class LoadResult(NamedTuple):
    """What `load_state_dict(strict=False)` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_slots(
    owner: str, slots: Mapping[str, Buffer], state: Mapping[str, ArrayLike], strict: bool
) -> LoadResult:
    """What `Module.load_state_dict` does.

    Args:
        owner: the module's class, for errors.
        slots: parameters and buffers by dotted name.
        state: arrays by dotted name.
        strict: False passes over names that only one side has.
    """
    missing = [name for name in slots if name not in state]
    unexpected = [name for name in state if name not in slots]
    if strict and (missing or unexpected):
        raise UnknownNameError(
            f"the state does not fit {owner}: missing {_listed(missing)}; "
            f"unexpected {_listed(unexpected)}. Pass strict=False to load the rest."
        )
    values = {name: host_array(state[name], name) for name in slots if name in state}
    wrong = [
        f"{name}: got {value.shape}, expected {slots[name].shape}"
        for name, value in values.items()
        if not slots[name].fits(value.shape)
    ]
    if wrong:
        raise ShapeError(f"the state does not fit {owner}: {'; '.join(wrong)}.")
    fitting = {name: slots[name].fitting(value) for name, value in values.items()}
    for name, value in fitting.items():
        slots[name].value = value
    return LoadResult(missing, unexpected)


def _listed(names: list[str]) -> str:
    return ", ".join(map(str, names)) if names else "nothing"
