"""Plain Python objects that the code of a traced function may read.

A plain object (of a class of the user's, no gpubp object) cannot say when it changes. But the code
that reads its attributes names them. So from the traced function we follow closures, globals,
methods and attributes by the names that the code mentions, and find which attributes to watch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from types import (
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

from gpubp.core.bindings import use_of

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
_NOTHING = object()
# Their objects change in ways of their own (caches, counters) when they are only read.
_LIBRARIES = frozenset(
    ("gpubp", "numpy", "scipy", "sklearn", "pandas", "torch", "jax", "cupy", "numba", "matplotlib")
) | (sys.stdlib_module_names - {"__main__"})
_CONTAINERS = (list, tuple, dict)
_MOST = 100  # items of a container that are followed
_CODE = (FunctionType, MethodType, partial, staticmethod, classmethod, property)
_NO_DATA = (*_CODE, MemberDescriptorType)


def is_plain(value: Any) -> bool:
    """An object of a user's class, that does not announce its changes."""
    kind = type(value)
    if isinstance(value, SimpleNamespace) or kind.__qualname__ == "Namespace":
        return True  # what options are kept in (argparse's, too)
    if isinstance(value, (type, ModuleType, *_CODE)) or not kind.__flags__ & _HEAP_TYPE:
        return False
    return not _of_library(kind.__module__) and not announces(value)


def leads_on(value: Any) -> bool:
    """Code, a plain object, or a container: there may be attributes to watch behind it."""
    return isinstance(value, (*_CODE, *_CONTAINERS)) or is_plain(value)


def holds_data(owner: Any, name: str) -> bool:
    """The class of an object, one of the user's, has data under this name."""
    kind = type(owner)
    found = _of_class(kind, name)
    return not (found is _NOTHING or isinstance(found, _CODE) or _of_library(kind.__module__))


def announces(value: Any) -> bool:
    """It says when one of its attributes is set."""
    return bool(getattr(type(value), "_announces", False))


def _of_library(module: Any) -> bool:
    return str(module).partition(".")[0] in _LIBRARIES


def peek(owner: Any, name: str, default: Any = None) -> Any:
    """An attribute as it stands in the object or its class; no code of its class runs."""
    if isinstance(owner, type):
        found = _of_class(owner, name)
        return default if found is _NOTHING else found
    own = getattr(owner, "__dict__", {})
    if name in own:
        return own[name]
    found = _of_class(type(owner), name)
    if isinstance(found, MemberDescriptorType):
        try:
            return found.__get__(owner, type(owner))
        except AttributeError:
            return default
    return default if found is _NOTHING else found


def _of_class(kind: type, name: str) -> Any:
    for base in kind.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return _NOTHING


class Search:
    """Follows names, from the traced function and objects that it is known to read.

    Attributes:
        names: all names that the code mentions.
        objects: plain objects, those that announce but have methods of the user's, and classes.
        functions: of the user's.
    """

    def __init__(self, start: Sequence[Any]) -> None:
        self.names: set[str] = set()
        self.objects: list[Any] = []
        self.functions: list[FunctionType] = []
        self._seen: dict[int, Any] = {}
        for value in start:
            self.visit(value)
        self._finish()

    def attributes(self) -> Iterator[tuple[Any, str]]:
        """(object, name) for attributes of plain objects and of classes that hold data."""
        for owner in self.objects:
            if _is_open(owner):
                for name in sorted(self.names):
                    value = peek(owner, name, _NOTHING)
                    if value is not _NOTHING and not isinstance(value, _NO_DATA):
                        yield owner, name

    def visit(self, value: Any) -> None:
        """Follow a value, if it is code or an object with attributes of its own."""
        if not leads_on(value) and not _is_users(value):
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, (*_CODE, *_CONTAINERS)):
            for inner in _parts(value):
                self.visit(inner)
        else:
            self.objects.append(value)
            kind = value if isinstance(value, type) else type(value)
            for name in ("__call__", "forward"):
                self.visit(_of_class(kind, name))

    def _function(self, function: FunctionType) -> None:
        if _of_library(function.__module__):
            self.visit(getattr(function, "__wrapped__", None))  # of a function of the user's
            return
        self.functions.append(function)
        self.names |= _names(function.__code__)
        for cell in function.__closure__ or ():
            try:
                self.visit(cell.cell_contents)
            except ValueError:
                continue  # not filled in yet
        for name in use_of(function.__code__).loaded:
            self.visit(function.__globals__.get(name))
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.visit(value)

    def _finish(self) -> None:
        """Follow the attributes that are mentioned, until there is nothing new."""
        done: set[tuple[int, str]] = set()
        while True:
            new = [(o, n) for o in self.objects for n in self.names if (id(o), n) not in done]
            if not new:
                return
            for owner, name in new:
                done.add((id(owner), name))
                if _is_open(owner):
                    self.visit(peek(owner, name))
                else:
                    self.visit(_of_class(type(owner), name))


def _is_users(value: Any) -> bool:
    """A class of the user's, or an object of one that announces changes."""
    if isinstance(value, type):
        return bool(value.__flags__ & _HEAP_TYPE) and not _of_library(value.__module__)
    return announces(value) and not _of_library(type(value).__module__)


def _is_open(owner: Any) -> bool:
    """Its attributes change without an announcement."""
    return isinstance(owner, type) or is_plain(owner)


def _parts(value: Any) -> Sequence[Any]:
    """What a container, a method, a partial or a decorated function is made of."""
    if isinstance(value, _CONTAINERS):
        return list(value.values() if isinstance(value, dict) else value)[:_MOST]
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, partial):
        return value.func, *value.args, *value.keywords.values()
    if isinstance(value, property):
        return (value.fget,)
    return (value.__func__,)


def _names(code: CodeType) -> set[str]:
    """The globals and attributes that code mentions, functions inside of it included."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found
