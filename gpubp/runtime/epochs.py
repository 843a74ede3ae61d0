"""One call of `Step.run`: epochs of resident data, in given orders, as batches of its programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.batches import Batches, epoch_batches
from gpubp.runtime.outputs import OutputBuffers
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.settings import require_count
from gpubp.runtime.step_programs import StepPrograms


class Epochs:
    """The epochs of a run.

    Args:
        programs: of the step.
        arrays: the data, checked.
        orders: of their samples, one for each epoch.
        batch_size, drop_last, flush: as of `Step.run`.

    Raises:
        DataError: a batch size below 1, or above the number of samples.
    """

    def __init__(
        self,
        programs: StepPrograms,
        arrays: Arguments,
        orders: Sequence[NDArray[np.int64]],
        batch_size: int,
        drop_last: bool,
        flush: bool,
    ) -> None:
        self._programs, self._arrays, self._orders = programs, arrays, orders
        self._size, self._batch_size, self._drop_last = len(orders[0]), batch_size, drop_last
        self._flush = flush
        require_count("batch_size", batch_size)
        if batch_size > self._size:
            raise DataError(f"batch_size is {batch_size}, but there are only {self._size} samples.")
        self._whole = self._batches(len(orders))

    def output_buffers(self) -> OutputBuffers:
        """Room for what all of them return."""
        return self._programs.output_buffers(self._arrays, self._whole)

    def run(
        self,
        buffers: OutputBuffers,
        checked: bool,
        progress: Callable[[int, int], None] | None,
        pauses: Pauses,
    ) -> None:
        """Run them; see `Step.run`."""
        if progress is None:
            order = np.concatenate(self._orders)
            self._programs.execute(
                self._arrays, order, self._whole, buffers, checked=checked, pauses=pauses
            )
            return
        for i, order in enumerate(self._orders):
            first, known = buffers.done, checked or i > 0
            self._programs.execute(
                self._arrays, order, self._batches(1), buffers, first, checked=known, pauses=pauses
            )
            with pauses.open():
                progress(i + 1, len(self._orders))

    def _batches(self, count: int) -> Batches:
        """The batches of so many epochs."""
        size, each = self._size, self._batch_size
        steps = size // each if self._drop_last else -(-size // each)
        final = self._programs.updates(steps, count, self._flush)
        return epoch_batches(size, each, self._drop_last, count, final)
