"""Arguments of the kinds that a signature says: numbers, whole numbers, texts, functions, objects.

`@checked` reads a function's annotations, once, when it is first called. Before each call it raises
ArgumentError where an argument is of another kind, so that what follows in the function can compare
and compute; ranges are its own matter. NumPy's whole numbers and scalars become Python's. It is for
constructors and what is called now and then, not for ops.

What an annotation means: `int` is a whole number, `float` any real number, `bool` True, False or
None, `str` a text, `Callable` what can be called; `Sequence[...]`, `Iterable[...]`, `Mapping[...]`
are what is named so, and items of a sequence are looked at if they are numbers or texts; a class is
itself. Everything else, `Any` above all, is not looked at.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import operator
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from gpubp.errors import ArgumentError, DataError, GpubpError, IndexRangeError

F = TypeVar("F", bound=Callable[..., Any])
# A kind takes a value and returns it, or what stands for it; TypeError if it is of another kind.
Kind = Callable[[Any], Any]


def checked(fn: F) -> F:
    """Check the kinds of arguments by the annotations of `fn`.

    Raises:
        ArgumentError: (from calls) an argument of another kind; says which, and what was expected.
    """

    @functools.cache
    def plan() -> tuple[inspect.Signature, dict[str, tuple[str, Kind]]]:
        signature = inspect.signature(fn)
        kinds = {}
        for name, parameter in signature.parameters.items():
            kind = _kind_of(parameter.annotation, fn)
            if kind is not None and parameter.kind is not parameter.VAR_POSITIONAL:
                kinds[name] = (parameter.annotation, kind)
        return signature, kinds

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        signature, kinds = plan()
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return fn(*args, **kwargs)  # raises Python's own error, in its own words
        for name, (text, kind) in kinds.items():
            if name in bound.arguments:
                value = bound.arguments[name]
                try:
                    bound.arguments[name] = kind(value)
                except (TypeError, ValueError, OverflowError) as err:
                    raise ArgumentError(_message(fn, name, value, text)) from err
        return fn(*bound.args, **bound.kwargs)

    return typing.cast("F", call)


def _message(fn: Callable[..., Any], name: str, value: Any, text: str) -> str:
    owner = fn.__qualname__.removesuffix(".__init__")
    return f"{owner}: {name} is {shown(value)}, expected {_in_words(text)}."


def shown(value: Any) -> str:
    """A value for an error: short, with its type where that says more."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype}{list(value.shape)}"
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        text = repr(value)
        return text if len(text) < 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "str": "a text",
    "None": "None",
    "ArrayLike": "an array",
    "Path_": "a path",
    "os.PathLike[str]": "a path",
}


def _in_words(text: str) -> str:
    def word(part: str) -> str:
        head, _, rest = part.partition("[")
        if head == "Callable":
            return "a function"
        if head in ("Sequence", "Iterable") and rest:
            return f"a sequence of {_WORDS.get(rest[:-1], rest[:-1]).removeprefix('a ')}s"
        return _WORDS.get(part) or f"{'an' if part[0] in 'AEIO' else 'a'} {part}"

    words = [word(part) for part in _parts(text)]
    return " or ".join(dict.fromkeys(words))


