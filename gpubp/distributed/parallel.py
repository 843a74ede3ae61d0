"""How a step is shared by ranks: options of data-parallel training, and who takes which rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp.arguments import checked, shown
from gpubp.distributed.communicator import Communicator
from gpubp.errors import ArgumentError, DataError, unknown_name

PIECES = 12  # divided evenly by 1, 2, 3, 4 and 6 ranks


class DataParallel:
    """Data-parallel training: what `gp.compile_step(..., communicator=...)` takes.

    Args:
        communicator: of this rank.
        data: "shared": every rank is given the same data, and takes its share of each batch, so
            that results do not depend on the number of ranks. "own": every rank is given other
            data, and a batch is what all ranks' batches are together.
        deterministic: the same bits at any number of ranks up to `pieces`: a batch is computed in
            `pieces` pieces whoever computes them, whose gradients are gathered and added in their
            order. It takes as much memory as `pieces` gradients, and sends as much.
        pieces: see there.
        sync_batch_norm: batch normalisation in train mode takes mean and variance over the whole
            batch, so that it does not depend on the number of ranks. They meet in the middle of the
            program then, once for each mean, forwards and backwards.
        average_every: local SGD: ranks update by themselves, and after so many updates their
            parameters are averaged (S. U. Stich, "Local SGD converges fast and communicates
            little", 2019, arXiv:1805.09767). Default is to sum gradients at each update.
        shard_optimizer: each rank keeps and updates a slice of the optimiser's state alone: of
            gradients it gets the sums of its slice, and then all ranks get all parameters
            (S. Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter
            models", 2020, arXiv:1910.02054, stage 1). The state is then gathered where it is asked
            for, so all ranks must ask.
        bucket_cap_mb: send gradients in buckets of about so many MiB, each as soon as it is there,
            while the backward pass goes on. Default is to send all of them behind it.

    Raises:
        ArgumentError: what is no communicator.
        DataError: options that do not fit together, or are out of range.
    """

    @checked
    def __init__(
        self,
        communicator: Communicator,
        *,
        data: str = "shared",
        deterministic: bool = False,
        pieces: int = PIECES,
        sync_batch_norm: bool = False,
        average_every: int | None = None,
        shard_optimizer: bool = False,
        bucket_cap_mb: float | None = None,
    ) -> None:
        if not isinstance(communicator, Communicator):
            raise ArgumentError(
                f"communicator is {shown(communicator)}, expected one of gpubp.distributed: "
                "gpubp.distributed.init()."
            )
        if data not in ("shared", "own"):
            raise unknown_name("kind of data", data, ("shared", "own"))
        if average_every is not None and average_every < 1:
            raise DataError(f"average_every is {average_every}, expected at least 1.")
        self.communicator, self.data = communicator, data
        self.deterministic, self.average_every = deterministic, average_every
        self.sync_batch_norm = sync_batch_norm
        self.shard_optimizer, self.bucket_cap_mb = shard_optimizer, bucket_cap_mb
        self.pieces = pieces if deterministic else communicator.size
        self._check()

    def __deepcopy__(self, memo: dict[int, Any]) -> DataParallel:
        return self  # it belongs to the process, and to no model

    def _check(self) -> None:
        if self.deterministic and self.data == "own":
            raise DataError(
                "deterministic=True divides one batch into the same pieces at any number of ranks: "
                "it needs data='shared'."
            )
        if self.deterministic and self.average_every is not None:
            raise DataError(
                "average_every lets ranks go their own ways for a while: results depend on the "
                "number of ranks, so deterministic=True cannot be used with it."
            )
        if self.sync_batch_norm and (self.deterministic or self.average_every is not None):
            raise DataError(
                "sync_batch_norm needs all of a batch at the same time, on ranks that go the same "
                "way: it cannot be used with deterministic=True or average_every."
            )
        self._check_sending()
        if self.pieces < self.communicator.size:
            raise DataError(
                f"pieces is {self.pieces}, expected at least one for each of the "
                f"{self.communicator.size} ranks."
            )

    def _check_sending(self) -> None:
        cap = self.bucket_cap_mb
        if cap is not None and not cap > 0:
            raise DataError(f"bucket_cap_mb is {cap}, expected a number above 0.")
        if cap is not None and (self.deterministic or self.sync_batch_norm):
            raise DataError(
                "bucket_cap_mb sends gradients while the backward pass goes on; with "
                "deterministic=True they are added in the order of pieces when all are there, and "
                "with sync_batch_norm ranks meet in the middle of it: leave one of them out."
            )
        if self.average_every is not None and (self.shard_optimizer or cap is not None):
            raise DataError(
                "average_every lets each rank update by itself: it sends no gradients, and needs "
                "the whole of the optimizer's state on each rank. Leave shard_optimizer and "
                "bucket_cap_mb out."
            )

    @property
    def cap(self) -> int | None:
        """Bytes of a bucket."""
        return None if self.bucket_cap_mb is None else max(1, int(self.bucket_cap_mb * (1 << 20)))

    @property
    def divides(self) -> bool:
        """The optimiser's state is divided among ranks."""
        return self.shard_optimizer and self.size > 1

    @property
    def rank(self) -> int:
        """Of this process."""
        return self.communicator.rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.communicator.size

    @property
    def each(self) -> int:
        """Pieces that a rank has room for; the last ranks may have fewer."""
        return -(-self.pieces // self.size)

    @property
    def alone(self) -> bool:
        """One rank, with nothing that would have to be as it is with more."""
        return self.size == 1 and not self.deterministic

    def rows(self, samples: int) -> Sequence[tuple[int, int, int]]:
        """This rank's pieces of a batch: (piece, first row, row behind the last).

        Pieces differ by one row at most; the first of them is never empty, the last ones may be.

        Args:
            samples: in the batch; with data="own", in this rank's.
        """
        if self.data == "own":
            return [(self.rank, 0, samples)]
        first = self.rank * self.each
        last = min(first + self.each, self.pieces)
        return [(p, *bounds(samples, p, self.pieces)) for p in range(first, last)]


def bounds(samples: int, piece: int, pieces: int) -> tuple[int, int]:
    """(first row, row behind the last) of one of so many pieces."""
    return -(-samples * piece // pieces), -(-samples * (piece + 1) // pieces)


def as_parallel(given: Communicator | DataParallel | None) -> DataParallel | None:
    """From the argument `communicator` of `compile_step`; None for one rank by itself."""
    if given is None:
        return None
    made = given if isinstance(given, DataParallel) else DataParallel(given)
    return None if made.alone else made
