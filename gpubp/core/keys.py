"""Keys for values: what is equal to what, where Python's own == says too much.

1, True and 1.0 are equal for Python, and so are 0.0 and -0.0; a trace that read one of them is not
a trace that read another. And a list is equal to itself, whatever was appended to it meanwhile.
"""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from typing import Any

import numpy as np

from gpubp.core.announce import Table

WATCHED_ITEMS = 1000  # of a list or dict; of larger ones, the length is compared
SIMPLE = frozenset((type(None), bool, int, float, complex, str, bytes))

_CONTAINERS = (list, set, dict, deque, bytearray)
_DEPTH = 8  # of containers in containers


class _Same:
    """An object that is equal to itself only."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def exact(value: Any) -> Any:
    """A key that is equal for values that are alike: 1, True and 1.0 are not, nor are 0.0 and -0.0.

    In tuples, named ones and dataclasses neither.

    Args:
        value: hashable.
    """
    kind = type(value)
    if kind is int or kind is str or kind is bool:
        return kind, value
    if kind is tuple:
        return (kind, *map(exact, value))
    if isinstance(value, float):
        return kind, value.hex()
    if kind is frozenset:
        return kind, frozenset(map(exact, value))
    if isinstance(value, tuple):
        return (kind, *map(exact, value))
    if isinstance(value, np.generic):
        return kind, value.tobytes()
    if _is_frozen(kind):
        parts = [f.name for f in fields(value) if (f.compare if f.hash is None else f.hash)]
        return (kind, value, *[exact(getattr(value, name)) for name in parts])
    return (kind, repr(value)) if kind is complex else (kind, value)


def _is_frozen(kind: type) -> bool:
    """A dataclass that is hashed by its fields."""
    options = getattr(kind, "__dataclass_params__", None)
    return options is not None and options.eq and options.frozen


def frozen(value: Any, depth: int = _DEPTH) -> Any:
    """A key for what a value is now: numbers and text by value, containers by content.

    Everything else is equal to itself only.
    """
    kind, deeper = type(value), depth - 1
    if kind in SIMPLE or isinstance(value, (int, float, complex, str, bytes)):
        return exact(value)
    if depth == 0 or hasattr(kind, "_announces"):
        return _Same(value)
    if may_move(value) and len(value) > WATCHED_ITEMS:
        return kind, len(value), _Same(value)
    if isinstance(value, dict):
        return kind, tuple([(frozen(k, deeper), frozen(v, deeper)) for k, v in value.items()])
    if isinstance(value, (tuple, list, deque)):
        return kind, tuple([frozen(v, deeper) for v in value])
    if isinstance(value, (set, frozenset)):
        return kind, frozenset([frozen(v, deeper) for v in value])
    if isinstance(value, bytearray):
        return kind, bytes(value)
    if isinstance(value, np.generic):
        return kind, value.tobytes()
    return _Same(value)


def may_move(value: Any) -> bool:
    """It holds a container that can change without an announcement."""
    if isinstance(value, (tuple, frozenset)):
        return any(map(may_move, value))
    return isinstance(value, _CONTAINERS) and not isinstance(value, Table)