def _parts(text: str) -> list[str]:
    """The members of a union, as they are written."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _kind_of(text: Any, fn: Callable[..., Any]) -> Kind | None:
    """The kind of an annotation; None if it is not looked at."""
    if not isinstance(text, str):
        return None
    parts = _parts(text)
    if "os.PathLike[str]" in parts:
        parts.remove("str")
    kinds = [_part_kind(part, fn) for part in parts]
    if any(kind is None for kind in kinds):
        return None
    return _one_of([kind for kind in kinds if kind is not None])


def _one_of(kinds: list[Kind]) -> Kind:
    def accept(value: Any) -> Any:
        for kind in kinds[:-1]:
            try:
                return kind(value)
            except (TypeError, ValueError, OverflowError):
                continue
        return kinds[-1](value)

    return accept


def _part_kind(part: str, fn: Callable[..., Any]) -> Kind | None:
    if part in _SIMPLE:
        return _SIMPLE[part]
    head, _, rest = part.partition("[")
    if head in _CONTAINERS:
        inner = _SIMPLE.get(rest[:-1]) if head == "Sequence" else None
        return functools.partial(_CONTAINERS[head], inner)
    found = fn.__globals__.get(part) if part.isidentifier() else None
    if isinstance(found, type) and found is not Any and not getattr(found, "_is_protocol", False):
        return functools.partial(_instance, found)
    return None


@contextmanager
def reading(what: str) -> Iterator[None]:
    """While open, nests of dicts, lists and numbers from elsewhere are read.

    Raises:
        DataError: something is missing, or of another kind; gpubp's own errors pass.
    """
    try:
        yield
    except GpubpError:
        raise
    except KeyError as err:
        raise DataError(f"{what} has no {err}. Pass what state_dict() or its like gave.") from err
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as err:
        raise DataError(
            f"{what} cannot be read: {err}. Pass what state_dict() or its like gave."
        ) from err


def at(owner: object, items: Sequence[Any], index: Any) -> Any:
    """`items[index]`, for an owner whose items they are.

    Raises:
        IndexRangeError: there is none.
        ArgumentError: neither a whole number nor a slice.
    """
    try:
        return items[index]
    except IndexError:
        raise IndexRangeError(
            f"{type(owner).__name__}: index {index} is out of range: there are {len(items)}."
        ) from None
    except TypeError:
        raise ArgumentError(
            f"{type(owner).__name__}: index is {shown(index)}, expected a whole number or a slice."
        ) from None


def whole(value: Any) -> int:
    """A whole number; TypeError if it is none."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return operator.index(value)


def number(value: Any) -> Any:
    """A real number, Python's as it is; TypeError if it is none."""
    if isinstance(value, (int, float)) and not isinstance(value, np.generic):
        float(value)  # an int may be beyond all floats
        return value
    scalar = isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf"
    if scalar or isinstance(value, (numbers.Real, np.bool_)):
        return float(value)
    raise TypeError


def is_number(value: Any) -> bool:
    """A real number of Python's or NumPy's."""
    return isinstance(value, (int, float, np.integer, np.floating, np.bool_))


def truth(owner: str, name: str, value: Any) -> bool:
    """True or False; ArgumentError for what is neither: an array, say."""
    try:
        return _flag(value)
    except TypeError:
        raise ArgumentError(f"{owner}: {name} is {shown(value)}, expected True or False.") from None


def _flag(value: Any) -> bool:
    if value is None or isinstance(value, (bool, np.bool_, int)):
        return bool(value)
    raise TypeError


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _nothing(value: Any) -> None:
    if value is not None:
        raise TypeError


def _array_like(value: Any) -> Any:
    if value is None or isinstance(value, (str, bytes, dict, set)) or callable(value):
        raise TypeError
    return value


def _path(value: Any) -> Any:
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:
        raise TypeError
    return value


def _function(_: Kind | None, value: Any) -> Any:
    if not callable(value):
        raise TypeError
    return value


def _instance(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _mapping(_: Kind | None, value: Any) -> Any:
    return _instance(Mapping, value)


def _sequence(item: Kind | None, value: Any) -> Any:
    known = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if not known and not (isinstance(value, np.ndarray) and value.ndim):
        raise TypeError
    return value if item is None else [*map(item, value)]


def _iterable(_: Kind | None, value: Any) -> Any:
    if not is_iterable(value):
        raise TypeError
    return value


def is_iterable(value: Any) -> bool:
    """One can go through its items: not those of a text, nor of a 0-d array."""
    scalar = isinstance(value, np.ndarray) and not value.ndim
    return isinstance(value, Iterable) and not scalar and not isinstance(value, (str, bytes))


_SIMPLE: dict[str, Kind] = {
    "int": whole,
    "float": number,
    "bool": _flag,
    "str": _text,
    "None": _nothing,
    "ArrayLike": _array_like,
    "Path_": _path,
    "os.PathLike[str]": _path,
}
_CONTAINERS: dict[str, Callable[[Kind | None, Any], Any]] = {
    "Callable": _function,
    "Mapping": _mapping,
    "Sequence": _sequence,
    "Iterable": _iterable,
}
