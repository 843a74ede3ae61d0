"""Ranks of one machine that share memory; here they are threads, which find it in the same way."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import threading
import time

import numpy as np
import pytest
from rank_work import X, Y, classifier

import gpubp as gp
from gpubp.distributed import DataParallel, run_threads
from gpubp.distributed.neighbourhood import among_neighbours
from gpubp.distributed.neighbours import SMALL, SWITCH, Neighbours
from gpubp.distributed.requests import start_all_gather, start_all_reduce, start_reduce_scatter
from gpubp.distributed.shared_memory import Peer, SharedMemory
from gpubp.errors import DistributedError, LostPeerError

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or importlib.util.find_spec("llvmlite") is None,
    reason="needs Linux and Numba",
)
# Around what is added by all, at the ends of cache lines, and in several chunks.
SIZES = (0, 1, 17, SMALL // 4, SMALL // 4 + 1, 3 * SMALL // 4 + 5, 100_003)


class Carried:
    """A thread's communicator as a carrier."""

    def __init__(self, communicator, timeout=20.0):
        self.inner, self.timeout, self.is_open = communicator, timeout, True
        self.name, self.rank, self.size = "threads", communicator.rank, communicator.size
        self.broadcast, self.all_reduce = communicator.broadcast, communicator.all_reduce
        self.gather, self.barrier = communicator.gather, communicator.barrier
        self.left = ""

    def begin(self):
        if not self.is_open:
            raise DistributedError("this communicator is closed.")

    def require_all_there(self):
        if LEFT_BY:
            raise LostPeerError(f"rank {self.rank}: {LEFT_BY[0]}.")

    def leave(self, why, alone=False):
        LEFT_BY.append(f"rank {self.rank} has left: {why}")
        self.is_open = False

    def close(self):
        self.is_open = False


LEFT_BY: list[str] = []


@pytest.fixture(autouse=True)
def _nobody_has_left():
    LEFT_BY.clear()


def shared(ranks, work, timeout=20.0):
    """`work` of each rank's communicator, which goes through shared memory."""

    def one(communicator):
        found = among_neighbours(Carried(communicator, timeout))
        assert isinstance(found, Neighbours)
        return work(found)

    return run_threads(ranks, one)


def values(rank, size, dtype=np.float32):
    return np.random.default_rng(rank).normal(size=size).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_sums_are_those_of_adding_in_the_order_of_ranks(ranks, in_place, dtype):
    def work(communicator):
        found = []
        for size in SIZES:
            array = communicator.zeros(size, dtype) if in_place else np.zeros(size, dtype)
            array[...] = values(communicator.rank, size, dtype)
            communicator.all_reduce(array)
            found.append(array.copy())
        return found

    everybody = shared(ranks, work)
    for i, size in enumerate(SIZES):
        total = values(0, size, dtype)
        for rank in range(1, ranks):
            total = total + values(rank, size, dtype)
        for found in everybody:
            np.testing.assert_array_equal(found[i], total)


@pytest.mark.parametrize("size", SIZES)
def test_arrays_of_any_kind_go_from_one_to_all_and_from_all_to_all(size):
    def work(communicator):
        rank, ranks = communicator.rank, communicator.size
        mine = values(rank, size) > 0
        sent = values(rank, (2, size), np.float64) if rank == 1 else np.zeros((2, size))
        communicator.broadcast(sent, 1)
        rows = communicator.zeros(ranks * size, np.float32).reshape(ranks, size)
        rows[rank] = rank + values(9, size)
        start_all_gather(communicator, rows).wait()
        parts = np.stack([values(10 * rank + r, size) for r in range(ranks)])
        start_reduce_scatter(communicator, parts).wait()
        total = np.full(size, float(rank))
        start_all_reduce(communicator, total).wait()
        if size:  # and again, with something beside it
            again, beside = np.full((ranks, size), 1.0), np.array([rank, 1.0])
            communicator.reduce_scatter_beside(again, beside)
            assert (again[rank] == ranks).all()
            assert beside.tolist() == [3.0, 3.0]
        communicator.barrier()
        return communicator.gather(mine), sent, rows.copy(), parts[rank], total

    for rank, (masks, sent, rows, part, total) in enumerate(shared(3, work)):
        np.testing.assert_array_equal(masks, [values(r, size) > 0 for r in range(3)])
        np.testing.assert_array_equal(sent, values(1, (2, size), np.float64))
        np.testing.assert_array_equal(rows, [r + values(9, size) for r in range(3)])
        expected = values(rank, size) + values(10 + rank, size) + values(20 + rank, size)
        np.testing.assert_array_equal(part, expected)
        np.testing.assert_array_equal(total, np.full(size, 3.0))


def test_a_thousand_operations_of_changing_sizes_do_not_mix():
    """Places on the desk are taken in turn, and a rank may be an operation ahead."""

    def work(communicator):
        sizes = np.random.default_rng(0).integers(1, 5000, 1000)
        late = np.random.default_rng(communicator.rank + 1).integers(0, 50, 1000)
        for i, size in enumerate(sizes.tolist()):
            if late[i] == 0:
                time.sleep(0.001)
            array = np.full(size, float(i), np.float32)
            communicator.all_reduce(array)
            if not (array == 3.0 * i).all():
                return i
        return -1

    assert shared(3, work) == [-1, -1, -1]


