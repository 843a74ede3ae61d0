"""Checks of input data: every error says which array, where in it, and what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments

PART = 1 << 24


def check_not_empty(array: NDArray[Any], name: str) -> None:
    """Raise DataError if `array` has no samples or no elements."""
    if array.ndim == 0 or array.size == 0:
        raise DataError(
            f"{name} is empty: its shape is {array.shape}; expected samples along the first axis."
        )


def check_numbers(array: NDArray[Any], name: str) -> None:
    """Raise DataError unless `array` holds real numbers, or True and False."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has the dtype {array.dtype}; expected real numbers.")


def check_equal_lengths(
    X: NDArray[Any], y: NDArray[Any], names: tuple[str, str] = ("X", "y")
) -> None:
    """Raise DataError unless X and y hold the same number of samples."""
    if len(X) != len(y):
        raise DataError(
            f"{names[0]} has {len(X)} samples and {names[1]} has {len(y)}; expected one target a "
            "sample."
            + " If these are several inputs, pass a tuple of them: a list is one array."
            * (X.ndim > 1 and X.shape[1] == len(y))
        )


def check_samples(given: Arguments) -> None:
    """Raise DataError for an array that is empty, or has not as many samples as the first.

    Whole ones have none.
    """
    first = given.first
    name = given.names[first]
    for array, other, whole in zip(given.arrays, given.names, given.whole):
        if not whole:
            check_not_empty(array, other)
            check_equal_lengths(given.arrays[first], array, (name, other))


def check_finite(array: NDArray[Any], name: str) -> None:
    """Raise DataError at the first NaN or infinity of a float array."""
    if array.dtype.kind != "f":
        return
    first: tuple[int, ...] | None = None
    count = 0
    # In parts: the array may be mapped from a file larger than memory.
    rows = max(1, PART // max(1, array[:1].size)) if array.ndim else 1
    for start in range(0, len(array) if array.ndim else 1, rows):
        wrong = ~np.isfinite(array[start : start + rows] if array.ndim else array)
        if wrong.any():
            count += int(wrong.sum())
            if first is None:
                at = np.argwhere(wrong)[0]
                first = tuple(int(i) + start * (axis == 0) for axis, i in enumerate(at))
    if first is not None:
        raise DataError(
            f"{name} holds {array[first]} at index {first} ({count} such values in all); expected "
            "finite numbers. Drop or impute them first."
        )


def check_labels(y: NDArray[Any], classes: int, name: str = "y") -> None:
    """Raise DataError unless integer labels y are in [0, classes)."""
    wrong = (y < 0) | (y >= classes)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"{name} holds label {y[where]} at index {where}; expected 0 to {classes - 1}, because "
            f"the model has {classes} outputs."
        )


def check_pair(X: NDArray[Any], y: NDArray[Any], names: tuple[str, str] = ("X", "y")) -> None:
    """Raise DataError unless X and y are non-empty, of equal length, and finite."""
    for array, name in zip((X, y), names, strict=True):
        check_not_empty(array, name)
    check_equal_lengths(X, y)
    for array, name in zip((X, y), names, strict=True):
        check_finite(array, name)
