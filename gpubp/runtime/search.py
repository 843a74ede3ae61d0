"""Steps whose optimiser finds loss and gradient several times: L-BFGS.

The program of such a step finds the loss, what else the function returns, and the gradients; it
updates nothing. Around it the optimiser searches, on the host, batch by batch. What a step returns
is from its first evaluation, so from before the update, as of every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.runtime.arguments import Arguments
from gpubp.runtime.batches import Batches
from gpubp.runtime.nesting import turn
from gpubp.runtime.outputs import OutputBuffers
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.settings import searches
from gpubp.runtime.step_programs import StepPrograms


class SearchPrograms(StepPrograms):
    """The programs of a step with a `SearchOptimizer`, and how a batch is searched."""

    binds = False

    def execute(
        self,
        data: Arguments,
        order: NDArray[np.int64],
        batches: Batches,
        buffers: OutputBuffers,
        first: int = 0,
        finite: bool = True,
        checked: bool = False,
        pauses: Pauses | None = None,
    ) -> None:
        """Run batches, a search each; see `StepPrograms.execute`."""
        for i, (start, size) in enumerate(zip(batches.starts, batches.sizes)):
            rows = order[start : start + size]
            with turn(self.updating):
                self._search(data, rows, buffers, first + i, finite, checked)
            if pauses is not None:
                buffers.done = first + i + 1
                pauses.look()

    def _search(
        self,
        data: Arguments,
        rows: NDArray[np.int64],
        buffers: OutputBuffers,
        row: int,
        finite: bool,
        checked: bool,
    ) -> None:
        """One step on one batch; its results go to a row of `buffers`."""
        optimizer, one = self._update_builder.optimizer, Batches.one(len(rows), True)
        assert searches(optimizer)
        scratch: list[OutputBuffers] = []

        def evaluate() -> tuple[float, Sequence[NDArray[Any]]]:
            again = bool(scratch)
            target, at = (scratch[0], 0) if again else (buffers, row)
            known = checked or again
            StepPrograms.execute(self, data, rows, one, target, at, finite, known)
            if not again:
                scratch.append(self.output_buffers(data, one))
            return target.loss_of(at), self._update_builder.grads

        optimizer.search(evaluate)
