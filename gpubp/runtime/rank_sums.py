"""Sums over ranks: of vectors, and of the banks in which a step's gradients lie.

As a rule a rank has one piece of each batch, and sums are all-reduced where they lie. In
deterministic training it has several, whose gradients are kept apart, gathered, and added in the
order of pieces: the same additions, whoever computed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core.store import TAIL, Bank, Slot
from gpubp.distributed.communicator import DeviceCommunicator
from gpubp.distributed.parallel import DataParallel
from gpubp.runtime.rank_exchange import Exchange


def over_pieces(parallel: DataParallel, rows: NDArray[Any]) -> NDArray[Any]:
    """The sum over all pieces of all ranks.

    Args:
        parallel: how they are shared.
        rows: (parallel.each, ...): this rank's; zeros for pieces that it has not.

    Returns:
        Shape rows.shape[1:], of the same bits on every rank.
    """
    communicator = parallel.communicator
    if not parallel.deterministic:
        (only,) = rows
        total: NDArray[Any] = only.copy()
        communicator.all_reduce(total)
        return total
    found = communicator.gather(rows).reshape(-1, *rows.shape[1:])[: parallel.pieces]
    total = np.array(found[0])
    for row in found[1:]:
        total += row
    return total


class GradientSums:
    """The gradients' sums of a rank since the last update, and what becomes of them at the next.

    Args:
        parallel: how batches are shared.
        slots: the sums.
        terms: of the loss.
        exchange: sends them; None where banks are summed whole, and where they lie.

    Attributes:
        counts: (terms,): what has counted on all ranks, as far as they have told.
    """

    def __init__(
        self,
        parallel: DataParallel,
        slots: Sequence[Slot],
        terms: int,
        exchange: Exchange | None = None,
    ) -> None:
        self._parallel, self._exchange = parallel, exchange
        banks = {id(s.bank): s.bank for s in slots if s.bank is not None}
        self._banks: list[Bank] = list(banks.values())
        self._kept: list[NDArray[Any]] = []
        if parallel.deterministic:
            self._kept = [np.zeros((parallel.each, b.size), b.dtype) for b in self._banks]
        self.counts = np.zeros(terms)

    def begin(self, empty: bool) -> None:
        """The first batch after an update: of an `empty` piece nothing will be written."""
        self.counts[...] = 0
        for array in self._kept:
            array[...] = 0
        if empty:
            for bank in self._banks:
                bank.data[...] = 0

    def expect(self, final: bool) -> None:
        """A batch is about to be computed; `final`: an update follows."""
        if self._exchange is not None:
            self._exchange.begin(final)

    def start(self) -> None:
        """The last batch before an update has been computed: send what is not on its way."""
        if self._exchange is not None:
            self._exchange.start()

    def keep(self, place: int) -> None:
        """A piece has been computed, and its gradients lie in the banks: this rank's piece number
        `place`. With several pieces, add them to what is kept of it."""
        for array, bank in zip(self._kept, self._banks):
            array[place] += bank.data

    def tell(self, counts: NDArray[np.float64]) -> None:
        """What the pieces of all ranks have counted: of a batch, where gradients are kept by piece,
        else since the last update."""
        self.counts = self.counts + counts if self._kept else counts.copy()

    def has_room(self, width: int) -> bool:
        """Whether so many numbers can travel in one message with the gradients."""
        if self._exchange is not None:
            return self._exchange.has_room(width)
        if self._kept or not self._banks:
            return False
        return width <= TAIL and not self._stays_on_device(self._banks[0])

    def reduce_with(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """`reduce`, and the sum over all ranks of a vector that there is room for.

        It travels as numbers of the gradients' dtype: counts of float32 gradients are rounded like
        these.
        """
        if self._exchange is not None:
            return self._exchange.sum_with(vector)
        first, *others = self._banks
        whole, end = first.with_tail, first.size + len(vector)
        whole[first.size : end] = vector
        self._parallel.communicator.all_reduce(whole[:end])
        for bank in others:
            self._reduce(bank)
        return whole[first.size : end].astype(np.float64)

    def reduce(self) -> None:
        """Let the banks hold the sums over all ranks."""
        if self._exchange is not None:
            self._exchange.finish()
            return
        for i, bank in enumerate(self._banks):
            if self._kept:
                bank.data[...] = over_pieces(self._parallel, self._kept[i])
            else:
                self._reduce(bank)

    def _reduce(self, bank: Bank) -> None:
        communicator, there = self._parallel.communicator, bank.device_copy
        if there is not None and isinstance(communicator, DeviceCommunicator):
            there.change(lambda at: communicator.all_reduce_at(at, bank.size, bank.dtype))
        else:
            communicator.all_reduce(bank.data)

    def _stays_on_device(self, bank: Bank) -> bool:
        """It is on a device, and the communicator reaches there."""
        if bank.device_copy is None:
            return False
        return isinstance(self._parallel.communicator, DeviceCommunicator)
