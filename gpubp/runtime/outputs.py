"""Room for what programs return: in the host's memory, or on the device where the data are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend
from gpubp.backends.device_array import DeviceArray, as_device_array
from gpubp.core import Shape
from gpubp.runtime.totals import NO_COUNT


class Results:
    """One output of the steps of a run.

    Args:
        backend: that will run them.
        steps: rows, one a step.
        shape, dtype: of a row.
        device: on the device, as an array of the library that the user works with there.
        single: there is one step, and its row alone is the result.

    Attributes:
        steps: so many.
    """

    def __init__(
        self,
        backend: Backend,
        steps: int,
        shape: Shape,
        dtype: np.dtype[Any],
        device: bool,
        single: bool = False,
    ) -> None:
        self.steps = steps
        self._pick_row = single and not device
        if device:
            self._array = backend.empty(shape if single else (steps, *shape), dtype)
            room = as_device_array(self._array, "the result")
            self._room: Any = room.as_shape((steps, *shape))
        else:
            self._array = self._room = np.empty((steps, *shape), dtype)

    def rows(self, start: int, stop: int) -> Any:
        """Where some of the steps put their rows, as a `Feed` takes it."""
        if isinstance(self._room, DeviceArray):
            return self._room.rows(start, stop)
        return self._room[start:stop]

    @property
    def value(self) -> Any:
        """The result; its numbers are there when the run has returned, or are on their way on the
        device, in the order of the user's stream."""
        return self._array[0] if self._pick_row else self._array


@dataclass
class Room:
    """What a run returns: the loss of each batch, and the sums and counts of its terms.

    Attributes:
        results: the program's outputs: losses; for each term its sum, and its count if it has one.
        sizes: of the batches.
        counts: for each term, whether it has a count.
        done: how many batches have returned theirs, as far as is known.
    """

    results: Sequence[Results]
    sizes: NDArray[np.int64]
    counts: Sequence[bool]
    done: int = 0

    def rows(self, start: int, stop: int) -> list[Any]:
        """Where some of the batches put theirs, as a `Feed` takes it."""
        return [result.rows(start, stop) for result in self.results]

    @property
    def steps(self) -> int:
        """How many batches it has room for."""
        return len(self.sizes)

    @property
    def losses(self) -> Any:
        """One number a batch, as the user gets them."""
        return self.results[0].value

    @property
    def losses_so_far(self) -> Any:
        """One number for each batch that is done."""
        return self.losses if self.done == self.steps else self.losses[: self.done]

    def totals(self) -> NDArray[np.float64]:
        """Sums and counts of all batches; see `Step.totals`."""
        columns = [_on_host(result.value) for result in self.results]
        if not self.counts:
            sizes = self.sizes.astype(np.float64)
            return np.stack([columns[0] * sizes, sizes], axis=-1)[:, np.newaxis]
        found = np.full((len(self.sizes), len(self.counts), 2), NO_COUNT)
        rest = iter(columns[1:])
        for i, has_count in enumerate(self.counts):
            found[:, i, 0] = next(rest)
            if has_count:
                found[:, i, 1] = next(rest)
        return found


def _on_host(values: Any) -> NDArray[np.float64]:
    held = values if isinstance(values, np.ndarray) else values.get()
    return np.asarray(held, np.float64)
