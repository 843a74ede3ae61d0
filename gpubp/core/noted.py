"""Attributes that traces read, of objects that are no modules.

(Modules note every read and announce every change by themselves.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpubp.core.announce import announce
from gpubp.core.dispatch import active_graph


class Noted:
    """An attribute: a trace that reads it is made again when it is set to something else.

    Args:
        checked: called with the owner and a new value; returns what to keep, or raises.
    """

    def __init__(self, checked: Callable[[Any, Any], Any] | None = None) -> None:
        self._checked = checked
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        try:
            own = owner.__dict__
            value = own[self._name]
        except KeyError:
            raise AttributeError(f"{type(owner).__name__} has no {self._name} yet.") from None
        graph = active_graph()
        if graph is not None:
            graph.facts.read(owner, self._name, value, own)
        return value

    def __set__(self, owner: Any, value: Any) -> None:
        if self._checked is not None:
            value = self._checked(owner, value)
        owner.__dict__[self._name] = value
        graph = active_graph()
        if graph is not None:
            graph.facts.wrote(owner, self._name)
        announce()
