"""Room for what programs return: in the host's memory, or on the device where the data are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend
from gpubp.backends.device_array import DeviceArray, as_device_array
from gpubp.core import Shape, tree
from gpubp.core.interop import copied_to_host
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
            rows = as_device_array(self._array, "the result")
            self._rows: Any = rows.as_shape((steps, *shape))
        else:
            self._array = self._rows = np.empty((steps, *shape), dtype)

    def rows(self, start: int, stop: int) -> Any:
        """Where some of the steps put their rows, as a `Feed` takes it."""
        if isinstance(self._rows, DeviceArray):
            return self._rows.rows(start, stop)
        return self._rows[start:stop]

    @property
    def value(self) -> Any:
        """The result; its numbers are there when the run has returned, or are on their way on the
        device, in the order of the user's stream."""
        return self._array[0] if self._pick_row else self._array


class Returned(NamedTuple):
    """What the program of a step returns, in order: what its function does, then the loss's terms.

    Attributes:
        structure: of what the function returned, for `tree.unflatten`; None for the loss alone.
        leaves: how many arrays that is; the first is the loss.
        counts: for each term of the loss, whether it has a count; each has a sum.
    """

    structure: Any
    leaves: int
    counts: tuple[bool, ...]

    def of(self, leaves: Sequence[Any]) -> Any:
        """The loss, or the structure with these leaves in it."""
        if self.structure is None:
            return leaves[0]
        return tree.unflatten(self.structure, list(leaves[: self.leaves]))


@dataclass
class OutputBuffers:
    """What a run returns: the loss of each batch, what else its function returned, and the sums and
    counts of the loss's terms.

    Attributes:
        results: the program's outputs, as `returned` says.
        sizes: of the batches.
        returned: what they are.
        done: how many batches have returned theirs, as far as is known.
    """

    results: Sequence[Results]
    sizes: NDArray[np.int64]
    returned: Returned
    done: int = 0

    def rows(self, start: int, stop: int) -> list[Any]:
        """Where some of the batches put theirs, as a `Feed` takes it."""
        return [result.rows(start, stop) for result in self.results]

    @property
    def steps(self) -> int:
        """How many batches it has room for."""
        return len(self.sizes)

    def begun_of(self, epochs: int) -> int:
        """How many of a run's epochs were begun."""
        return -(-self.done // (self.steps // epochs))

    @property
    def losses(self) -> Any:
        """One number a batch, as the user gets them."""
        return self.results[0].value

    def loss_of(self, batch: int) -> float:
        """The loss of one batch that has returned it."""
        held = self.losses
        found: Any = held if isinstance(held, (np.ndarray, np.generic)) else copied_to_host(held)
        return float(found if found.ndim == 0 else found[batch])

    @property
    def losses_so_far(self) -> Any:
        """One number for each batch that is done."""
        return self.losses if self.done == self.steps else self.losses[: self.done]

    @property
    def value(self) -> Any:
        """What the function returned in each step; the losses, if nothing else."""
        return self.returned.of([result.value for result in self.results])

    @property
    def value_so_far(self) -> Any:
        """That of the batches that are done."""
        return self.returned.of([result.value[: self.done] for result in self.results])

    def totals(self) -> NDArray[np.float64]:
        """Sums and counts of all batches; see `Step.totals`."""
        terms = [self.results[0], *self.results[self.returned.leaves :]]
        columns, counts = [_on_host(result.value) for result in terms], self.returned.counts
        if not counts:
            sizes = self.sizes.astype(np.float64)
            return np.stack([columns[0] * sizes, sizes], axis=-1)[:, np.newaxis]
        found = np.full((len(self.sizes), len(counts), 2), NO_COUNT)
        rest = iter(columns[1:])
        for i, has_count in enumerate(counts):
            found[:, i, 0] = next(rest)
            if has_count:
                found[:, i, 1] = next(rest)
        return found


def _on_host(values: Any) -> NDArray[np.float64]:
    held = values if isinstance(values, np.ndarray) else copied_to_host(values)
    return np.asarray(held, np.float64)
