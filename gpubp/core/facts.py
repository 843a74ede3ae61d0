"""What a trace has read of Python's state, and whether it is still so.

Comes in: while a function is traced, the attributes that it reads (of modules, losses, optimisers,
the objects of its user) and the NumPy arrays that it uses as constants. Goes out: one answer before
each run of the program: everything is as it was, or the function must be traced again.

Holds in between: gpubp's own objects announce their changes, and as long as nothing was announced,
nothing of theirs is looked at: the answer costs one comparison. What cannot announce (lists, dicts,
arrays, plain objects) is watched: it is compared at each call. So is what names of the traced code
stand for, in its closures and among its globals.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp.core.announce import Table, clock
from gpubp.core.bindings import Bindings, look, names_of
from gpubp.core.keys import SIMPLE, frozen, may_move
from gpubp.core.reach import Search, holds_data, leads_on, peek

WATCHED_BYTES = 1 << 16  # of an array; larger ones are copied, and not compared at each call
MISSING = type("MISSING", (), {"__repr__": lambda self: "nothing"})()

_HOLDS = methodcaller("holds")


class Watched(Protocol):
    """Something that a trace depends on, and that is asked at each call whether it is still so."""

    def holds(self) -> bool:
        """It is as it was while tracing."""
        ...


class _Fact:
    """Something that had a value while tracing.

    Args:
        current: looks at it again.
        value: what it was.
        moves: it can change and be the same object.
    """

    __slots__ = ("_current", "_frozen", "_moves", "_value")

    def __init__(self, current: Callable[[], Any], value: Any, moves: bool) -> None:
        self._current = current
        self._value = value
        self._moves = moves
        self._frozen = frozen(value) if moves else None

    def holds(self) -> bool:
        """It is as it was."""
        now = self._current()
        if self._moves:
            return bool(frozen(now) == self._frozen)
        return now is self._value or bool(frozen(now) == frozen(self._value))


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
        self._seen = clock.now
        self._known: dict[Any, Any] = {}  # what was read or written; keeps its owner, and so its id
        self._announced: list[_Fact] = []
        self._watched: list[Watched] = []
        self._bindings = Bindings()
        self._roots: list[Any] = []

    def hold(self) -> bool:
        """Everything is as it was while tracing."""
        now = clock.now
        if self._seen is not now:
            if not all(map(_HOLDS, self._announced)):
                return False
            self._seen = now
        return self._bindings.hold() and (not self._watched or all(map(_HOLDS, self._watched)))

    def assume(self, fact: Callable[[], object]) -> None:
        """Note what a function returns; what it looks at must announce its changes."""
        if fact not in self._known:
            self._known[fact] = fact
            self._announced.append(_Fact(fact, fact(), True))

    def watch(self, watched: Watched) -> None:
        """Note what cannot announce its changes and knows itself whether it has changed."""
        self._watched.append(watched)

    def read(self, owner: Any, name: str, value: Any, table: Any = None) -> None:
        """Note that an attribute was read, of an object that announces when one is set.

        Args:
            owner: the object.
            name: the attribute.
            value: what it is; MISSING if there is none.
            table: the dict that holds it, if known.
        """
        key = id(owner), name
        if key in self._known or name[:2] == "__":
            return
        self._known[key] = owner
        if (id(owner), "__class__") not in self._known:
            self._known[id(owner), "__class__"] = owner
            self._announced.append(_Fact(partial(type, owner), type(owner), False))
        if table is None:
            table = _table_of(owner, name)
        if table is None:
            self._not_its_own(owner, name)
            return
        look, kind = partial(dict.get, table, name, MISSING), type(value)
        if kind in SIMPLE or hasattr(kind, "_announces") or kind is Table:
            self._announced.append(_Fact(look, value, kind is Table))
            return
        if leads_on(value):
            self._roots.append(value)
        elif isinstance(value, np.ndarray):
            self.array(value)
        moves = may_move(value)
        facts: list[Any] = self._watched if moves else self._announced
        facts.append(_Fact(look, value, moves))

    def _not_its_own(self, owner: Any, name: str) -> None:
        """It may get an attribute, in front of its class's or where there is none."""
        self._announced.append(_Fact(partial(_found, owner, name), MISSING, False))
        if holds_data(owner, name):
            self._watch(owner, name)

    def _watch(self, owner: Any, name: str) -> None:
        look = partial(peek, owner, name, MISSING)
        value = look()
        self._watched.append(_Fact(look, value, may_move(value)))

    def wrote(self, owner: Any, name: str) -> None:
        """Note that an attribute was set while tracing: what is read from now on is no fact."""
        self._known.setdefault((id(owner), name), owner)

    def array(self, array: NDArray[Any]) -> None:
        """Note that an array's numbers became part of the trace."""
        while isinstance(array.base, np.ndarray) and array.base.nbytes <= WATCHED_BYTES:
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
        search = Search([fn, *self._owners(), *self._roots])
        for owner, name in search.attributes():
            key = id(owner), name
            if key not in self._known:
                self._known[key] = owner
                self._watch(owner, name)
        for function in search.functions:
            for place, name, value, changed in names_of(function):
                self._bindings.add(place, name, value)
                if changed:
                    continue
                if isinstance(value, np.ndarray):
                    self.array(value)
                elif may_move(value):
                    self._watched.append(_Fact(partial(look, place, name), value, True))

    def _owners(self) -> list[Any]:
        """Whose code may read what names stand for."""
        return list({id(o): o for o in self._known.values()}.values())


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
