"""The model of what steps of several ranks cost, and the network that is measured for it."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.distributed import LocalCommunicator, run_threads
from gpubp.distributed.cost import Network, Work, bytes_of_rank, measured_network, step_seconds
from gpubp.errors import DataError


def test_the_model_of_costs():
    network = Network(latency=1e-5, bandwidth=1e9)
    assert network.all_reduce(1, 1e6) == 0
    # A ring of 4: six messages of a quarter. Small vectors: two messages of all.
    assert network.all_reduce(4, 1e6) == pytest.approx(6 * (1e-5 + 0.25e-3))
    assert network.all_reduce(4, 8) == pytest.approx(2 * (1e-5 + 8e-9))
    work = Work(seconds=1e-2, update=1e-3, gradient_bytes=1e6)
    counts = 1e-5 + 64e-9
    assert step_seconds(work, network, 1) == pytest.approx(1.1e-2)
    two = 5e-3 + 1e-3 + min(2 * (1e-5 + 0.5e-3), 1e-5 + 1e-3)
    assert step_seconds(work, network, 2) == pytest.approx(two)  # counts go with the gradients
    moving = Work(seconds=1e-2, update=1e-3, gradient_bytes=1e6, state_bytes=1e4)
    assert step_seconds(moving, network, 2) == pytest.approx(two + counts + 1e-5)
    rare = step_seconds(work, network, 2, average_every=100)
    assert 6e-3 < rare < 6.1e-3
    # Adam's moments are averaged with the parameters, all of them in float64.
    adam = Work(seconds=1e-2, update=1e-3, gradient_bytes=1e6, moments=2)
    local = step_seconds(adam, network, 2, average_every=10)
    assert local == pytest.approx(6e-3 + network.all_reduce(2, 6e6) / 10)
    deterministic = step_seconds(work, network, 2, pieces=12)
    assert deterministic == pytest.approx(6e-3 + 1e-5 + 6 * 1e6 / 1e9, rel=1e-3)
    # Half a ring for gradients, half a ring for parameters; each updates its half.
    divided = step_seconds(work, network, 2, shard_optimizer=True)
    assert divided == pytest.approx(5e-3 + 0.5e-3 + counts + 2 * (1e-5 + 0.5e-3))
    # Of 10 buckets 9 travel behind 3 ms of backward pass: what is left is that of the last one.
    buckets = step_seconds(work, network, 2, buckets=10)
    assert buckets == pytest.approx(6e-3 + counts + (1e-5 + 0.1e-3), rel=1e-3)
    slow = Network(latency=1e-5, bandwidth=1e7)  # 10 buckets of 10 ms each
    left = 10 * (1e-5 + 1e-2) - 0.9 * 5e-3 * 2 / 3
    assert step_seconds(work, slow, 2, buckets=10) == pytest.approx(6e-3 + 1e-5 + left, rel=1e-3)
    assert bytes_of_rank(1e6, 2, 4, shard_optimizer=False) == 4e6
    assert bytes_of_rank(1e6, 2, 4, shard_optimizer=True) == 2.5e6
    with pytest.raises(DataError, match="ranks=0"):
        step_seconds(work, network, 0)
    with pytest.raises(DataError, match="buckets=0"):
        step_seconds(work, network, 2, buckets=0)


class _Timed:
    """A communicator of a network that the model describes, and its clock."""

    name, rank = "timed", 0

    def __init__(self, size, network):
        self.size, self.network, self.now = size, network, 0.0

    def barrier(self):
        pass

    def close(self):
        pass

    def broadcast(self, array, root=0):
        pass

    def all_reduce(self, array):
        self.now += self.network.all_reduce(self.size, array.nbytes)

    def gather(self, array):
        return np.stack([array] * self.size)


@pytest.mark.parametrize("size", [2, 3, 4, 16])
@pytest.mark.parametrize("network", [Network(5e-3, 1e7), Network(2e-5, 1.25e9)])
def test_a_network_is_measured_as_the_model_has_it(size, network, monkeypatch):
    timed = _Timed(size, network)
    monkeypatch.setattr("gpubp.distributed.cost.time.perf_counter", lambda: timed.now)
    found = measured_network(timed)
    assert found.latency == pytest.approx(network.latency, rel=0.01)
    assert found.bandwidth == pytest.approx(network.bandwidth, rel=0.01)


def test_a_network_is_measured_between_ranks():
    found = run_threads(3, lambda c: measured_network(c, 1 << 16, 3), timeout=30)
    assert len(set(found)) == 1 and found[0].latency > 0
    with pytest.raises(DataError, match="ranks=1, rounds=5, nbytes=4194304: expected 2 ranks"):
        measured_network(LocalCommunicator())
