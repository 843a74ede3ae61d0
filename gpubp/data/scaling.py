"""Standardisation: columns brought to mean 0 and standard deviation 1, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked, reading
from gpubp.core.interop import host_array
from gpubp.errors import DataError, ShapeError


class Standardizer:
    """(x - mean) / std, column by column; made by `fit`.

    Args:
        mean, std: one number a column; std above 0.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike) -> None:
        self.mean = np.asarray(mean, np.float64)
        self.std = np.asarray(std, np.float64)
        good = self.mean.ndim == 1 and self.mean.shape == self.std.shape
        if not good or not np.isfinite(self.mean).all() or not (self.std > 0).all():
            raise DataError(
                f"a Standardizer needs one mean and one std above 0 for each column; got shapes "
                f"{self.mean.shape} and {self.std.shape}."
            )

    @classmethod
    @checked
    def fit(cls, X: ArrayLike, columns: ArrayLike | None = None) -> Standardizer:
        """Measure the columns of X, shape (samples, columns).

        Args:
            X: finite numbers. A constant column is only centred.
            columns: bool, one a column: which to standardise; the others stay as they are.
        """
        array = np.asarray(host_array(X, "X"), np.float64)
        if array.ndim != 2 or not len(array):
            raise ShapeError(f"X has shape {array.shape}, expected (samples, columns).")
        mean, std = array.mean(axis=0), array.std(axis=0)
        # Rounding leaves a constant column a tiny deviation, which would blow up noise.
        std[std <= 1e-12 * np.maximum(np.abs(mean), 1e-300)] = 1.0
        if columns is not None:
            chosen = np.asarray(columns, bool)
            mean, std = np.where(chosen, mean, 0.0), np.where(chosen, std, 1.0)
        return cls(mean, std)

    @checked
    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Standardise (samples, columns). Raises ShapeError for another number of columns."""
        return (self._checked(X) - self.mean) / self.std

    @checked
    def inverse(self, X: ArrayLike) -> NDArray[np.float64]:
        """Undo `transform`."""
        return self._checked(X) * self.std + self.mean

    def _checked(self, X: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(host_array(X, "X"), np.float64)
        if array.ndim != 2 or array.shape[1] != len(self.mean):
            raise ShapeError(
                f"got data of shape {array.shape}, expected (samples, {len(self.mean)})."
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
