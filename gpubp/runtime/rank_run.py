"""One call's batches on one rank: compute pieces, meet the other ranks, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core.store import Slot
from gpubp.distributed.parallel import DataParallel
from gpubp.runtime.batches import Batches
from gpubp.runtime.outputs import OutputBuffers
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready
from gpubp.runtime.rank_means import RankMeans
from gpubp.runtime.rank_pieces import Pieces
from gpubp.runtime.rank_results import RowMaker
from gpubp.runtime.rank_state import STOP, RankState
from gpubp.runtime.rank_sums import GradientSums, over_pieces


class RankRun:
    """Runs batches.

    Args:
        parallel: how they are shared.
        readies: the programs of this rank's pieces.
        pieces: runs them.
        sums: of gradients.
        state: of modules, and counts.
        inside: opened while a program runs.
        means: over ranks, inside of programs.
    """

    def __init__(
        self,
        parallel: DataParallel,
        readies: Sequence[Ready],
        pieces: Pieces,
        sums: GradientSums,
        state: RankState,
        inside: Callable[[], AbstractContextManager[None]],
        means: RankMeans | None = None,
    ) -> None:
        self._inside = inside
        self._means = means
        self._parallel, self._pieces, self._sums, self._state = parallel, pieces, sums, state
        self._maker = RowMaker(readies[0])
        self._rows = np.zeros((parallel.each, 0, self._maker.width))
        self._rows_of: dict[int, Sequence[tuple[int, int, int]]] = {}  # by a batch's size
        self._stopped = False

    def over(
        self, batches: Batches, waiting: Slot, finish: Callable[[], None], pauses: Pauses | None
    ) -> int:
        """Run them, or fewer where a rank wants to stop.

        Args:
            batches: of the call.
            waiting: how many batches wait for an update.
            finish: updates with the sums.
            pauses: of the call.

        Returns:
            How many were done.
        """
        steps = len(batches.starts)
        self._rows = np.zeros((self._parallel.each, steps, self._maker.width))
        vectors = np.zeros((self._parallel.each, self._state.width))
        every = zip(batches.starts.tolist(), batches.sizes.tolist(), batches.final.tolist())
        for step, (start, size, final) in enumerate(every):
            vectors[...] = 0
            vectors[0, STOP] = pauses is not None and pauses.heard
            before = int(waiting.value)
            self._sums.expect(final)
            self._compute(step, start, size, waiting, vectors)
            self._meet(vectors, final)
            self._stopped = self._stopped and final
            if final:
                self._state.set_counts(self._sums.counts)
                finish()
            else:
                waiting.value = before + 1
            if self._stopped:
                return step + 1
        return steps

    def _compute(
        self, step: int, start: int, size: int, waiting: Slot, vectors: NDArray[np.float64]
    ) -> None:
        """Find the gradients of this rank's pieces of a batch, and what is to be told of them."""
        parallel, state = self._parallel, self._state
        rows = self._rows_of.get(size)
        if rows is None:
            rows = self._rows_of[size] = parallel.rows(size)
        if not waiting.value:
            empty = all(low == high for _, low, high in rows)
            self._sums.begin(empty)
            if empty:
                state.set_counts()
        state.begin()
        for place, (piece, low, high) in enumerate(rows):
            if low == high:
                continue
            if parallel.deterministic:
                waiting.value = 0
            state.begin_piece(piece)
            outputs = self._run(start + low, high - low)
            self._sums.keep(place)
            self._maker.fill(self._rows[place, step], outputs, high - low)
            state.fill(vectors[place], piece, high - low)
        if not parallel.deterministic and len(rows) and rows[0][1] == rows[0][2]:
            state.fill(vectors[0], parallel.pieces, 0)
        state.end(parallel.pieces)

    def _run(self, start: int, size: int) -> Sequence[NDArray[Any]]:
        """Run the program of a piece, in which ranks may meet."""
        if self._means is None:
            with self._inside():
                return self._pieces.run(start, size)
        with self._inside(), self._means.at_work():
            return self._pieces.run(start, size)

    def _meet(self, vectors: NDArray[np.float64], final: bool) -> None:
        """Let all ranks know what each has to tell, where they must; where an update follows, sum
        the gradients, in the same message if that has room."""
        moves = self._state.moves
        if final and not moves and self._sums.has_room(vectors.shape[1]):
            self._take(self._sums.reduce_with(vectors[0]))
            return
        if final:
            self._sums.start()
        if final or moves or self._parallel.deterministic:
            self._take(over_pieces(self._parallel, vectors))
        if final:
            self._sums.reduce()

    def _take(self, total: NDArray[np.float64]) -> None:
        """Take over what all ranks have told."""
        self._state.take(total)
        self._sums.tell(self._state.counts_in(total))
        self._stopped = bool(total[STOP] > 0)

    def put(self, buffers: OutputBuffers, first: int, done: int) -> None:
        """Put what the batches returned to where a run's results are, from a row on."""
        rows = over_pieces(self._parallel, np.ascontiguousarray(self._rows[:, :done]))
        self._maker.put(rows, buffers, first)

    def stop(self, pauses: Pauses) -> None:
        """If a rank wanted to stop, do what Ctrl-C does, on this rank as on that one."""
        if self._stopped:
            pauses.end_together()
