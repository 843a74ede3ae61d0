"""Arguments of compiled functions that are values, not arrays; and those given by name.

Comes in: how a function is called. Goes out: the arrays among the arguments, positional ones and
then one dict of those by name, and a function of them alone, which has the rest fixed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from gpubp.arguments import shown
from gpubp.core.keys import exact
from gpubp.errors import ArgumentError


class Split(NamedTuple):
    """A call, taken apart.

    Attributes:
        key: says what is fixed: values, their types and places.
        arrays: what is left: positional ones, and a dict of those by name if there are any.
        positions: where the positional ones stand among all positional arguments.
        fixed: (position, value).
        named: (name, value) of what is fixed by name.
        by_name: there is a dict.
    """

    key: Any
    arrays: tuple[Any, ...]
    positions: tuple[int, ...]
    fixed: tuple[tuple[int, Any], ...]
    named: tuple[tuple[str, Any], ...]
    by_name: bool

    def applied(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """The function of `arrays` alone."""
        return partial(_called, fn, self.positions, self.fixed, dict(self.named), self.by_name)


def _called(
    fn: Callable[..., Any],
    positions: tuple[int, ...],
    fixed: tuple[tuple[int, Any], ...],
    named: dict[str, Any],
    by_name: bool,
    *arrays: Any,
) -> Any:
    more = arrays[-1] if by_name else {}
    placed = {**dict(fixed), **dict(zip(positions, arrays))}
    return fn(*[placed[i] for i in range(len(placed))], **named, **more)


class Static(NamedTuple):
    """Which arguments are static.

    Attributes:
        numbers: positions; negative ones count from the end of a call's positional arguments.
        names: names.
    """

    numbers: tuple[int, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(fn: Callable[..., Any], numbers: Any, names: Any) -> Static:
        """From what `gp.compile` is given, checked against the function's signature."""
        at = numbers if isinstance(numbers, tuple) else (numbers,)
        by = names if isinstance(names, tuple) else (names,)
        for value in at:
            if isinstance(value, bool) or not isinstance(value, int):
                raise ArgumentError(f"static_argnums: {shown(value)} is no position.")
        for value in by:
            if not isinstance(value, str):
                raise ArgumentError(f"static_argnames: {shown(value)} is no name.")
        if not at and not by:
            return NOTHING_STATIC
        try:
            parameters = list(inspect.signature(fn).parameters.values())
        except (TypeError, ValueError):  # a function of C's
            return Static(at, by)
        kinds = [p.kind for p in parameters]
        places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, _EITHER)]
        known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, _EITHER)]
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            for i in at:
                if not -len(places) <= i < len(places):
                    raise ArgumentError(
                        f"static_argnums {i} is out of range: the function has {len(places)} "
                        "positional arguments."
                    )
            at = tuple([i % len(places) for i in at])
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            for name in by:
                if name not in known:
                    raise ArgumentError(
                        f"static_argnames: the function has no argument {name!r}; it has "
                        f"{', '.join(known)}."
                    )
        found = tuple([places[i] for i in at if 0 <= i < len(places) and places[i] in known])
        more = tuple([places.index(name) for name in by if name in places])
        return Static(tuple(dict.fromkeys(at + more)), tuple(dict.fromkeys(by + found)))

    @property
    def any(self) -> bool:
        """There is one."""
        return bool(self.numbers or self.names)

    def split(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
        """A call, taken apart. Raises ArgumentError for a static value that is not hashable."""
        at = {i if i >= 0 else len(args) + i for i in self.numbers}
        fixed = tuple([(i, a) for i, a in enumerate(args) if i in at])
        named = tuple([(k, kwargs[k]) for k in sorted(kwargs) if k in self.names])
        arrays = [a for i, a in enumerate(args) if i not in at]
        more = {k: kwargs[k] for k in sorted(kwargs) if k not in self.names}
        positions = tuple([i for i in range(len(args)) if i not in at])
        key = (positions, _key(name, fixed), _key(name, named), bool(more))
        given = (*arrays, more) if more else tuple(arrays)
        return Split(key, given, positions, fixed, named, bool(more))


def _key(fn: str, values: tuple[tuple[Any, Any], ...]) -> Any:
    """Equal for equal values of one type: 1, 1.0 and True are three, in tuples too."""
    for place, value in values:
        try:
            hash(value)
        except TypeError as err:
            raise ArgumentError(
                f"{fn}: the static argument {place} is a "
                f"{type(value).__name__}, which is not hashable: programs are kept by value. Give "
                "a tuple instead of a list, or make it an array that is not static."
            ) from err
    return tuple([(place, exact(value)) for place, value in values])


_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD
NOTHING_STATIC = Static((), ())