def test_training_gives_what_the_carrier_gives():
    def train(communicator, **options):
        model, optimizer = classifier(dtype="float64")
        step = gp.compile_step(
            lambda x, y: gp.nn.CrossEntropyLoss()(model(x), y),
            optimizer,
            communicator=DataParallel(communicator, **options),
            backend="numba",
        )
        losses = step.run(X, Y, batch_size=8, epochs=2)
        return losses, [p.value.copy() for p in model.parameters()]

    for options in ({}, {"shard_optimizer": True}, {"bucket_cap_mb": 1e-4}):
        expected = run_threads(2, lambda c, options=options: train(c, **options))[0]
        for losses, weights in shared(2, lambda c, options=options: train(c, **options)):
            np.testing.assert_allclose(losses, expected[0], rtol=1e-12, atol=1e-12)
            for found, value in zip(weights, expected[1], strict=True):
                np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12)


def test_gradients_and_parameters_lie_where_others_find_them():
    def work(communicator):
        gp.manual_seed(0)
        layer = gp.nn.Linear(100, 60)
        step = gp.compile_step(
            lambda x, y: gp.nn.MSELoss()(layer(x), y), gp.optim.SGD(layer.parameters(), lr=0.1),
            communicator=DataParallel(communicator, shard_optimizer=True),
        )  # fmt: skip
        x = np.ones((8, 100), np.float32)
        step.run(x, x[:, :60], batch_size=4)  # first they compare, and take over rank 0's state
        communicator._stage = np.zeros(0, np.uint8)
        step.run(x, x[:, :60], batch_size=4)
        return communicator._memory.place_of(layer.weight.value), communicator._stage.nbytes

    for place, staged in shared(2, work):
        assert place is not None
        assert staged < 1000  # what they compare at the start of a run, and no gradients


def test_ranks_that_come_to_different_operations_are_told():
    def work(communicator):
        with pytest.raises(DistributedError, match=r"rank 0 to all_reduce of 12 bytes.*rank 1 to"):
            if communicator.rank:
                communicator.barrier()
            else:
                communicator.all_reduce(np.zeros(3, np.float32))
        with pytest.raises(DistributedError, match="different operations"):
            communicator.all_reduce(np.zeros(3 + communicator.rank, np.float32))
        communicator.barrier()
        return True

    assert shared(2, work) == [True, True]


def test_who_waits_hears_that_another_has_left_or_closed():
    def leaves(communicator):
        if communicator.rank == 1:
            time.sleep(0.05)
            communicator.leave("ValueError: out of luck")
            return None
        with pytest.raises(LostPeerError, match="rank 1 has left: ValueError: out of luck"):
            communicator.barrier()

    shared(3, leaves)
    LEFT_BY.clear()

    def closes(communicator):
        communicator.barrier()
        if communicator.rank == 1:
            communicator.close()
            return
        with pytest.raises(LostPeerError, match="rank 1 has closed its communicator"):
            communicator.barrier()

    shared(2, closes)


def test_who_closes_after_an_operation_has_not_left_it():
    """A slow rank finds the other closed, and the meeting over."""
    for _ in range(50):

        def work(communicator):
            array = np.ones(4, np.float32)
            communicator.all_reduce(array)
            communicator.close()
            return float(array[0])

        assert shared(2, work) == [2.0, 2.0]


def test_a_rank_that_does_not_come_is_an_error_in_time():
    arrived = threading.Event()

    def work(communicator):
        if communicator.rank == 1:
            arrived.wait(10)
            return
        with pytest.raises(LostPeerError, match=r"another rank did not come within 0\.3 s"):
            communicator.barrier()
        arrived.set()

    shared(2, work, timeout=0.3)


def test_shared_memory_is_gone_with_its_last_array():
    gc.collect()  # what other tests have left
    memory, before = SharedMemory(), len(os.listdir("/proc/self/fd"))
    array = memory.zeros(1000, np.float32)
    part = array[10:20]
    place = memory.place_of(part)
    assert place is not None
    assert memory.place_of(np.zeros(3)) is None
    peer = Peer(os.getpid())
    seen = peer.array(place, 10, np.float32)
    part[...] = 7
    np.testing.assert_array_equal(seen, np.full(10, 7, np.float32))
    del array, part, seen, peer
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match=r"let go|No such file"):
        Peer(os.getpid()).array(place, 10, np.float32)


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    assert run_threads(2, lambda c: isinstance(among_neighbours(Carried(c)), Carried)) == [True] * 2


def test_without_numba_on_one_rank_all_keep_the_carrier(monkeypatch):
    from gpubp.distributed import neighbourhood

    real = neighbourhood._own

    def own(memory, ranks, kept):
        told = real(memory, ranks, kept)
        return told if next(turns) else np.zeros_like(told)

    turns = iter([1, 0, 1])
    monkeypatch.setattr(neighbourhood, "_own", own)
    assert run_threads(3, lambda c: isinstance(among_neighbours(Carried(c)), Carried)) == [True] * 3
