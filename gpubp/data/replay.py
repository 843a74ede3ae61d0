"""A replay buffer: what an agent has lived through, to learn from again in another order.

Lin, "Self-improving reactive agents based on reinforcement learning, planning and teaching" (1992).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked
from gpubp.core.interop import as_numpy
from gpubp.data.checks import check_equal_lengths, check_not_empty, check_numbers
from gpubp.errors import DataError, ShapeError
from gpubp.ops.random import checked_seed

Rows = tuple[NDArray[Any], ...]


class ReplayBuffer:
    """The last rows of several arrays, of which batches are drawn at random.

    The first rows say how many arrays there are, and their shapes and dtypes; later ones are made
    of these dtypes. When it is full, the oldest rows are written over.

    Args:
        capacity: how many rows are kept.
        seed: of the draws.

    Raises:
        DataError: the capacity is below 1, or the seed is none.
    """

    @checked
    def __init__(self, capacity: int, seed: int = 0) -> None:
        if capacity < 1:
            raise DataError(f"ReplayBuffer: capacity is {capacity}, expected at least 1.")
        self.capacity = capacity
        self._rng = np.random.default_rng(checked_seed(seed))
        self._arrays: Rows = ()
        self._added = 0

    def __len__(self) -> int:
        """How many rows it holds."""
        return min(self._added, self.capacity)

    def add(self, *arrays: ArrayLike) -> None:
        """Take rows, such as one step of each of N environments.

        Args:
            arrays: (N, ...) each, in the same order whenever it is called.

        Raises:
            DataError: no arrays or other numbers of them, no rows, unequal lengths, or what are no
                real numbers.
            ShapeError: rows of another shape than the first ones.
        """
        given = [as_numpy(a, f"array {i}") for i, a in enumerate(arrays)]
        if not given or (self._arrays and len(given) != len(self._arrays)):
            wanted = len(self._arrays) or "one or more"
            raise DataError(f"ReplayBuffer: got {len(given)} arrays, expected {wanted}.")
        for i, array in enumerate(given):
            check_numbers(array, f"array {i}")
            check_not_empty(array, f"array {i}")
            check_equal_lengths(given[0], array, ("array 0", f"array {i}"))
            if self._arrays and array.shape[1:] != self._arrays[i].shape[1:]:
                raise ShapeError(
                    f"ReplayBuffer: rows of array {i} have the shape {list(array.shape[1:])}, "
                    f"expected {list(self._arrays[i].shape[1:])}, as the first ones."
                )
        if not self._arrays:
            self._arrays = tuple(np.zeros((self.capacity, *a.shape[1:]), a.dtype) for a in given)
        count = len(given[0])
        last = np.arange(max(0, count - self.capacity), count)
        for kept, array in zip(self._arrays, given):
            kept[(self._added + last) % self.capacity] = array[last]
        self._added += count

    @checked
    def sample(self, batch_size: int) -> Rows:
        """Rows drawn at random, each with the same chance, with replacement.

        Args:
            batch_size: how many.

        Returns:
            As many arrays as were added, (batch_size, ...) each, as copies.

        Raises:
            DataError: the buffer is empty, or the size is below 1.
        """
        if batch_size < 1:
            raise DataError(f"ReplayBuffer: batch_size is {batch_size}, expected at least 1.")
        if not self._arrays:
            raise DataError("ReplayBuffer: it is empty; add rows before you sample.")
        rows = self._rng.integers(len(self), size=batch_size)
        return tuple(array[rows] for array in self._arrays)
