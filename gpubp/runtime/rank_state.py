"""What ranks tell each other beside gradients, at each batch: counts, module state, a wish to stop.

Comes in: the slots that a step's programs write beside their parameters, as they stand after a
rank's piece of a batch. Goes out: what they are after the whole batch, alike on every rank.

One vector of float64 a piece, which is added up over all pieces: how many samples; who wants to
stop; the counts of the loss's terms; float state times the samples, so that the sum is an average
by samples; and integers of the first piece alone, in parts of 16 bits, which float64 holds exactly.
Random generators are told nothing: each piece draws from a counter of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpubp.core import Graph
from gpubp.core.store import Slot
from gpubp.ops.random import is_state
from gpubp.runtime.accumulation import Sums

SAMPLES, STOP, FIRST = 0, 1, 2  # places in the vector; what varies begins at FIRST
Vector = NDArray[np.float64]


class RankState:
    """The state that ranks share beside their parameters.

    Args:
        graphs: of the programs that run on pieces.
        ours: slots that the step itself keeps, which are no module's.
        terms: of the loss, with their counts.

    Attributes:
        width: of the vector.
        moves: there is module state, so that ranks must talk at each batch.
    """

    def __init__(
        self, graphs: Sequence[Graph], ours: Sequence[Slot], terms: Sequence[Sums]
    ) -> None:
        known = {id(slot) for slot in ours}
        written = {id(s): s for g in graphs for s, _ in g.writes if id(s) not in known}
        slots = list(written.values())
        self._generators = [s for s in slots if is_state(s)]
        rest = [s for s in slots if not is_state(s)]
        self._floats = [s for s in rest if s.dtype.kind == "f"]
        self._whole = [s for s in rest if s.dtype.kind != "f"]
        self._counts = [term.count for term in terms]
        self.moves = bool(rest)
        self._ends = np.cumsum([FIRST, len(terms), *[s.size for s in self._floats]]).tolist()
        self.width = self._ends[-1] + sum(4 * s.size for s in self._whole)
        self._before = [np.array(0)] * len(rest)
        self._drawn = [0] * len(self._generators)

    @property
    def names(self) -> list[str]:
        """Of the slots, in their order."""
        return [s.name for s in [*self._generators, *self._floats, *self._whole]]

    def begin(self) -> None:
        """Remember where a batch begins."""
        self._drawn = [int(s.value[1]) for s in self._generators]
        self._before = [s.value.copy() for s in [*self._floats, *self._whole]]

    def begin_piece(self, piece: int) -> None:
        """Stand where the batch began, but at random numbers of the piece's own."""
        for slot, drawn in zip(self._generators, self._drawn, strict=True):
            slot.value[1] = drawn + piece
        for slot, value in zip([*self._floats, *self._whole], self._before, strict=True):
            slot.value = value

    def fill(self, vector: Vector, piece: int, samples: int) -> None:
        """Write down what stands after a piece that had samples."""
        vector[SAMPLES] = samples
        for i, slot in enumerate(self._counts):
            vector[FIRST + i] = slot.value
        for slot, start in zip(self._floats, self._ends[1:]):
            vector[start : start + slot.size] = slot.value.reshape(-1) * np.float64(samples)
        if piece == 0 and self._whole:
            vector[self._ends[-1] :] = np.concatenate([_parts(s.value) for s in self._whole])

    def end(self, pieces: int) -> None:
        """The batch is done: stand behind what all its pieces have drawn."""
        for slot, drawn in zip(self._generators, self._drawn, strict=True):
            slot.value[1] = drawn + pieces

    def take(self, total: Vector) -> None:
        """Take over what all pieces make together."""
        for slot, start in zip(self._floats, self._ends[1:]):
            mean = total[start : start + slot.size] / total[SAMPLES]
            slot.value = mean.reshape(slot.shape)
        start = self._ends[-1]
        for slot in self._whole:
            slot.value = _from_parts(total[start : start + 4 * slot.size], slot)
            start += 4 * slot.size

    def set_counts(self, counts: Vector | None = None) -> None:
        """Set what each term of the loss has counted; nothing, if not given."""
        for i, slot in enumerate(self._counts):
            slot.value[...] = 0.0 if counts is None else counts[i]

    def counts_in(self, total: Vector) -> Vector:
        """The part of a vector that holds them."""
        return total[FIRST : self._ends[1]]


def _parts(value: NDArray[np.generic]) -> Vector:
    """Integers as four numbers below 2^16 each."""
    return value.astype(np.int64).reshape(-1).view(np.uint16).astype(np.float64)


def _from_parts(parts: Vector, slot: Slot) -> NDArray[np.generic]:
    whole = parts.astype(np.uint16).view(np.int64)
    return whole.astype(slot.dtype).reshape(slot.shape)
