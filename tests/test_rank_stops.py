"""Ranks of which one meets NaN, is lost, or hears Ctrl-C: what the others do."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from rank_work import X, Y, assert_same_bits, classifier, parallel, step_of

from gpubp.distributed import run_threads, thread_group
from gpubp.errors import LostPeerError
from gpubp.runtime.pauses import Pauses


def test_nan_on_one_rank_is_seen_by_all():
    def work(communicator):
        model, optimizer = classifier()
        step = step_of(communicator, model, optimizer)
        x = X[:8].copy()
        x[7] = np.nan  # of the last rank's share
        return float(step(x, Y[:8])), np.isnan(model.state_dict()["0.weight"]).all()

    for loss, spoiled in run_threads(3, work, timeout=60):
        assert math.isnan(loss) and spoiled


def test_an_update_that_one_rank_must_skip_is_skipped_by_all():
    def work(communicator):
        model, optimizer = classifier(dtype="float32")
        step = step_of(
            communicator,
            model,
            optimizer,
            loss_scale="dynamic",
        )
        before = model.state_dict()
        x = X[:6].copy()
        x[0] = np.inf
        step(x, Y[:6])
        assert_same_bits(model.state_dict(), before)
        return step.loss_scale.state_dict()

    for state in run_threads(2, work, timeout=60):
        assert state == {"scale": 32768.0, "good": 0, "skipped": 1}


def test_a_lost_rank_is_an_error_on_the_others_within_the_timeout():
    def work(communicator):
        model, optimizer = classifier()
        step = step_of(communicator, model, optimizer)
        step(X, Y)
        if communicator.rank == 2:
            return None
        with pytest.raises(LostPeerError, match=r"did not come within 5 s"):
            step(X, Y)
        return "raised"

    assert run_threads(3, work, timeout=5) == ["raised", "raised", None]


def test_ctrl_c_on_one_rank_ends_the_run_of_all_after_the_same_step():
    """Rank 0 is in the main thread, where it is heard."""
    import signal

    communicators = thread_group(2, 60)
    ended = {}

    def work(communicator):
        model, optimizer = classifier()
        step = step_of(communicator, model, optimizer)

        def progress(done, epochs):
            if communicator.rank == 0 and done == 2:
                threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()

        try:
            step.run(X, Y, batch_size=2, epochs=10_000, progress=progress)
        except KeyboardInterrupt:
            ended[communicator.rank] = len(step.losses), model.state_dict()

    beside(communicators, work)
    assert ended[0][0] == ended[1][0] > 50
    assert_same_bits(ended[1][1], ended[0][1])


@pytest.mark.parametrize("average_every", [None, 7])
def test_ctrl_c_in_what_is_the_users_own_leaves_no_rank_waiting(average_every):
    """Heard while `progress` is at work on one rank: both end after the next step."""
    import signal

    communicators = thread_group(2, 60)
    ended = {}

    def work(communicator):
        model, optimizer = classifier()
        step = step_of(parallel(communicator, average_every=average_every), model, optimizer)

        def progress(done, epochs):
            if communicator.rank == 0 and done == 2:
                signal.raise_signal(signal.SIGINT)

        try:
            step.run(X, Y, batch_size=2, epochs=1000, progress=progress)
        except KeyboardInterrupt:
            ended[communicator.rank] = len(step.losses), model.state_dict()

    beside(communicators, work)
    epoch = -(-len(X) // 2)
    assert ended[0][0] == ended[1][0]
    assert 2 * epoch < ended[0][0] <= 3 * epoch
    assert_same_bits(ended[1][1], ended[0][1])


@pytest.mark.parametrize("open_there", [False, True])
def test_who_presses_ctrl_c_twice_leaves_at_once(open_there):
    import contextlib
    import signal

    with Pauses(together=True) as pauses, contextlib.ExitStack() as stack:
        if open_there:
            stack.enter_context(pauses.open())
        signal.raise_signal(signal.SIGINT)
        assert pauses.heard
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def beside(communicators, work):
    """Run the work on two ranks, the first in this thread."""
    other = threading.Thread(target=work, args=(communicators[1],))
    other.start()
    work(communicators[0])
    other.join()
