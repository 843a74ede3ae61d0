"""What the names in a function's code stand for: the cells of its closure, and its globals.

A trace that called a function of the user's read what these names stood for. A name that is bound
anew (a cell of a notebook that runs again), or a list or dict behind one whose content changes, is
a change like any other. What the code binds or changes itself, such as a counter of its calls, is
none.
"""

from __future__ import annotations

import dis
import weakref
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpubp.core.keys import frozen

_UNBOUND = object()
_LOADS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"))
_STORES = frozenset(("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"))
_METHODS: tuple[Any, ...] = (
    *(list.append, list.clear, list.extend, list.insert, list.pop, list.remove),
    *(dict.popitem, dict.setdefault, dict.update, set.add, set.discard),
    *(deque.appendleft, deque.popleft),
)
_CHANGES = frozenset(method.__name__ for method in _METHODS)


class _Use(NamedTuple):
    """How code uses names that are not its own.

    Attributes:
        loaded: globals.
        bound: names that it binds itself.
        changed: names of containers that it changes itself.
    """

    loaded: frozenset[str]
    bound: frozenset[str]
    changed: frozenset[str]


@lru_cache(maxsize=4096)
def use_of(code: CodeType) -> _Use:
    """What code, functions inside of it included, does with names that are not its own."""
    loaded: set[str] = set()
    bound: set[str] = set()
    changed: set[str] = set()
    here: set[str] = set()  # names that the statement has loaded so far
    last = ""  # what the instruction before loaded
    for at in dis.get_instructions(code):
        if at.opname in _LOADS:
            here.add(at.argval)
        if at.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            loaded.add(at.argval)
        elif at.opname in _STORES:
            bound.add(at.argval)
        elif at.opname in ("LOAD_METHOD", "LOAD_ATTR") and at.argval in _CHANGES:
            changed.add(last)
        elif at.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            changed |= here
        if at.opname.startswith(("STORE_", "DELETE_", "POP_", "RETURN_")):
            here = set()
        last = at.argval if at.opname in _LOADS else ""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            uses = use_of(inner)
            loaded |= uses.loaded
            bound |= uses.bound
            changed |= uses.changed
    return _Use(frozenset(loaded), frozenset(bound), frozenset(changed - {""}))


def names_of(function: FunctionType) -> Iterator[tuple[CellType | dict[str, Any], str, Any, bool]]:
    """The names that a function's code uses and does not bind.

    Yields:
        (where it is bound, the name, what it stands for, whether the code changes that itself).
    """
    use = use_of(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = _content(cell)
        if value is not _UNBOUND and name not in use.bound:
            yield cell, name, value, name in use.changed
    for name in sorted(use.loaded - use.bound):
        value = function.__globals__.get(name, _UNBOUND)
        if value is not _UNBOUND and not isinstance(value, ModuleType):
            yield function.__globals__, name, value, name in use.changed


def look(place: CellType | dict[str, Any], name: str) -> Any:
    """What a name stands for now."""
    return _content(place) if isinstance(place, CellType) else place.get(name, _UNBOUND)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled in yet, or deleted
        return _UNBOUND


class Bindings:
    """Names, and what they stood for; they are looked at each time a program is called."""

    __slots__ = ("_cells", "_globals", "_known")

    def __init__(self) -> None:
        self._cells: list[tuple[CellType, Any]] = []
        self._globals: list[tuple[dict[str, Any], str, Any]] = []
        self._known: set[tuple[int, str]] = set()

    def add(self, place: CellType | dict[str, Any], name: str, value: Any) -> None:
        """Note what a name stands for. An array is not kept alive for that."""
        key = id(place), "" if isinstance(place, CellType) else name
        if key in self._known:
            return
        self._known.add(key)
        kept = weakref.ref(value) if type(value) is np.ndarray else value
        if isinstance(place, CellType):
            self._cells.append((place, kept))
        else:
            self._globals.append((place, name, kept))

    def hold(self) -> bool:
        """All names stand for what they stood for."""
        try:
            for cell, value in self._cells:
                if cell.cell_contents is not value and not _alike(cell.cell_contents, value):
                    return False
        except ValueError:  # a name of a closure was deleted
            return False
        if not self._globals:
            return True
        for table, name, value in self._globals:
            now = table.get(name, _UNBOUND)
            if now is not value and not _alike(now, value):
                return False
        return True


def _alike(now: Any, value: Any) -> bool:
    """The same number or text, or the array that is kept weakly."""
    if type(value) is weakref.ref and type(now) is np.ndarray:
        return value() is now
    return bool(frozen(now) == frozen(value))
