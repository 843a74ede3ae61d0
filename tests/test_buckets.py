"""Gradients that are sent in buckets, while the backward pass goes on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from rank_work import (
    Recorder,
    X,
    Y,
    assert_close,
    assert_same_bits,
    classifier,
    on_ranks,
    parallel,
    seeded,
    trained,
)

import gpubp as gp
from gpubp import nn, optim
from gpubp.core.store import Slot, pack
from gpubp.distributed import DataParallel, run_threads, thread_group
from gpubp.distributed.layout import Layout
from gpubp.distributed.requests import start_all_reduce, start_reduce_scatter
from gpubp.errors import DataError

SMALL = {"bucket_cap_mb": 1e-6}  # one parameter a bucket


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.full)])
@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.full)])
@pytest.mark.parametrize("way", [{}, {"accumulate": 3}, {"max_grad_norm": 0.1}], ids=str)
def test_buckets_give_what_one_buffer_gives(way, shard, backend):
    expected = trained(None, **way, backend=backend)
    options = {**SMALL, "shard_optimizer": shard}
    for size in (2, 4):  # the last batch of a run has three rows: one of four ranks has none
        first, *others = on_ranks(size, options=options, **way, backend=backend)
        assert_close(first, expected)
        for other in others:
            assert_same_bits(other, first)


def _marked(events, name):
    """A module through which everything passes, and that notes when its gradient does."""
    note = gp.custom_op(f"note_{name}", lambda g: events.append(f"backward {name}") or g)
    mark = gp.custom_op(f"mark_{name}", lambda x: x, lambda g, y, x: note(g))

    class Marked(nn.Module):
        def forward(self, x):
            return mark(x)

    return Marked()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("shard", [False, True])
def test_a_bucket_is_on_its_way_before_the_layers_in_front_have_their_gradients(backend, shard):
    def work(communicator):
        events = []
        model = seeded(
            lambda: nn.Sequential(
                nn.Linear(6, 8), _marked(events, "first"), nn.Tanh(), nn.Linear(8, 8),
                _marked(events, "second"), nn.Tanh(), nn.Linear(8, 3),
            )
        )  # fmt: skip
        recorder = Recorder(communicator, events)
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(model(a), b),
            optim.SGD(model.parameters(), lr=0.1),
            communicator=DataParallel(recorder, shard_optimizer=shard, bucket_cap_mb=100 / 2**20),
            backend=backend,
        )
        before = model.state_dict()
        step(X, Y)
        assert not np.array_equal(model.state_dict()["0.weight"], before["0.weight"])
        events.clear()
        step(X, Y)
        return events

    for events in run_threads(2, work, timeout=60):
        kind = "reduce_scatter" if shard else "all_reduce"
        starts = [i for i, e in enumerate(events) if e.startswith(f"start_{kind}")]
        waits = [i for i, e in enumerate(events) if e.startswith(f"wait_{kind}")]
        assert len(starts) == len(waits) == 3  # a layer each
        # The last layer's sums are sent before the first one has its own, and all before any wait.
        assert starts[0] < events.index("backward first")
        assert starts[1] < starts[2] < waits[0]
        assert events.index("backward second") < events.index("backward first") < waits[0]
        sizes = [int(events[i].split()[1]) for i in starts]
        # The third layer, the second, the first; parameters begin at multiples of 16 elements.
        assert sizes == ([64, 96, 64] if shard else [48, 80, 64])
        gathers = [i for i, e in enumerate(events) if e.startswith("gather")]
        assert bool(gathers) == shard and all(i > waits[-1] for i in gathers)


def test_batches_before_an_update_send_nothing():
    def work(communicator):
        events = []
        model, optimizer = classifier()
        made = DataParallel(Recorder(communicator, events), **SMALL)
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(model(a), b), optimizer, communicator=made,
            accumulate=3, backend="numpy",
        )  # fmt: skip
        counts = []
        for _ in range(3):
            events.clear()
            step(X, Y)
            counts.append(sum(e.startswith("start_all_reduce") for e in events))
        return counts

    assert run_threads(2, work, timeout=60) == [[0, 0, 4]] * 2


def test_a_communicator_that_cannot_start_does_all_at_once():
    class Plain:
        def __init__(self, inner):
            self.name, self.rank, self.size = inner.name, inner.rank, inner.size
            self.all_reduce, self.broadcast = inner.all_reduce, inner.broadcast
            self.gather, self.barrier, self.close = inner.gather, inner.barrier, inner.close

    def work(communicator):
        plain = Plain(communicator)
        total = np.full(3, communicator.rank + 1.0)
        start_all_reduce(plain, total).wait()
        rows = np.arange(6.0).reshape(2, 3) * (communicator.rank + 1)
        start_reduce_scatter(plain, rows).wait()
        return total.tolist(), rows[communicator.rank].tolist(), trained(plain, options=SMALL)

    expected = trained(None)
    for rank, (total, row, found) in enumerate(run_threads(2, work, timeout=60)):
        assert total == [3.0] * 3
        assert row == (3 * np.arange(6.0).reshape(2, 3))[rank].tolist()
        assert_close(found, expected)


def test_rows_are_summed_each_for_its_rank():
    def work(communicator):
        rows = np.arange(12.0).reshape(3, 4) + communicator.rank
        communicator.start_reduce_scatter(rows).wait()
        with pytest.raises(DataError, match=r"expected \(3, n\): a row for each rank"):
            communicator.start_reduce_scatter(np.zeros((2, 4)))
        return rows[communicator.rank]

    for rank, found in enumerate(run_threads(3, work, timeout=30)):
        np.testing.assert_array_equal(found, 3 * np.arange(12.0).reshape(3, 4)[rank] + 3)


@pytest.mark.parametrize("cap", [None, 1, 200, 10_000])
def test_buckets_cover_each_parameter_once_and_parts_each_element(cap):
    slots = [Slot(f"p{i}", np.zeros(n), np.float32) for i, n in enumerate((3, 100, 1, 40, 17))]
    pack("params", slots)
    layout = Layout(3, cap)
    buckets = layout.buckets(slots)
    assert [s.name for b in buckets for s in b.slots] == ["p4", "p3", "p2", "p1", "p0"]
    assert len(buckets) == {None: 1, 1: 5, 200: 3, 10_000: 1}[cap]
    for bucket in buckets:
        parts = [bucket.part(rank, 3) for rank in range(3)]
        assert parts[0][0] == bucket.start and parts[-1][1] == bucket.stop
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    for slot in slots:
        pieces = [layout.piece(slot, rank) for rank in range(3)]
        assert sum(high - low for low, high in pieces) == slot.size
    late = Slot("late", np.zeros(5), np.float32)
    pack("params", [late])
    assert layout.buckets([*slots, late])[:-1] == buckets  # what is known stays where it is


def test_options_that_do_not_fit_are_refused():
    two = thread_group(2)[0]
    with pytest.raises(DataError, match="bucket_cap_mb is 0"):
        parallel(two, bucket_cap_mb=0)
    for other in ({"deterministic": True}, {"sync_batch_norm": True}):
        with pytest.raises(DataError, match="leave one of them out"):
            parallel(two, bucket_cap_mb=1, **other)
    for other in ({"bucket_cap_mb": 1}, {"shard_optimizer": True}):
        with pytest.raises(DataError, match="Leave shard_optimizer and bucket_cap_mb out"):
            parallel(two, average_every=2, **other)
