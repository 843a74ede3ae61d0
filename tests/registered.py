"""The backends that tests run on: those of the registry that run on the host.

A backend is tested by being registered in `gpubp.backends`; no test lists them by hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

from gpubp.backends import class_of, get_backend, names
from gpubp.backends.base import Backend

BACKENDS = names("cpu")


def made(name: str, workers: int) -> Backend:
    """A backend with so many workers; the shared one, if it takes no number of them."""
    cls = class_of(name)
    takes = "workers" in inspect.signature(cls).parameters
    return cls(workers=workers) if takes else get_backend(name)  # type: ignore[call-arg]


def with_workers(*numbers: int) -> dict[str, Callable[[], Backend]]:
    """Every backend, by name and number of workers where it takes one."""
    found: dict[str, Callable[[], Backend]] = {}
    for name in BACKENDS:
        if "workers" in inspect.signature(class_of(name)).parameters:
            found.update({f"{name}-{n}": partial(made, name, n) for n in numbers})
        else:
            found[name] = partial(get_backend, name)
    return found


def spread(names: Iterable[str]) -> list[Any]:
    """(name, backend) of each with each: every name on one backend in turn, the others `full`."""
    return [
        pytest.param(name, backend, marks=() if i % len(BACKENDS) == j else pytest.mark.full)
        for i, name in enumerate(names)
        for j, backend in enumerate(BACKENDS)
    ]


# By name, each on one worker.
MAKERS: dict[str, Callable[[], Backend]] = {name: partial(made, name, 1) for name in BACKENDS}
