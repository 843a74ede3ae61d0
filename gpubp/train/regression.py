"""Metrics of numbers, by scikit-learn's definitions; several outputs are averaged alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError
from gpubp.train.reading import AS_GIVEN, Floats, Reading


def _pair(
    name: str, y: NDArray[Any], outputs: NDArray[Any], how: Reading
) -> tuple[Floats, Floats, Floats | None]:
    """Targets and outputs as float64, (samples, outputs), and the samples' weights."""
    if y.size != outputs.size or len(y) != len(outputs):
        raise DataError(f"{name} needs one target an output; got {y.shape} and {outputs.shape}.")
    a, b = (v.reshape(len(y), -1).astype(np.float64) for v in (y, outputs))
    return a, b, None if how.weights is None else np.asarray(how.weights, np.float64)


def _errors(a: Floats, b: Floats, weights: Floats | None, power: int) -> Floats:
    """The mean of |a - b| or of its square, for each output."""
    if weights is not None and not weights.any():
        return np.full(a.shape[1], math.nan)
    found: Floats = np.average(np.abs(a - b) ** power, axis=0, weights=weights)
    return found


def mse(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5, how: Reading = AS_GIVEN
) -> float:
    """The mean of (target - output)^2."""
    return float(_errors(*_pair("mse", y, outputs, how), 2).mean())


def rmse(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5, how: Reading = AS_GIVEN
) -> float:
    """The root of the mean of (target - output)^2; the mean over the outputs."""
    return float(np.sqrt(_errors(*_pair("rmse", y, outputs, how), 2)).mean())


def mae(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5, how: Reading = AS_GIVEN
) -> float:
    """The mean of |target - output|."""
    return float(_errors(*_pair("mae", y, outputs, how), 1).mean())


def r2(
    y: NDArray[Any], outputs: NDArray[Any], threshold: float = 0.5, how: Reading = AS_GIVEN
) -> float:
    """1 - sum((target - output)^2) / sum((target - mean)^2), the mean over the outputs.

    A constant target gives 1 if it is met exactly, else 0; a single sample NaN, as in scikit-learn.
    """
    a, b, weights = _pair("r2", y, outputs, how)
    rest = _errors(a, b, weights, 2)
    if len(a) < 2 or np.isnan(rest).any():
        return math.nan
    spread = _errors(a, np.average(a, axis=0, weights=weights)[np.newaxis], weights, 2)
    constant = np.where(rest == 0, 1.0, 0.0)
    return float(
        np.mean(np.where(spread > 0, 1 - rest / np.where(spread > 0, spread, 1), constant))
    )
