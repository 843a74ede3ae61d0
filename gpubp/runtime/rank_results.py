"""What the steps of several ranks return, as the whole batch would: losses, sums, counts, numbers.

Comes in: what the program returned for a piece of a batch, one row a piece. Goes out: the rows of a
run's results, alike on every rank.

A row holds, in float64: how many samples; sum and count of each term of the loss (of a mean over
samples: the loss times the samples, and the samples); then the numbers beside the loss. Rows of all
pieces are added up. Float numbers are means over samples, unless the trace knows them as sums;
integers are counts, and add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import ShapeError
from gpubp.runtime.outputs import OutputBuffers, Returned
from gpubp.runtime.program_cache import Ready


class RowMaker:
    """Makes rows of what a program returns.

    Args:
        ready: the program.

    Raises:
        ShapeError: it returns an array beside the loss.
    """

    def __init__(self, ready: Ready) -> None:
        returned: Returned = ready.structure
        self._leaves, self._counts = returned.leaves, returned.counts
        self._has_terms = bool(returned.counts)
        outputs = ready.graph.outputs[: self._leaves]
        for (shape, _), node in zip(ready.program.output_types[1 : self._leaves], outputs[1:]):
            if shape != ():
                raise ShapeError(
                    f"the step's function returns an array of shape {tuple(node.shape)} beside the "
                    "loss; with several ranks, each of which has a part of the batch, it can "
                    "return numbers: take a mean or a sum."
                )
        added = [n.index in ready.graph.sums or n.dtype.kind != "f" for n in outputs[1:]]
        self._added = np.array(added, np.bool_)
        self.width = 1 + 2 * max(1, len(self._counts)) + self._leaves - 1

    def fill(self, row: NDArray[np.float64], outputs: Sequence[Any], samples: int) -> None:
        """Write a row: the outputs of one step, each of shape (1,)."""
        row[0] = samples
        if self._has_terms:
            rest = iter(outputs[self._leaves :])
            for i, has_count in enumerate(self._counts):
                row[1 + 2 * i] = next(rest)[0]
                row[2 + 2 * i] = next(rest)[0] if has_count else np.nan
        else:
            row[1], row[2] = float(outputs[0][0]) * samples, samples
        for i, added in enumerate(self._added):
            value = float(outputs[1 + i][0])
            row[self.width - len(self._added) + i] = value if added else value * samples

    def read(
        self, buffers: OutputBuffers, first: int, sizes: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Rows of what a run's results hold from `first` on, of batches of these sizes."""
        stop = first + len(sizes)
        places, rows = buffers.rows(first, stop), np.zeros((len(sizes), self.width))
        rows[:, 0] = sizes
        rest = iter(places[self._leaves :])
        for i, has_count in enumerate(self._counts):
            rows[:, 1 + 2 * i] = next(rest)
            rows[:, 2 + 2 * i] = next(rest) if has_count else np.nan
        if not self._has_terms:
            rows[:, 1], rows[:, 2] = places[0] * rows[:, 0], sizes
        for i, added in enumerate(self._added):
            factor = 1.0 if added else rows[:, 0]
            rows[:, self.width - len(self._added) + i] = places[1 + i] * factor
        return rows

    def put(self, rows: NDArray[np.float64], buffers: OutputBuffers, first: int) -> None:
        """Put rows of whole batches, from `first` on, to where a run's results are."""
        stop = first + len(rows)
        places = buffers.rows(first, stop)
        terms = rows[:, 1 : self.width - len(self._added)].reshape(len(rows), -1, 2)
        places[0][...] = _losses(terms, self._counts)
        for i, added in enumerate(self._added):
            values = rows[:, self.width - len(self._added) + i]
            places[1 + i][...] = values if added else values / rows[:, 0]
        rest = iter(places[self._leaves :])
        for i, has_count in enumerate(self._counts):
            next(rest)[...] = terms[:, i, 0]
            if has_count:
                next(rest)[...] = terms[:, i, 1]
        buffers.sizes[first:stop] = rows[:, 0]


def _losses(terms: NDArray[np.float64], counts: Sequence[bool]) -> NDArray[np.float64]:
    """(batches,): the loss of each; NaN where a term counts nothing."""
    total = np.zeros(len(terms))
    for i, has_count in enumerate(counts or (True,)):
        sums, numbers = terms[:, i, 0], terms[:, i, 1]
        if has_count:
            safe = np.where(numbers == 0, 1.0, numbers)
            sums = np.where(numbers == 0, np.nan, sums / safe)
        total = total + sums
    return total
