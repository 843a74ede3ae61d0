"""Standardisation: columns, or channels of images, to mean 0 and standard deviation 1, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked, reading
from gpubp.core.interop import host_array
from gpubp.errors import DataError, ShapeError

PART = 1 << 10  # images that are looked at together
PART_ROWS = 1 << 16  # rows of numbers that are looked at together
_NOISE = 1e-15  # a deviation of so little of the mean is one of rounding


class Standardizer:
    """(x - mean) / std for each column, or channel of images: the second axis; made by `fit`.

    Args:
        mean, std: one number a column or channel; std above 0.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike) -> None:
        self.mean = np.asarray(host_array(mean, "mean"), np.float64)
        self.std = np.asarray(host_array(std, "std"), np.float64)
        good = self.mean.ndim == 1 and self.mean.shape == self.std.shape
        if not good or not np.isfinite(self.mean).all() or not (self.std > 0).all():
            raise DataError(
                f"a Standardizer needs one mean and one std above 0 for each column; got shapes "
                f"{self.mean.shape} and {self.std.shape}."
            )

    @classmethod
    @checked
    def fit(
        cls, X: ArrayLike, columns: ArrayLike | None = None, rows: ArrayLike | None = None
    ) -> Standardizer:
        """Measure the columns of X, shape (samples, columns), or channels (samples, channels, ...).

        Args:
            X: finite numbers. A constant column is only centred.
            columns: bool, one a column: which to standardise; the others stay as they are.
            rows: the indices of those to measure; default all. X may be mapped from a file.
        """
        given: Any = X
        images = isinstance(given, np.ndarray) and given.ndim > 2  # widened in parts
        array: NDArray[Any] = given if images else host_array(given, "X")
        if array.ndim < 2 or not array.size:
            raise ShapeError(
                f"X has shape {array.shape}, expected (samples, columns), or images (samples, "
                "channels, height, width)."
            )
        chosen_rows = None if rows is None else np.asarray(rows, np.int64)
        if array.ndim == 2:
            mean, std = _measured(array, chosen_rows)
        else:
            mean, std = _of_channels(array if chosen_rows is None else array[chosen_rows])
        if columns is not None:
            chosen = np.asarray(columns, bool)
            mean, std = np.where(chosen, mean, 0.0), np.where(chosen, std, 1.0)
        return cls(mean, std)

    @checked
    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Standardise; float64. Raises ShapeError for another number of columns or channels."""
        array = self._checked(X)
        return (array - _along(self.mean, array)) / _along(self.std, array)

    @checked
    def inverse(self, X: ArrayLike) -> NDArray[np.float64]:
        """Undo `transform`."""
        array = self._checked(X)
        return array * _along(self.std, array) + _along(self.mean, array)

    def _checked(self, X: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(host_array(X, "X"), np.float64)
        if array.ndim < 2 or array.shape[1] != len(self.mean):
            raise ShapeError(
                f"got data of shape {array.shape}, expected (samples, {len(self.mean)}), or so "
                "many channels of images."
            )
        return array

    def to_dict(self) -> dict[str, list[float]]:
        """As JSON values; exact."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    @reading("the dict of a Standardizer")
    @checked
    def from_dict(cls, values: Mapping[str, Any]) -> Standardizer:
        """From `to_dict`."""
        return cls(values["mean"], values["std"])


def _along(numbers: NDArray[np.float64], array: NDArray[Any]) -> NDArray[np.float64]:
    """One number for each index of the second axis of `array`."""
    return numbers.reshape(-1, *[1] * (array.ndim - 2))


def _of_channels(images: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each channel; in parts, for images are large, and often of bytes."""
    axes = (0, *range(2, images.ndim))
    count = images.size // images.shape[1]

    def parts() -> Iterator[NDArray[np.float64]]:
        for i in range(0, len(images), PART):
            yield np.asarray(host_array(images[i : i + PART], "X"), np.float64)

    zero = np.zeros(images.shape[1])
    mean = sum((part.sum(axis=axes) for part in parts()), zero) / count
    squares = sum((((part - _along(mean, part)) ** 2).sum(axis=axes) for part in parts()), zero)
    std = np.sqrt(squares / count)
    # Rounding leaves a constant channel a tiny deviation, which would blow up noise.
    std[std <= 1e-12 * np.maximum(np.abs(mean), 1e-300)] = 1.0
    return mean, std


def parts_of(
    array: NDArray[Any], rows: NDArray[np.int64] | None = None
) -> Iterator[NDArray[np.float64]]:
    """These rows, or all, in parts, as float64: sums are the same wherever the array is."""
    for i in range(0, len(array) if rows is None else len(rows), PART_ROWS):
        part = array[i : i + PART_ROWS] if rows is None else array[rows[i : i + PART_ROWS]]
        yield np.asarray(part, np.float64)


def _measured(
    array: NDArray[Any], rows: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each column.

    Numbers are measured from the first row and in units of the largest, so that neither a long way
    from 0 (times in nanoseconds) costs digits nor squares of large ones overflow. What varies in
    the last digits only is brought to between -1 and 1, and not blown up.
    """
    count = len(array) if rows is None else len(rows)
    first = np.asarray(array[0 if rows is None else rows[0]], np.float64)
    largest = np.zeros(array.shape[1])
    for part in parts_of(array, rows):
        np.maximum(largest, np.abs(part).max(axis=0), out=largest)
    unit = np.exp2(np.floor(np.log2(np.maximum(largest, 1e-300))))

    def distances() -> Iterator[NDArray[np.float64]]:
        return (part / unit - first / unit for part in parts_of(array, rows))

    zero = np.zeros(array.shape[1])
    away = sum((part.sum(axis=0) for part in distances()), zero) / count
    squares = sum((((part - away) ** 2).sum(axis=0) for part in distances()), zero)
    furthest = zero
    for part in distances():
        furthest = np.maximum(furthest, np.abs(part).max(axis=0))
    mean, std = first / unit + away, np.sqrt(squares / count)
    noise = std <= _NOISE * np.abs(mean)
    std[noise] = np.maximum(1.0 / unit, furthest)[noise]
    return mean * unit, std * unit
