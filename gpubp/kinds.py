"""What a value must be to be of a kind that annotations name; see `arguments`.

Each function takes a value and returns it, or what stands for it; TypeError if it is of another
kind.
"""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Kind = Callable[[Any], Any]


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


def flag(value: Any) -> bool:
    """True or False, or what counts as that; TypeError if it is neither."""
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


def instance(kind: type, value: Any) -> Any:
    """An object of a class."""
    if not isinstance(value, kind):
        raise TypeError
    return value


def _mapping(_: Kind | None, value: Any) -> Any:
    return instance(Mapping, value)


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


SIMPLE: dict[str, Kind] = {
    "int": whole,
    "float": number,
    "bool": flag,
    "str": _text,
    "None": _nothing,
    "ArrayLike": _array_like,
    "Path_": _path,
    "os.PathLike[str]": _path,
}
CONTAINERS: dict[str, Callable[[Kind | None, Any], Any]] = {
    "Callable": _function,
    "Mapping": _mapping,
    "Sequence": _sequence,
    "Iterable": _iterable,
}
