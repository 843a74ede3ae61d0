"""Attributes of modules: parameters, buffers and sub-modules lie in tables of their own, and what
traces read is noted as a fact.
"""

from __future__ import annotations

from typing import Any

from gpubp import habits
from gpubp.core import active_graph
from gpubp.core.announce import Table, announce
from gpubp.core.facts import MISSING
from gpubp.errors import ArgumentError
from gpubp.nn.parameter import Buffer, Parameter


class Attributes:
    """What is assigned goes into the table of its kind, in the order of registration."""

    _announces = True  # changes of attributes; see gpubp.core.facts
    _table_names = ("_parameters", "_buffers", "_modules")

    def __init__(self) -> None:
        self.__dict__.update({name: Table() for name in self._table_names})

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        graph = active_graph()
        if graph is not None:
            graph.facts.read(self, name, value)
        return value

    def __getstate__(self) -> dict[str, Any]:
        """What copies are made of; a copy made while tracing reads all of it."""
        graph = active_graph()
        state = dict(self.__dict__)
        if graph is not None:
            for name, value in state.items():
                graph.facts.read(self, name, value)
        return state

    def __setattr__(self, name: str, value: Any) -> None:
        table = self._table_for(name, value)
        graph = active_graph()
        if graph is not None:
            graph.facts.wrote(self, name)
        if table is None:
            object.__setattr__(self, name, value)
            announce()
            return
        self.__dict__.pop(name, None)
        for other in self._tables():
            if other is not table:
                other.pop(name, None)
        table[name] = value
        if value is not None:
            _rename(name, value)

    def _tables(self) -> tuple[dict[str, Any], ...]:
        if "_modules" not in self.__dict__:
            raise AttributeError(
                f"call super().__init__() before assigning attributes of {type(self).__name__}."
            )
        found = self.__dict__
        return found["_parameters"], found["_buffers"], found["_modules"]

    def _table_for(self, name: str, value: Any) -> dict[str, Any] | None:
        kinds = (Parameter, Buffer, Attributes)
        for kind, table in zip(kinds, self._tables(), strict=True):
            if isinstance(value, kind) or (value is None and name in table):
                return table
        if any(name in table for table in self._tables()):
            raise ArgumentError(
                f"{type(self).__name__}.{name} is registered; got {type(value).__name__}, expected "
                f"a Parameter, Buffer, Module or None. To change its value, write {name}.value; "
                f"in forward(), call gp.ops.assign(self.{name}, value)."
            )
        return None

    def __getattr__(self, name: str) -> Any:
        own, graph = object.__getattribute__(self, "__dict__"), active_graph()
        for key in Attributes._table_names:
            table = own.get(key, {})
            if name in table:
                if graph is not None:
                    graph.facts.read(self, name, table[name], table)
                return table[name]
        if graph is not None:
            graph.facts.read(self, name, MISSING)
        raise habits.missing(self, type(self).__name__, name, habits.MODULE)

    def __delattr__(self, name: str) -> None:
        for table in self._tables():
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)
        announce()


def _rename(name: str, value: Buffer | Attributes) -> None:
    """Name a newly registered slot, or lengthen the names of a module's slots.

    Reports so show the dotted name below the outermost owner; what has an owner keeps its names.
    """
    if value.__dict__.get("_owned"):
        return
    value.__dict__["_owned"] = True
    if isinstance(value, Buffer):
        value.name = name
        return
    for dotted, slot in value._named_slots("_parameters", "_buffers"):
        slot.name = f"{name}.{dotted}"
