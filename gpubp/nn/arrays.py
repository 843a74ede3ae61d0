"""What modules are called with: arrays, or what becomes one."""

from __future__ import annotations

import functools
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
    """A `forward` whose arguments are arrays: lists and numbers become some, the rest is refused.

    Raises:
        ArgumentError: (from calls) something that no array can be made of.
    """

    @functools.wraps(forward)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [as_array(self, a) for a in args]
        named = {name: as_array(self, a) for name, a in kwargs.items()}
        return forward(self, *given, **named)

    return cast("F", call)


def as_array(owner: object, value: Any) -> Any:
    """One argument of `owner` as an array. Raises ArgumentError if none can be made of it."""
    if isinstance(value, (Array, np.ndarray, Slot)) or on_device(value):
        return value
    if value is None or isinstance(value, (str, bytes, dict, set)) or callable(value):
        raise ArgumentError(f"{type(owner).__name__}: got {shown(value)}, expected an array.")
    return host_array(value, type(owner).__name__)
