"""How long a step of several ranks takes: a model of bytes, latencies and arithmetic.

A message of B bytes takes a + B / b seconds: a latency a, a bandwidth b. Of the two ways in which
all-reduces are made the faster one is taken (R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of
collective communication operations in MPICH", 2005):

- ring: 2 (n - 1) messages of B / n bytes each, one after the other;
- recursive doubling: ceil(log2 n) messages of B bytes.

A step computes its share of the batch, all-reduces gradients, with counts behind them, and updates.
Where gradients are sent in buckets or in parts, and where there is module state, counts and module
state are a small all-reduce of their own. Gradients are sent when the backward pass is done, and
nothing overlaps; in buckets, all but the last of them may travel while the backward pass goes on,
which is taken for two thirds of the work. A divided optimiser takes the first half of a ring's
messages for gradients, the second for parameters, and updates a part.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from gpubp.arguments import checked
from gpubp.distributed.communicator import Communicator
from gpubp.errors import DataError

COUNTS = 64.0  # bytes, of which there are fewer as a rule: latency is what they cost
BACKWARD = 2 / 3  # of a step's work: two products a layer, where forwards there is one


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

    def reduce_scatter(self, ranks: int, nbytes: float) -> float:
        """Seconds until every rank has the sums of its part of so many bytes (half a ring)."""
        return (ranks - 1) * self.message(nbytes / ranks)

    def gather(self, ranks: int, nbytes: float) -> float:
        """Seconds until every rank has so many bytes of each rank (a ring)."""
        return (ranks - 1) * self.message(nbytes)


@checked
def measured_network(communicator: Communicator, nbytes: int = 1 << 22, rounds: int = 5) -> Network:
    """The network that bare all-reduces of these ranks have found; all of them call it.

    The latency is what a small all-reduce has for each message of recursive doubling, the bandwidth
    what a large one has beyond that. How the communicator does it is not asked: with the same
    number of ranks, and about so many bytes, predictions are what was measured here.

    Args:
        communicator: of two or more ranks.
        nbytes: of the large one; about what a step's gradients have.
        rounds: of which the best one is taken: what else a machine does only adds.

    Raises:
        DataError: one rank, no round, or less than 1 KiB.
    """
    ranks = communicator.size
    if ranks < 2 or rounds < 1 or nbytes < 1024:
        raise DataError(
            f"ranks={ranks}, rounds={rounds}, nbytes={nbytes}: expected 2 ranks at least, a round, "
            "and 1024 bytes."
        )
    small, large = (_best(communicator, n, rounds) for n in (16, nbytes // 4))
    latency = small / math.ceil(math.log2(ranks))
    # Of the two ways the model takes the faster one: the bandwidth that makes this one `large`.
    ring = 2 * (ranks - 1) / ranks * nbytes / max(large - 2 * (ranks - 1) * latency, 1e-9)
    doubling = math.ceil(math.log2(ranks)) * nbytes / max(large - small, 1e-9)
    fits = [
        b for b in (ring, doubling) if Network(latency, b).all_reduce(ranks, nbytes) > 0.999 * large
    ]
    return Network(latency, max(fits, default=min(ring, doubling)))


def _best(communicator: Communicator, elements: int, rounds: int) -> float:
    """Seconds of an all-reduce of float32, those of the slowest rank, in the best round."""
    array, took = np.zeros(elements, np.float32), []
    for _ in range(rounds + 1):
        communicator.barrier()
        start = time.perf_counter()
        communicator.all_reduce(array)
        took.append(time.perf_counter() - start)
    slowest = communicator.gather(np.array(took[1:])).max(0)  # the first one opens connections
    return float(slowest.min())


@dataclass(frozen=True)
class Work:
    """A training step.

    Attributes:
        seconds: forward and backward pass of the whole batch on one rank.
        update: seconds of the update.
        gradient_bytes: of all parameters' gradients.
        state_bytes: of module state that ranks average (running statistics), in float64.
        moments: arrays of the optimiser's beside each parameter, which local SGD averages too (2
            for Adam). Averages travel in float64; gradients are taken for float32.
    """

    seconds: float
    update: float
    gradient_bytes: float
    state_bytes: float = 0.0
    moments: int = 0

    @property
    def average_bytes(self) -> float:
        """Of an average of local SGD."""
        return 2 * (1 + self.moments) * self.gradient_bytes + self.state_bytes


@checked
def step_seconds(
    work: Work,
    network: Network,
    ranks: int,
    average_every: int | None = None,
    pieces: int = 0,
    *,
    shard_optimizer: bool = False,
    buckets: int = 1,
) -> float:
    """Seconds that a step is predicted to take.

    Args:
        work: of the step.
        network: between the ranks.
        ranks: that share the batch.
        average_every: local SGD, with averages after so many updates; see `DataParallel`.
        pieces: of a deterministic step; 0 for one that is not.
        shard_optimizer: the optimiser is divided.
        buckets: in which gradients are sent, of one size; 1: all of them behind the backward pass.

    Raises:
        DataError: no rank, or numbers that do not fit.
    """
    if ranks < 1 or (average_every is not None and average_every < 1) or pieces < 0 or buckets < 1:
        raise DataError(
            f"ranks={ranks}, average_every={average_every}, pieces={pieces}, buckets={buckets}: "
            "expected at least 1 (0 pieces for a step that is not deterministic)."
        )
    alone = work.seconds / ranks + work.update
    if average_every is not None:
        return alone + network.all_reduce(ranks, work.average_bytes) / average_every
    if pieces:
        each = math.ceil(pieces / ranks)
        told = each * (work.gradient_bytes + COUNTS + work.state_bytes)
        return work.seconds * each / pieces + work.update + network.gather(ranks, told)
    parameters = told = 0.0
    if shard_optimizer or buckets > 1 or work.state_bytes:
        told = network.all_reduce(ranks, COUNTS + work.state_bytes)
    if shard_optimizer:
        alone = (work.seconds + work.update) / ranks
        parameters = network.gather(ranks, work.gradient_bytes / ranks)
    return alone + told + _gradients(work, network, ranks, shard_optimizer, buckets) + parameters


def _gradients(work: Work, network: Network, ranks: int, scatter: bool, buckets: int) -> float:
    """Seconds that a rank waits for gradients."""
    send = network.reduce_scatter if scatter else network.all_reduce
    each = send(ranks, work.gradient_bytes / buckets)
    backward = work.seconds / ranks * BACKWARD * (buckets - 1) / buckets
    return max(each, buckets * each - backward)


def bytes_of_rank(parameters: float, states: int, ranks: int, shard_optimizer: bool) -> float:
    """Bytes that a rank keeps of parameters, their gradients, and an optimiser's state.

    Args:
        parameters: bytes of all parameters.
        states: arrays of the optimiser's for each: 2 for Adam, 1 for momentum.
        ranks: that share the step.
        shard_optimizer: the optimiser is divided.
    """
    return parameters * (2 + states / (ranks if shard_optimizer else 1))
