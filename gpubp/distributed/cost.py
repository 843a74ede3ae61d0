"""How long a step of several ranks takes: a model of bytes, latencies and arithmetic.

A message of B bytes takes a + B / b seconds: a latency a, a bandwidth b. Of the two ways in which
all-reduces are made the faster one is taken (R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of
collective communication operations in MPICH", 2005):

- ring: 2 (n - 1) messages of B / n bytes each, one after the other;
- recursive doubling: ceil(log2 n) messages of B bytes.

A step computes its share of the batch, all-reduces counts and module state (one small vector),
then gradients, and updates. Nothing overlaps: gradients are sent when the backward pass is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpubp.arguments import checked
from gpubp.errors import DataError


@dataclass(frozen=True)
class Network:
    """What connects the ranks.

    Attributes:
        latency: seconds that a message without contents takes.
        bandwidth: bytes per second of one rank's link, in each direction.
    """

    latency: float
    bandwidth: float

    def message(self, nbytes: float) -> float:
        """Seconds for a message of so many bytes."""
        return self.latency + nbytes / self.bandwidth

    def all_reduce(self, ranks: int, nbytes: float) -> float:
        """Seconds for an all-reduce of so many bytes."""
        if ranks == 1:
            return 0.0
        ring = 2 * (ranks - 1) * self.message(nbytes / ranks)
        doubling = math.ceil(math.log2(ranks)) * self.message(nbytes)
        return min(ring, doubling)

    def gather(self, ranks: int, nbytes: float) -> float:
        """Seconds until every rank has so many bytes of each rank (a ring)."""
        return (ranks - 1) * self.message(nbytes)


@dataclass(frozen=True)
class Work:
    """A training step.

    Attributes:
        seconds: forward and backward pass of the whole batch on one rank.
        update: seconds of the update.
        gradient_bytes: of all parameters' gradients.
        state_bytes: of counts and module state, in float64.
    """

    seconds: float
    update: float
    gradient_bytes: float
    state_bytes: float = 64.0


@checked
def step_seconds(
    work: Work, network: Network, ranks: int, average_every: int | None = None, pieces: int = 0
) -> float:
    """Seconds that a step is predicted to take.

    Args:
        work: of the step.
        network: between the ranks.
        ranks: that share the batch.
        average_every: local SGD, with averages after so many updates; see `DataParallel`.
        pieces: of a deterministic step; 0 for one that is not.

    Raises:
        DataError: no rank, or numbers that do not fit.
    """
    if ranks < 1 or (average_every is not None and average_every < 1) or pieces < 0:
        raise DataError(
            f"ranks={ranks}, average_every={average_every}, pieces={pieces}: expected at least 1 "
            "(0 pieces for a step that is not deterministic)."
        )
    alone = work.seconds / ranks + work.update
    if average_every is not None:
        return alone + network.all_reduce(ranks, 2 * work.gradient_bytes) / average_every
    if pieces:
        each = math.ceil(pieces / ranks)
        told = each * (work.gradient_bytes + work.state_bytes)
        return work.seconds * each / pieces + work.update + network.gather(ranks, told)
    told = network.all_reduce(ranks, work.state_bytes)
    return alone + told + network.all_reduce(ranks, work.gradient_bytes)
