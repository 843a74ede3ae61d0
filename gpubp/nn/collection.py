"""Lists and dicts whose modules or parameters belong to the module that holds them.

They hold and name; what is computed with their members is the owner's `forward`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Generic, TypeVar, cast

from gpubp.arguments import at, shown
from gpubp.errors import ArgumentError, unknown_name
from gpubp.kinds import is_iterable
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter

T = TypeVar("T")


class _Collection(Module, Generic[T]):
    """Base: members are attributes of the module, in one of its tables.

    Attributes:
        kind: what members are.
        table: the name of the module's table that holds them.
    """

    kind: type
    table: str

    def _members(self) -> dict[str, T]:
        return cast("dict[str, T]", getattr(self, self.table))

    def _put(self, name: str, member: T) -> None:
        if not isinstance(member, self.kind):
            raise ArgumentError(
                f"{type(self).__name__} takes a {self.kind.__name__}, got {type(member).__name__}."
            )
        if not isinstance(name, str) or not name or "." in name:
            raise ArgumentError(f"a member cannot be named {name!r}: expected a name without dots.")
        self._members().setdefault(name, cast("T", None))
        setattr(self, name, member)

    def __len__(self) -> int:
        return len(self._members())


class _List(_Collection[T]):
    """Members named "0", "1", ..."""

    def __init__(self, members: Iterable[T] = ()) -> None:
        super().__init__()
        self.extend(members)

    def append(self, member: T) -> _List[T]:
        """Add one at the end; returns self."""
        self._put(str(len(self)), member)
        return self

    def extend(self, members: Iterable[T]) -> _List[T]:
        """Add several at the end; returns self."""
        if not is_iterable(members):
            raise ArgumentError(
                f"{type(self).__name__} takes an iterable of members, got {shown(members)}."
            )
        for member in members:
            self.append(member)
        return self

    def insert(self, index: int, member: T) -> None:
        """Add one before position `index`; later ones are renamed."""
        found = list(self)
        found.insert(index, member)
        self._replace(found)

    def pop(self, index: int = -1) -> T:
        """Remove one and return it; later ones are renamed."""
        found: T = at(self, list(self), index)
        del self[index]
        return found

    def _replace(self, members: list[T]) -> None:
        before = dict(self._members())
        self._members().clear()
        try:
            self.extend(members)
        except TypeError:
            self._members().clear()
            self._members().update(before)
            raise

    def __iter__(self) -> Iterator[T]:
        return iter(self._members().values())

    def __getitem__(self, index: int | slice) -> Any:
        found = at(self, list(self), index)
        return type(self)(found) if isinstance(index, slice) else found

    def __setitem__(self, index: int, member: T) -> None:
        members = list(self)
        at(self, members, index)
        members[index] = member
        self._replace(members)

    def __delitem__(self, index: int | slice) -> None:
        members = list(self)
        at(self, members, index)
        del members[index]
        self._replace(members)

    def __iadd__(self, members: Iterable[T]) -> _List[T]:
        return self.extend(members)


class _Dict(_Collection[T]):
    """Members by name, in the order of insertion."""

    def __init__(self, members: Mapping[str, T] | Iterable[tuple[str, T]] = ()) -> None:
        super().__init__()
        self.update(members)

    def update(self, members: Mapping[str, T] | Iterable[tuple[str, T]]) -> None:
        """Add or replace several."""
        for name, member in _pairs(self, members):
            self[name] = member

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._members().keys()

    def values(self) -> Iterable[T]:
        """The members."""
        return self._members().values()

    def items(self) -> Iterable[tuple[str, T]]:
        """(name, member)."""
        return self._members().items()

    def pop(self, name: str) -> T:
        """Remove one and return it. Raises UnknownNameError if there is none of that name."""
        found = self[name]
        del self._members()[name]
        return found

    def clear(self) -> None:
        """Remove all."""
        self._members().clear()

    def __getitem__(self, name: str) -> T:
        if not isinstance(name, str) or name not in self._members():
            raise unknown_name(f"member of {type(self).__name__}", name, self._members())
        return self._members()[name]

    def __setitem__(self, name: str, member: T) -> None:
        if isinstance(name, str) and hasattr(type(self), name):
            raise ArgumentError(
                f"{name!r} is a method of {type(self).__name__}; choose another name."
            )
        self._put(name, member)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def __contains__(self, name: object) -> bool:
        return name in self._members()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members())


def _pairs(owner: object, members: Any) -> Iterable[tuple[str, Any]]:
    try:
        return dict(members).items()
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{type(owner).__name__} takes a mapping or pairs of name and member, got "
            f"{shown(members)}."
        ) from None


class ModuleList(_List[Module]):
    """A list of modules: `for layer in self.layers: x = layer(x)`.

    Raises:
        ArgumentError: a member is not a Module.
    """

    kind, table = Module, "_modules"

    def __repr__(self) -> str:
        """Neighbours that look alike are shown once, as in torch: `(0-5): 6 x Linear(...)`."""
        groups = [(text, len(list(same))) for text, same in groupby(map(repr, self))]
        lines, first = [], 0
        for text, count in groups:
            label = f"({first}): " if count == 1 else f"({first}-{first + count - 1}): {count} x "
            lines.append(f"  {label}" + text.replace("\n", "\n  "))
            first += count
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if lines else super().__repr__()


class ParameterList(_List[Parameter]):
    """A list of parameters.

    Raises:
        ArgumentError: a member is not a Parameter.
    """

    kind, table = Parameter, "_parameters"


class ModuleDict(_Dict[Module]):
    """Modules by name.

    Raises:
        ArgumentError: a member is not a Module.
        ValueError: a name is empty, has a dot, or is that of a method.
    """

    kind, table = Module, "_modules"


class ParameterDict(_Dict[Parameter]):
    """Parameters by name.

    Raises:
        ArgumentError: a member is not a Parameter.
        ValueError: a name is empty, has a dot, or is that of a method.
    """

    kind, table = Parameter, "_parameters"
