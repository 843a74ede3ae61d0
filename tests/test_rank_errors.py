"""Ranks of which one meets an error, or Ctrl-C: no other is left waiting, and all know why.

The timeout is ten minutes: a rank that was told nothing would make the test hang.
"""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from rank_work import X, Y, assert_same_bits, classifier, parallel, step_of

from gpubp import nn
from gpubp.distributed import run_threads, thread_group
from gpubp.distributed.leaving import who_left
from gpubp.errors import DataError, DistributedError, LostPeerError
from gpubp.runtime.outputs import OutputBuffers
from gpubp.train import Callback, Trainer

WAIT = 600


def trainer_of(communicator, **options):
    model, optimizer = classifier()
    shared = parallel(communicator, **options)
    return Trainer(
        model, nn.CrossEntropyLoss(), optimizer, backend="numpy", communicator=shared
    )  # fmt: skip


class Raises(Callback):
    """Fails where it is asked to."""

    def __init__(self, hook):
        def fail(*args):
            raise ValueError("out of luck")

        setattr(self, hook, fail)


HOOKS = ["on_train_begin", "on_epoch_begin", "on_chunk_end", "on_epoch_end", "on_train_end"]


def in_callback(hook):
    def work(communicator, wrong):
        callbacks = [Raises(hook)] if wrong else []
        trainer_of(communicator).fit(X, Y, epochs=3, batch_size=8, verbose=False,
                                     callbacks=callbacks)  # fmt: skip
        communicator.barrier()  # what on_train_end raises is told to those who come later

    return work


def in_metric(communicator, wrong):
    def metric(targets, outputs):
        if wrong:
            raise ValueError("out of luck")
        return 0.0

    trainer_of(communicator).fit(X, Y, epochs=2, validation_split=0.2, metrics=[metric],
                                 verbose=False)  # fmt: skip


def in_stream(communicator, wrong):
    def batches():
        for low in range(0, 48, 8):
            if wrong and low == 32:
                raise ValueError("out of luck")
            yield X[low : low + 8], Y[low : low + 8]

    trainer_of(communicator, data="own").fit(batches, epochs=2, verbose=False)


def in_checkpoint(communicator, wrong, monkeypatch=None):
    made = trainer_of(communicator)

    def save(*args, **kwargs):
        raise ValueError("out of luck")

    if wrong:
        made.save = save
    # It is rank 0 that writes.
    made.fit(X, Y, epochs=3, verbose=False, checkpoint="never_written.ckpt")


def in_progress(communicator, wrong):
    def progress(done, epochs):
        if wrong and done == 2:
            raise ValueError("out of luck")

    step = step_of(parallel(communicator), *classifier())
    step.run(X, Y, epochs=50, progress=progress)


def in_labels(communicator, wrong):
    step = step_of(parallel(communicator, data="own"), *classifier())
    step.run(X, Y)
    try:
        step.run(X, Y + (5 if wrong else 0))
    except DataError as error:
        raise ValueError("out of luck") from error


def in_a_call(communicator, wrong):
    step = step_of(parallel(communicator), *classifier())
    step(X, Y)
    try:
        step(X[:, :3] if wrong else X, Y)
    except DataError as error:
        raise ValueError("out of luck") from error


PLACES = {hook: in_callback(hook) for hook in HOOKS}
PLACES.update(metric=in_metric, stream=in_stream, progress=in_progress)


def outcomes(size, work, wrong):
    """What each of the ranks raises."""

    def on_rank(communicator):
        try:
            work(communicator, communicator.rank == wrong)
        except BaseException as error:
            return error
        return None

    return run_threads(size, on_rank, timeout=WAIT)


@pytest.mark.parametrize("place", PLACES)
def test_an_error_of_one_rank_is_told_to_the_others(place):
    found = outcomes(3, PLACES[place], wrong=1)
    assert isinstance(found[1], ValueError)
    for rank in (0, 2):
        with pytest.raises(LostPeerError, match=f"rank {rank}: rank 1 has left: .*out of luck"):
            raise found[rank]


def test_a_checkpoint_that_rank_0_cannot_write_is_an_error_of_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = outcomes(2, in_checkpoint, wrong=0)
    assert isinstance(found[0], ValueError)
    assert isinstance(found[1], LostPeerError) and "rank 0 has left: Value" in str(found[1])


@pytest.mark.parametrize("work", [in_labels, in_a_call])
def test_arguments_that_are_wrong_on_one_rank_are_an_error_of_all(work):
    found = outcomes(2, work, wrong=0)
    assert isinstance(found[0], ValueError)
    assert isinstance(found[1], LostPeerError) and "rank 0 has left: " in str(found[1])


@pytest.mark.parametrize("average_every", [None, 2])
def test_ranks_that_meet_the_same_error_go_on_together(average_every):
    def work(communicator):
        step = step_of(parallel(communicator, average_every=average_every), *classifier())
        step.run(X, Y)
        for _ in range(2):
            with pytest.raises(DataError, match="batch_size is 51"):
                step.run(X, Y, batch_size=51)
        made = trainer_of(communicator)
        with pytest.raises(ValueError, match="out of luck"):
            made.fit(X, Y, epochs=2, verbose=False, callbacks=[Raises("on_epoch_end")])
        losses = step.run(X, Y)
        made.fit(X, Y, epochs=2, verbose=False)
        return {"losses": losses, **made.model.state_dict()}

    first, second = run_threads(2, work, timeout=WAIT)
    assert_same_bits(second, first)


