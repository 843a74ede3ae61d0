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
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from gpubp.errors import ArgumentError, DataError, GpubpError, IndexRangeError
from gpubp.kinds import CONTAINERS, SIMPLE, Kind, flag, instance

F = TypeVar("F", bound=Callable[..., Any])


def checked(fn: F) -> F:
    """Check the kinds of arguments by the annotations of `fn`.

    Raises:
        ArgumentError: (from calls) an argument of another kind; says which, and what was expected.
    """

    plan = functools.cache(lambda: _looked_at(fn))

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        places, kinds = plan()
        try:
            given = [a if kind is None else kind(a) for a, kind in zip(args, places)]
            named = {k: kinds[k](v) if k in kinds else v for k, v in kwargs.items()}
        except _OF_ANOTHER_KIND:
            pass
        else:
            return fn(*given, *args[len(given) :], **named)
        _refuse(fn, kinds, args, kwargs)
        return fn(*args, **kwargs)  # raises Python's own error, in its own words

    return typing.cast("F", call)


_OF_ANOTHER_KIND = (TypeError, ValueError, OverflowError)


def _looked_at(fn: Callable[..., Any]) -> tuple[list[Kind | None], dict[str, Kind]]:
    """The kinds of arguments by position, and by name; None: any."""
    all_of_it = inspect.signature(fn).parameters.values()
    single = [p for p in all_of_it if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    kinds = {p.name: _kind_of(p.annotation, fn) for p in single}
    places = [kinds[p.name] for p in single if p.kind is not p.KEYWORD_ONLY]
    return places, {name: kind for name, kind in kinds.items() if kind is not None}


def _refuse(fn: Callable[..., Any], kinds: Mapping[str, Kind], args: Any, kwargs: Any) -> None:
    """Raise ArgumentError for the first argument of the signature that is of another kind; return
    if the function cannot be called like this at all."""
    signature = inspect.signature(fn)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return
    for name, value in given.items():
        try:
            if name in kinds:
                kinds[name](value)
        except _OF_ANOTHER_KIND as err:
            text = signature.parameters[name].annotation
            raise ArgumentError(_message(_owner(fn, given), name, value, text)) from err


def _owner(fn: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """Who is called: a constructor is the class of what it makes, which may have inherited it."""
    if fn.__name__ == "__init__":
        return type(next(iter(given.values()))).__name__
    return fn.__qualname__


def _message(owner: str, name: str, value: Any, text: str) -> str:
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
            members = _WORDS.get(rest[:-1], rest[:-1]).removeprefix("a ").removesuffix("s")
            return f"a sequence of {members}s"
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
    if part in SIMPLE:
        return SIMPLE[part]
    head, _, rest = part.partition("[")
    if head in CONTAINERS:
        inner = SIMPLE.get(rest[:-1]) if head == "Sequence" else None
        return functools.partial(CONTAINERS[head], inner)
    found = fn.__globals__.get(part) if part.isidentifier() else None
    if isinstance(found, type) and found is not Any and not getattr(found, "_is_protocol", False):
        return functools.partial(instance, found)
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


def is_number(value: Any) -> bool:
    """A real number of Python's or NumPy's."""
    return isinstance(value, (int, float, np.integer, np.floating, np.bool_))


def one_of(owner: str, name: str, value: Any, among: Iterable[str]) -> None:
    """Raise ArgumentError unless `value` is one of these texts."""
    if not (isinstance(value, str) and value in among):
        raise ArgumentError(
            f"{owner}: {name} is {shown(value)}, expected one of {', '.join(among)}."
        )


def truth(owner: str, name: str, value: Any) -> bool:
    """True or False; ArgumentError for what is neither: an array, say."""
    try:
        return flag(value)
    except TypeError:
        raise ArgumentError(f"{owner}: {name} is {shown(value)}, expected True or False.") from None
