"""Where training stands is one record: the loop moves it on, users read it, checkpoints hold it."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, optim
from gpubp.train import Callback, tensorfile
from gpubp.train.train_state import TrainState

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(22, 3)).astype(np.float32), RNG.normal(size=(22, 2)).astype(np.float32)


def _trainer():
    model = nn.Linear(3, 2)
    return gp.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), backend="numpy")


def _state(seed=0):
    return TrainState(np.random.Generator(np.random.PCG64(seed)))


def _within_an_epoch():
    """After 2 of 5 epochs and 4 batches, stopped by a user's reason."""
    state = _state()
    state.epoch, state.steps, state.fit_steps = 2, 14, 1
    state.start_order()
    state.rng.permutation(9)
    state.position = 16
    state.losses = [np.ones((3, 1, 2)), np.full((1, 1, 2), 3.0)]
    for epoch in (1, 2, 2.7):
        state.history.add({"epoch": epoch, "loss": 0.5})
    state.fit_facts, state.made = {"samples": 22}, {"kept": {"lr": 0.1}}
    state.stop("a reason of mine")
    state.stop("another one", diverged=True)
    return state


def test_a_state_is_taken_over_as_it_was():
    was, now = _within_an_epoch(), _state(seed=5)
    saved = was.state_dict()
    assert list(saved) == TrainState.saved()
    now.load_state_dict(saved)
    again = now.state_dict()
    np.testing.assert_array_equal(again.pop("losses"), saved.pop("losses"))
    assert again == saved
    assert (now.epoch, now.batches, now.stop_reason) == (2, 4, "a reason of mine")
    assert was.diverged and not now.diverged
    assert [record["epoch"] for record in now.history.records] == [1, 2]  # 2.7 will be finished
    now.start_order()
    assert now.rng.bit_generator.state == _state().rng.bit_generator.state


@pytest.mark.parametrize("reason", ["interrupted", "max_steps", "max_time"])
def test_reasons_that_pass_are_not_saved(reason):
    state = _state()
    state.stop(reason)
    assert state.stop_reason == reason and state.state_dict()["stop_reason"] is None


def test_a_state_that_cannot_be_taken_over_changes_nothing():
    state = _within_an_epoch()
    before = repr(state), repr(state.state_dict())
    with pytest.raises((TypeError, ValueError)):
        state.load_state_dict({**_state().state_dict(), "rng": "none"})
    assert (repr(state), repr(state.state_dict())) == before


def test_a_checkpoint_holds_every_field_that_is_marked(tmp_path):
    trainer = _trainer()
    trainer.fit(X, Y, epochs=2, verbose=False)
    trainer.save(tmp_path / "run.ckpt")
    _, record = tensorfile.read(tmp_path / "run.ckpt")
    assert set(TrainState.saved()) <= set(record["trainer"])
    others = {"optimizer", "slots", "scheduler", "callbacks", "generator", "ema", "loss_scale"}
    about_slots = {"slot_names", "ranks"}
    assert set(record["trainer"]) - set(TrainState.saved()) == others | about_slots


def test_users_read_and_set_the_state_through_the_trainer():
    trainer, seen = _trainer(), []

    class Watch(Callback):
        def on_chunk_end(self, given, losses):
            assert given is trainer
            seen.append((given.epoch, given.position, given.steps, len(given.losses)))

    trainer.fit(X, Y, epochs=2, batch_size=10, verbose=False, callbacks=[Watch()])
    assert seen[-1][0] == 1 and seen[-1][1:3] == (22, 6)
    public = {f.name for f in fields(TrainState)} & set(dir(type(trainer)))
    assert public >= {"epoch", "steps", "position", "history", "losses", "stop_reason", "diverged"}
    for name in public:
        assert getattr(trainer, name) is getattr(trainer.state, name)
    trainer.epoch = 7
    assert trainer.state.epoch == 7
    trainer.stop("enough")
    assert trainer.state.stop_reason == trainer.stop_reason == "enough"
