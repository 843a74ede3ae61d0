"""What modules are called with: arrays, or what becomes one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from gpubp.arguments import shown
from gpubp.core import Array
from gpubp.core.interop import host_array, on_device
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])


def of_arrays(forward: F) -> F:
    """A `forward` whose arguments are arrays: lists and numbers become some, the rest is refused;
    None where that is the default.

    Raises:
        ArgumentError: (from calls) something that no array can be made of.
    """

    _, *names = inspect.signature(forward).parameters.items()
    optional = {name for name, parameter in names if parameter.default is None}

    def checked(owner: Any, name: str, value: Any) -> Any:
        return None if value is None and name in optional else as_array(owner, value)

    @functools.wraps(forward)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [checked(self, name, a) for (name, _), a in zip(names, args)]
        given += [as_array(self, a) for a in args[len(names) :]]
        named = {name: checked(self, name, a) for name, a in kwargs.items()}
        return forward(self, *given, **named)

    return cast("F", call)


def as_array(owner: object, value: Any) -> Any:
    """One argument of `owner` as an array. Raises ArgumentError if none can be made of it."""
    if isinstance(value, (Array, np.ndarray, Slot)) or on_device(value):
        return value
    if value is None or isinstance(value, (str, bytes, dict, set)) or callable(value):
        raise ArgumentError(f"{type(owner).__name__}: got {shown(value)}, expected an array.")
    return host_array(value, type(owner).__name__)
