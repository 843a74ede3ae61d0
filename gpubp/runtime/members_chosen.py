"""Which members are meant, which rows are theirs, and in which order."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import shown
from gpubp.core.interop import host_array
from gpubp.errors import DataError

M = TypeVar("M")


def one_member(member: Any, n: int) -> int:
    """A member's number; negative ones count from the end. Raises DataError if there is none."""
    try:
        number = operator.index(member)
    except TypeError:
        number = n
    if isinstance(member, bool) or not -n <= number < n:
        raise DataError(f"there is no member {shown(member)}: members are 0 to {n - 1}.")
    return number % n


def chosen(members: Any, n: int) -> list[int]:
    """Members by number, or a list of them; None: all."""
    if members is None:
        return list(range(n))
    if isinstance(members, (int, np.integer)):
        return [one_member(members, n)]
    return [one_member(member, n) for member in members]


def checked_rows(
    name: str, rows: Sequence[ArrayLike] | None, members: int, samples: int
) -> list[NDArray[np.int64] | None]:
    """For each member the indices of its rows; None: all.

    Raises:
        DataError: not one list for each member, or indices that there are not.
    """
    if rows is None:
        return [None] * members
    if len(rows) != members:
        raise DataError(f"{name} has {len(rows)} entries for {members} members; expected one each.")
    found: list[NDArray[np.int64] | None] = []
    for k, given in enumerate(rows):
        array = host_array(given, f"{name}[{k}]")
        if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
            raise DataError(f"{name}[{k}] must be a non-empty list of indices of samples.")
        if array.min() < 0 or array.max() >= samples:
            raise DataError(
                f"{name}[{k}] holds indices from {array.min()} to {array.max()}; expected 0 to "
                f"{samples - 1}."
            )
        found.append(array.astype(np.int64))
    return found


def of_epoch(members: Sequence[M], orders: Sequence[ArrayLike], epoch: int) -> dict[M, ArrayLike]:
    """The order of each member in one epoch."""
    found: dict[M, ArrayLike] = {}
    for i, order in zip(members, orders, strict=True):
        rows = host_array(order, "orders")
        found[i] = rows[epoch] if rows.ndim == 2 else rows
    return found


def epochs_of(orders: Sequence[ArrayLike], epochs: int) -> int:
    """How many epochs the orders are of; `epochs` for those of one epoch.

    Raises:
        DataError: members would go through different numbers of epochs.
    """
    arrays = [host_array(order, "orders") for order in orders]
    found = {len(order) if order.ndim == 2 else epochs for order in arrays}
    if len(found) > 1:
        raise DataError(
            f"orders are of {min(found)} to {max(found)} epochs; between epochs, for a callback or "
            "schedules, all members must have gone through as many."
        )
    return found.pop()
