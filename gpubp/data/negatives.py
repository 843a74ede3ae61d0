"""Pairs that did not occur, to tell from those that did: what recommenders learn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked
from gpubp.core.interop import as_numpy
from gpubp.errors import DataError, IndexRangeError, ShapeError
from gpubp.ops.random import checked_seed

_TRIES = 20  # draws of one pair before its row is looked at as a whole


class NegativeSampler:
    """Draws items that a user has no pair with.

    Args:
        users, items: (N,) whole numbers, the pairs that did occur.
        n_items: the items there are, from 0.
        power: items are drawn in proportion to their count to this power: 0 is uniform, 0.75 is
            the choice of Mikolov et al., "Distributed representations of words" (2013).
        seed: of the draws; None for different ones each time.

    Raises:
        ShapeError: `users` and `items` have no common length. IndexRangeError: an item that is not
        below `n_items`, or an index below 0. DataError: a user has every item.
    """

    @checked
    def __init__(
        self,
        users: ArrayLike,
        items: ArrayLike,
        n_items: int,
        power: float = 0.0,
        seed: int | None = 0,
    ) -> None:
        left, right = as_numpy(users, "users"), as_numpy(items, "items")
        _check_pairs(left, right, n_items)
        self.n_items = n_items
        self._seen = np.unique(left.astype(np.int64) * n_items + right)  # sorted keys
        full = np.bincount(self._seen // n_items) >= n_items
        if full.any():
            raise DataError(
                f"NegativeSampler: user {int(np.argmax(full))} has all of {n_items} items."
            )
        counts = np.bincount(right, minlength=n_items).astype(np.float64)
        weights = counts**power if power else np.ones(n_items)
        self._weights = weights
        self._sums = np.cumsum(weights) / weights.sum()
        self._rng = np.random.default_rng(seed if seed is None else checked_seed(seed))

    def sample(self, users: ArrayLike, count: int = 1) -> NDArray[np.int64]:
        """Items for each user that the user has no pair with.

        Args:
            users: (N,) indices; users without pairs are allowed.
            count: items a user, drawn independently.

        Returns:
            (N, count) items.

        Raises:
            ShapeError: `users` is no row of indices.
            IndexRangeError: one is below 0.
            DataError: `count` is below 1.
        """
        rows = as_numpy(users, "users")
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise ShapeError(f"users is {rows.dtype} {rows.shape}, expected a row of indices.")
        if count < 1:
            raise DataError(f"count is {count}, expected at least 1.")
        if len(rows) and rows.min() < 0:
            raise IndexRangeError(f"users from {rows.min()}, expected indices from 0.")
        starts = np.repeat(rows.astype(np.int64) * self.n_items, count)
        found = self._drawn(len(starts))
        for _ in range(_TRIES):
            again = np.flatnonzero(self.seen(starts + found))
            if not len(again):
                return found.reshape(-1, count)
            found[again] = self._drawn(len(again))
        for i in np.flatnonzero(self.seen(starts + found)):
            found[i] = self._among_the_rest(int(starts[i]))
        return found.reshape(-1, count)

    def seen(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the pairs occurred; a key is user * n_items + item."""
        if not len(self._seen):
            return np.zeros(len(keys), bool)
        places = np.minimum(np.searchsorted(self._seen, keys), len(self._seen) - 1)
        found: NDArray[np.bool_] = self._seen[places] == keys
        return found

    def _drawn(self, count: int) -> NDArray[np.int64]:
        places = np.searchsorted(self._sums, self._rng.random(count), side="right")
        return np.minimum(places, self.n_items - 1)

    def _among_the_rest(self, start: int) -> int:
        """One item of a user who has nearly all of them, or all that are likely."""
        rest = np.flatnonzero(~self.seen(start + np.arange(self.n_items)))
        weights = self._weights[rest]
        chances = weights / weights.sum() if weights.any() else None
        return int(self._rng.choice(rest, p=chances))


def _check_pairs(users: NDArray[np.int64], items: NDArray[np.int64], n_items: int) -> None:
    if users.ndim != 1 or users.shape != items.shape:
        raise ShapeError(
            f"users {users.shape} and items {items.shape}: expected two rows of one length."
        )
    for name, array in (("users", users), ("items", items)):
        if array.dtype.kind not in "iu":
            raise ShapeError(f"{name} is {array.dtype}, expected whole numbers.")
    if not len(users):
        raise DataError("NegativeSampler: there are no pairs.")
    if items.max() >= n_items or min(users.min(), items.min()) < 0:
        raise IndexRangeError(
            f"NegativeSampler: items from {items.min()} to {items.max()}, users from {users.min()};"
            f" expected items from 0 to {n_items - 1}, and users from 0."
        )
