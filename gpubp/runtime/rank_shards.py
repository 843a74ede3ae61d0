"""Optimiser state that is divided among ranks: which pieces of the parameters are this rank's.

Comes in: the optimiser of a step whose `DataParallel` says `shard_optimizer`. Goes out: pieces that
its update is traced for, and after an update the parameters, put together from all ranks' parts.

S. Rajbhandari, J. Rasley, O. Ruwase, Y. He, "ZeRO: memory optimizations toward training trillion
parameter models" (SC 2020, arXiv:1910.02054), stage 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.core import Array, active_graph
from gpubp.core.store import Slot
from gpubp.distributed.layout import Bucket, Layout
from gpubp.distributed.parallel import DataParallel
from gpubp.distributed.requests import start_all_gather
from gpubp.errors import DataError
from gpubp.nn.parameter import Parameter
from gpubp.nn.piece import Piece
from gpubp.runtime.settings import StepOptimizer


class Shards:
    """The pieces of this rank; see `gpubp.nn.piece.Pieces`.

    Args:
        parallel: how ranks work together.

    Attributes:
        layout: where all ranks' parts lie.
    """

    def __init__(self, parallel: DataParallel) -> None:
        self._parallel = parallel
        self.layout = Layout(parallel.size, parallel.cap)
        self._pieces: dict[int, Piece | None] = {}
        self._gathered: tuple[list[int], Sequence[Bucket]] = [], ()

    @classmethod
    def of_optimizer(cls, parallel: DataParallel, optimizer: StepOptimizer) -> Shards:
        """Those by which an optimiser (or each of several) is divided already, or new ones.

        Raises:
            DataError: it cannot be divided, or is divided in another way.
        """
        found = None
        for member in members(optimizer):
            if not getattr(member, "elementwise", False):
                raise DataError(
                    f"{type(member).__name__} updates more than single elements: its state cannot "
                    "be cut into slices. Leave shard_optimizer out."
                )
            found = getattr(member, "pieces", None) or found
        if found is None:
            return cls(parallel)
        if not isinstance(found, Shards) or vars(found._parallel) != vars(parallel):
            raise DataError(
                "the optimizer's state is divided among the ranks by another step, with other "
                "options: use one DataParallel for both."
            )
        return found

    def begin(self, optimizer: StepOptimizer) -> None:
        """Divide what the optimiser trains, and has not divided yet; its parameters have banks."""
        self.layout.buckets(optimizer.parameters())
        for member in members(optimizer):
            member.divide(self)

    def of(self, param: Parameter) -> Piece | None:
        """See `Pieces`."""
        if id(param) not in self._pieces:
            low, high = self.layout.piece(param, self._parallel.rank)
            self._pieces[id(param)] = Piece(param, low, high) if low < high else None
        return self._pieces[id(param)]

    def covers(self, param: Parameter) -> bool:
        """See `Pieces`."""
        return self.layout.knows(param)

    def joined(self, param: Parameter, part: NDArray[Any] | None) -> NDArray[Any] | None:
        """See `Pieces`."""
        ends = [self.layout.piece(param, rank) for rank in range(self._parallel.size)]
        mine = np.zeros(1 + max(high - low for low, high in ends), param.dtype)
        if part is not None:
            mine[0], mine[1 : 1 + part.size] = 1, part
        rows = self._parallel.communicator.gather(mine)
        if not rows[:, 0].any():
            return None
        found = [row[1 : 1 + high - low] for row, (low, high) in zip(rows, ends, strict=True)]
        return np.concatenate(found).reshape(param.shape)

    def cut(self, param: Slot, array: Any) -> Any:
        """A traced vector: what this rank has of an array beside a parameter; None for nothing."""
        assert isinstance(param, Parameter)
        piece = self.of(param)
        if piece is None or array is None:
            return None
        graph = active_graph()
        assert graph is not None
        return ops.reshape(Array(graph, graph.lift(array)), (-1,))[piece.low : piece.high]

    def gather(self, params: Sequence[Slot]) -> None:
        """Each rank has updated its part of the parameters: let all ranks have all parts."""
        key = [id(p) for p in params]
        if key != self._gathered[0]:
            self._gathered = key, self.layout.buckets(params)
        for bucket in self._gathered[1]:
            self._gather(bucket)

    def _gather(self, bucket: Bucket) -> None:
        parallel, bank = self._parallel, bucket.bank
        each, low = bucket.each(parallel.size), bucket.start
        whole, high = bank.with_tail, low + each * parallel.size
        if high <= whole.size and bucket.stop == bank.size:  # what is behind them has room
            rows = whole[low:high].reshape(parallel.size, each)
            start_all_gather(parallel.communicator, rows).wait()
            return
        rows = np.zeros((parallel.size, each), bank.dtype)
        first, last = bucket.part(parallel.rank, parallel.size)
        rows[parallel.rank, : last - first] = bank.data[first:last]
        start_all_gather(parallel.communicator, rows).wait()
        bank.data[low : bucket.stop] = rows.reshape(-1)[: bucket.stop - low]

    def slots(self, optimizer: StepOptimizer) -> list[Slot]:
        """Slots that are this rank's alone: pieces, and state beside them."""
        pieces = [piece for piece in self._pieces.values() if piece is not None]
        return [*pieces, *[s for m in members(optimizer) for s in m.divided_slots()]]

    def common(self, optimizer: StepOptimizer) -> list[Slot]:
        """Slots of the optimiser that are everybody's: its numbers."""
        return [slot for member in members(optimizer) for slot in member.number_slots()]


def members(optimizer: StepOptimizer) -> Sequence[Any]:
    """The optimisers that an optimiser is made of."""
    found: Sequence[Any] = getattr(optimizer, "members", [optimizer])
    return found