def test_an_epoch_that_ends_earlier_on_one_rank_is_an_error_of_all():
    def work(communicator):
        stop = 24 if communicator.rank == 1 else 40
        stream = [(X[low : low + 8], Y[low : low + 8]) for low in range(0, stop, 8)]
        made = trainer_of(communicator, data="own")
        expected = "an epoch of rank 1 ends before that of rank 0"
        with pytest.raises(DistributedError, match=expected):
            made.fit(stream, epochs=2, verbose=False)
        made.fit(stream[:2], epochs=2, verbose=False)  # they can still work together

    run_threads(2, work, timeout=WAIT)


def test_streams_may_come_in_batches_of_other_sizes_on_each_rank(monkeypatch):
    """What is put together, and so how many steps a rank has at hand, differs then."""
    monkeypatch.setattr("gpubp.data.sources.STREAM_SAMPLES", 20)
    cuts = [range(0, 31, 6), range(30, 51, 4)]

    def work(communicator):
        made = trainer_of(communicator, data="own")
        parts = [slice(*pair) for pair in zip(cuts[communicator.rank], cuts[communicator.rank][1:])]
        made.fit([(X[part], Y[part]) for part in parts], epochs=3, verbose=False)
        return {"losses": np.array(made.history["loss"]), **made.model.state_dict()}

    alone = trainer_of(None)
    rows = [np.r_[a : a + 6, b : b + 4] for a, b in zip(cuts[0][:-1], cuts[1][:-1])]
    alone.fit([(X[r], Y[r]) for r in rows], epochs=3, verbose=False)
    expected = {"losses": np.array(alone.history["loss"]), **alone.model.state_dict()}
    for found in run_threads(2, work, timeout=WAIT):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


def pressed(name, home, number):
    """A function that presses Ctrl-C at the call of that number in the main thread, and then calls
    what is there."""
    inner, calls = getattr(home, name), [0]

    def outer(*args, **kwargs):
        if threading.current_thread() is threading.main_thread():
            calls[0] += 1
            if calls[0] == number:
                signal.raise_signal(signal.SIGINT)
        return inner.fget(*args) if isinstance(inner, property) else inner(*args, **kwargs)

    return property(outer) if isinstance(inner, property) else outer


@pytest.mark.parametrize("average_every", [None, 3])
@pytest.mark.parametrize("place", ["before", "within", "behind"])
def test_ctrl_c_at_the_ends_of_a_run_ends_the_fit_of_all_alike(place, average_every, monkeypatch):
    """Rank 0 is in the main thread, where it is heard."""
    import gpubp.runtime.compiled_step as module

    name, home = {
        "before": ("checked_arguments", module),
        "within": ("updates", module.StepPrograms),
        "behind": ("value", OutputBuffers),
    }[place]
    monkeypatch.setattr(home, name, pressed(name, home, 3))
    ended = {}

    def work(communicator):
        made = trainer_of(communicator, average_every=average_every)
        made.fit(X, Y, epochs=100, batch_size=8, verbose=False, validation_split=0.2)
        ended[communicator.rank] = made

    communicators = thread_group(2, WAIT)
    other = threading.Thread(target=work, args=(communicators[1],))
    other.start()
    work(communicators[0])
    other.join()
    assert [ended[rank].stop_reason for rank in range(2)] == ["interrupted"] * 2
    assert ended[0].steps == ended[1].steps < 500
    assert ended[0].epoch == ended[1].epoch
    assert_same_bits(ended[1].model.state_dict(), ended[0].model.state_dict())


def test_data_that_have_been_compared_are_not_read_again_while_they_are_said_to_be_the_same(
    monkeypatch,
):
    read = []
    monkeypatch.setattr(
        "gpubp.runtime.rank_agreement.fingerprint", lambda array: str(read.append(array.shape))
    )

    def work(communicator):
        step = step_of(parallel(communicator), *classifier())
        x = X.copy()
        for checked in (False, True, True):
            step.run(x, Y, checked=checked)
        step.run(X, Y, checked=True)  # other data, whoever says that they are known

    run_threads(2, work, timeout=WAIT)
    # By each rank: both arrays at first, then the other x.
    assert sorted(read) == sorted(2 * [X.shape, Y.shape, X.shape])


def test_who_left_first_is_named_also_where_its_note_comes_last():
    first = "5 ValueError: out of luck"
    second = "-1 LostPeerError: rank 1: rank 0 has left: ValueError: out of luck"
    for notes in ({0: first}, {1: second}, {0: first, 1: second}):
        assert who_left(3, notes.get) == "rank 0 has left: ValueError: out of luck"
    dead = {0: "-1 LostPeerError: rank 0: the process of rank 1 has ended"}
    assert who_left(3, dead.get) == "the process of rank 1 has ended"
    late = {2: "-1 LostPeerError: rank 2: another rank did not come within 3 s"}
    assert who_left(3, late.get).startswith("rank 2 has left: LostPeerError: rank 2: another rank")
