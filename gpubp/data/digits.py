"""The bundled hand-written digits (see README.md beside this file for their source and licence)."""

from __future__ import annotations

import io
import math
from importlib import resources
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked
from gpubp.core.interop import as_numpy
from gpubp.data.checks import check_equal_lengths, check_not_empty
from gpubp.errors import DataError
from gpubp.ops.random import checked_seed

Pair = tuple[NDArray[np.float32], NDArray[np.int64]]
Split = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


@overload
def load_digits(split: Literal[False] = False) -> Pair: ...
@overload
def load_digits(split: Literal[True]) -> Split: ...
@checked
def load_digits(split: bool = False) -> Pair | Split:
    """Load 1797 images of hand-written digits, 8 x 8 pixels each.

    Args:
        split: return X_train, X_test, y_train, y_test (1437 and 360 images; always the same ones).

    Returns:
        X float32 of shape (1797, 64) in [0, 1], and y int64 of shape (1797,) with digits 0 to 9.
    """
    packed = resources.files("gpubp.data").joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(packed)) as archive:
        X = archive["images"].astype(np.float32) / np.float32(16)
        y = archive["labels"].astype(np.int64)
    return train_test_split(X, y) if split else (X, y)


@checked
def train_test_split(
    X: ArrayLike, y: ArrayLike, test_size: float = 0.2, seed: int | None = 0
) -> Split:
    """Split samples at random into a part to train on and a part held out.

    Args:
        X: samples along the first axis.
        y: one target a sample.
        test_size: the share held out, in (0, 1); rounded up to whole samples.
        seed: of the random choice; None for a different one each time.

    Returns:
        X_train, X_test, y_train, y_test, as copies.

    Raises:
        DataError: lengths differ, `test_size` is out of range, or a part would be empty.
    """
    X, y = as_numpy(X, "X"), as_numpy(y, "y")
    for array, name in ((X, "X"), (y, "y")):
        check_not_empty(array, name)
    check_equal_lengths(X, y)
    if not 0.0 < test_size < 1.0:
        raise DataError(f"test_size is {test_size}, expected a share in (0, 1).")
    held_out = math.ceil(test_size * len(X))
    if not 0 < held_out < len(X):
        raise DataError(f"{len(X)} samples cannot be split with test_size={test_size}.")
    order = np.random.default_rng(seed if seed is None else checked_seed(seed)).permutation(len(X))
    test, train = order[:held_out], order[held_out:]
    return X[train], X[test], y[train], y[test]
