"""In which order a run takes the samples: given, as they lie, or drawn from a step's own stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.core.interop import host_array
from gpubp.errors import DataError
from gpubp.ops.random import checked_seed
from gpubp.runtime.settings import require_count


class OrderStream:
    """The random numbers that a step draws its orders from.

    Args:
        seed: where it starts.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(checked_seed(seed))

    @property
    def state(self) -> Mapping[str, Any]:
        """Where the stream stands."""
        return self._rng.bit_generator.state

    @staticmethod
    def standing_at(state: Mapping[str, Any]) -> OrderStream:
        """A stream that goes on from a state."""
        made = OrderStream()
        made._rng.bit_generator.state = state
        return made

    def draw(
        self, samples: int, epochs: int, shuffle: bool, seed: int | None, order: ArrayLike | None
    ) -> Drawn:
        """The orders of a run's epochs; see `Step.run`.

        Raises:
            DataError: `order` is not a list of indices of samples.
        """
        before = self.state if shuffle and seed is None and order is None else None
        rng = self._rng if seed is None else np.random.default_rng(checked_seed(seed))
        return Drawn(_orders(samples, epochs, shuffle, rng, order), samples, self, before)

    def go_back(self, before: Mapping[str, Any], samples: int, epochs: int) -> None:
        """Stand where so many orders have been drawn from an earlier state."""
        self._rng.bit_generator.state = before
        if epochs:
            _orders(samples, epochs, True, self._rng, None)


class Drawn:
    """Orders of a run's epochs.

    Attributes:
        orders: one an epoch.
    """

    def __init__(
        self,
        orders: list[NDArray[np.int64]],
        samples: int,
        stream: OrderStream,
        before: Mapping[str, Any] | None,
    ) -> None:
        self.orders = orders
        self._samples, self._stream, self._before = samples, stream, before

    def keep(self, begun: int) -> None:
        """Let the stream stand behind the orders of so many epochs: the others were not used."""
        if self._before is not None:
            self._stream.go_back(self._before, self._samples, begun)


def _orders(
    samples: int,
    epochs: int,
    shuffle: bool,
    rng: np.random.Generator,
    order: ArrayLike | None,
) -> list[NDArray[np.int64]]:
    """The order of samples in each epoch.

    Raises:
        DataError: `order` is not a list of indices of samples.
    """
    require_count("epochs", epochs)
    if order is not None:
        indices = host_array(order, "order")
        if indices.ndim not in (1, 2) or indices.size == 0 or indices.dtype.kind not in "iu":
            raise DataError(
                "order must be a non-empty integer array: of one epoch, or a row for each."
            )
        if indices.min() < 0 or indices.max() >= samples:
            raise DataError(
                f"order holds indices from {indices.min()} to {indices.max()}; expected 0 to "
                f"{samples - 1}."
            )
        if indices.ndim == 2:
            return list(indices.astype(np.int64, copy=False))
        return [indices.astype(np.int64)] * epochs
    if not shuffle:
        return [np.arange(samples)] * epochs
    return [rng.permutation(samples) for _ in range(epochs)]
