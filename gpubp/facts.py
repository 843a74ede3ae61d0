"""What a trace has read of Python's state, and whether it is still so.

Comes in: while a function is traced, the attributes that it reads (of modules, losses, optimisers,
the objects of its user) and the NumPy arrays that it uses as constants. Goes out: one answer before
each run of the program: everything is as it was, or the function must be traced again.

Holds in between: gpubp's own objects announce their changes, and as long as nothing was announced,
nothing of theirs is looked at: the answer costs one comparison. What cannot announce (lists, dicts,
arrays, plain objects) is watched: it is compared at each call.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.reach import leads_on, peek, reached

WATCHED_BYTES = 1 << 16  # of an array; larger ones are copied, and not compared at each call
WATCHED_ITEMS = 1000  # of a list or dict; of larger ones, the length is compared
MISSING = type("MISSING", (), {"__repr__": lambda self: "nothing"})()

_CONTAINERS = (list, set, dict, deque, bytearray)
_DEPTH = 8  # of containers in containers


class _Clock:
    """`now` is another object after each announcement."""

    now: object = object()


_clock = _Clock()


def announce() -> None:
    """Say that something which traces read has changed: call it after the change."""
    _clock.now = object()


class Table(dict[str, Any]):
    """A dict that announces its changes."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        announce()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        announce()

    def __ior__(self, other: Any) -> Table:  # type: ignore[override,misc]
        self.update(other)
        return self

    def pop(self, *args: Any) -> Any:
        """As dict's."""
        found = super().pop(*args)
        announce()
        return found

    def popitem(self) -> tuple[str, Any]:
        """As dict's."""
        found = super().popitem()
        announce()
        return found

    def clear(self) -> None:
        """As dict's."""
        super().clear()
        announce()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As dict's."""
        super().update(*args, **kwargs)
        announce()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As dict's."""
        found = super().setdefault(key, default)
        announce()
        return found


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

    Args:
        value: hashable.
    """
    kind = type(value)
    if kind is tuple:
        return (kind, *map(exact, value))
    if isinstance(value, float):
        return kind, value.hex()
    if kind is frozenset:
        return kind, frozenset(map(exact, value))
    return (kind, repr(value)) if kind is complex else (kind, value)


def frozen(value: Any, depth: int = _DEPTH) -> Any:
    """A key for what a value is now: numbers and text by value, containers by content.

    Everything else is equal to itself only.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return exact(value)
    kind, deeper = type(value), depth - 1
    if depth == 0:
        return _Same(value)
    if _may_move(value) and len(value) > WATCHED_ITEMS:
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


def _may_move(value: Any) -> bool:
    """It holds a container that can change without an announcement."""
    if isinstance(value, (tuple, frozenset)):
        return any(map(_may_move, value))
    return isinstance(value, _CONTAINERS) and not isinstance(value, Table)


class _Fact:
    """Something that had a value while tracing.

    Args:
        current: looks at it again.
        value: what it was.
    """

    __slots__ = ("_current", "_frozen", "_moves", "_value")

    def __init__(self, current: Callable[[], Any], value: Any) -> None:
        self._current = current
        self._value = value
        self._moves = isinstance(value, Table) or _may_move(value)
        self._frozen = frozen(value)

    def holds(self) -> bool:
        """It is as it was."""
        now = self._current()
        if now is self._value and not self._moves:
            return True
        return bool(frozen(now) == self._frozen)


class _Captured:
    """An array whose content became part of the trace; it is looked at while somebody holds it."""

    __slots__ = ("_array", "_content")

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = weakref.ref(array)
        self._content = array.tobytes()

    def holds(self) -> bool:
        """It holds what it held."""
        array = self._array()
        return array is None or array.tobytes() == self._content

    @property
    def alive(self) -> bool:
        return self._array() is not None


class Facts:
    """Everything that one trace has read."""

    def __init__(self) -> None:
        self._seen = _clock.now
        self._known: dict[Any, Any] = {}  # what was read or written; keeps its owner, and so its id
        self._announced: list[_Fact] = []
        self._watched: list[_Fact | _Captured] = []
        self._roots: list[Any] = []

    def hold(self) -> bool:
        """Everything is as it was while tracing."""
        now = _clock.now
        if self._seen is not now:
            if not all([fact.holds() for fact in self._announced]):
                return False
            self._seen = now
        return not self._watched or all([fact.holds() for fact in self._watched])

    def assume(self, fact: Callable[[], object]) -> None:
        """Note what a function returns; what it looks at must announce its changes."""
        if fact not in self._known:
            self._known[fact] = fact
            self._announced.append(_Fact(fact, fact()))

    def read(self, owner: Any, name: str, value: Any) -> None:
        """Note that an attribute was read, of an object that announces when one is set.

        Args:
            owner: the object.
            name: the attribute.
            value: what it is; MISSING if there is none.
        """
        key = id(owner), name
        if key in self._known:
            return
        self._known[key] = owner
        table = _table_of(owner, name)
        if table is None:  # it may get one: in front of its class's, or where there is none
            self._announced.append(_Fact(partial(_found, owner, name), MISSING))
            return
        if leads_on(value):
            self._roots += [owner, value]
        elif isinstance(value, np.ndarray):
            self.array(value)
        facts: list[Any] = self._watched if _may_move(value) else self._announced
        facts.append(_Fact(partial(dict.get, table, name, MISSING), value))

    def wrote(self, owner: Any, name: str) -> None:
        """Note that an attribute was set while tracing: what is read from now on is no fact."""
        self._known.setdefault((id(owner), name), owner)

    def array(self, array: NDArray[Any]) -> None:
        """Note that an array's numbers became part of the trace."""
        while isinstance(array.base, np.ndarray):
            array = array.base  # a view may die while its memory lives on
        key = id(array), None
        known = self._known.get(key)
        if array.nbytes > WATCHED_BYTES or (known is not None and known.alive):
            return
        self._known[key] = captured = _Captured(array)
        self._watched.append(captured)

    def seal(self, fn: Any) -> None:
        """End the trace of `fn`: look for the plain objects that its code reads.

        Args:
            fn: what was traced.
        """
        self._watched = [f for f in self._watched if not isinstance(f, _Captured) or f.alive]
        for owner, name in reached([fn, *self._roots]):
            key = id(owner), name
            if key not in self._known:
                self._known[key] = owner
                look = partial(peek, owner, name, MISSING)
                self._watched.append(_Fact(look, look()))


def _table_of(owner: Any, name: str) -> dict[str, Any] | None:
    """The dict of an object's attributes that holds (or would hold) this one."""
    own: dict[str, Any] = object.__getattribute__(owner, "__dict__")
    if name in own:
        return own
    for table in getattr(type(owner), "_table_names", ()):
        found: dict[str, Any] = own.get(table, {})
        if name in found:
            return found
    return None


def _found(owner: Any, name: str) -> Any:
    """An attribute of the object itself, or MISSING."""
    table = _table_of(owner, name)
    return MISSING if table is None else table[name]
