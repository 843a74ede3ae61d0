"""What checkpoints hold at the ends of runs: best weights, averages, no state that has diverged."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from points import assert_same, points, trainer
from registered import BACKENDS

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import CheckpointError, DataError
from gpubp.nn.parameter import Buffer
from gpubp.train import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    TerminateOnNaN,
    Trainer,
    load_model,
    load_weights,
    tensorfile,
)

X, Y = points()


def _fit(made, **options):
    """6 batches an epoch."""
    options = {"epochs": 4, "batch_size": 16, "verbose": False, **options}
    made.fit(X, Y, **options)
    return made


def _same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(b[name], value, err_msg=name)


class Script(Callback):
    """Adds numbers to the records as if they had been measured, and keeps the weights."""

    def __init__(self, values):
        self.values, self.kept = values, []

    def on_epoch_end(self, trainer, epoch, record):
        record["val_loss"] = self.values[epoch - 1]
        self.kept.append(trainer.model.state_dict())


VALUES = [3.0, 1.0, 2.0, 2.5, 0.5, 0.6, 0.7, 0.8]


def _stopping(patience=2, values=VALUES):
    return [Script(values), EarlyStopping("val_loss", patience, restore_best_weights=True)]


# The best weights, where the run ended with them.


def test_a_checkpoint_gives_the_model_that_the_run_ended_with(tmp_path):
    path, callbacks = tmp_path / "run.ckpt", _stopping()
    made = _fit(trainer(), epochs=8, checkpoint=path, callbacks=callbacks)
    assert made.epoch == 4
    _same(made.model.state_dict(), callbacks[0].kept[1])
    _same(load_model(path).model.state_dict(), callbacks[0].kept[1])
    other = trainer()
    load_weights(path, other.model)
    _same(other.model.state_dict(), callbacks[0].kept[1])


def test_a_run_that_goes_on_goes_on_from_its_last_weights(tmp_path):
    path = tmp_path / "run.ckpt"
    whole = _fit(trainer(), epochs=8, callbacks=_stopping(9))
    _fit(trainer(), epochs=4, checkpoint=path, callbacks=_stopping(9))
    ended = load_model(path).model.state_dict()
    callbacks = _stopping(9)
    resumed = _fit(trainer(), epochs=8, checkpoint=path, resume=path, callbacks=callbacks)
    assert_same(resumed, whole)
    _same(load_model(path).model.state_dict(), callbacks[0].kept[0])  # of epoch 5
    assert not np.array_equal(ended["0.weight"], resumed.model.state_dict()["0.weight"])


def test_a_run_that_was_over_ends_with_the_same_weights_again(tmp_path):
    path, callbacks = tmp_path / "run.ckpt", _stopping()
    made = _fit(trainer(), epochs=8, checkpoint=path, callbacks=callbacks)
    before = path.read_bytes()
    again = _fit(trainer(), epochs=8, checkpoint=path, resume=path, callbacks=_stopping())
    _same(again.model.state_dict(), made.model.state_dict())
    assert path.read_bytes() == before


def test_a_run_within_an_epoch_ends_with_its_best_weights_too(tmp_path):
    path, callbacks = tmp_path / "run.ckpt", _stopping(9)
    whole = _fit(trainer(), epochs=5, callbacks=_stopping(9))
    _fit(trainer(), epochs=5, checkpoint=path, callbacks=callbacks, max_steps=20)
    _same(load_model(path).model.state_dict(), callbacks[0].kept[1])
    resumed = _fit(trainer(), epochs=5, resume=path, callbacks=_stopping(9))
    assert_same(resumed, whole)


def test_a_run_that_is_cut_off_gives_its_last_weights(tmp_path):
    path = tmp_path / "run.ckpt"

    class Cut(Callback):
        def on_epoch_begin(self, trainer, epoch):
            if epoch == 4:
                raise RuntimeError("cut")

    callbacks = [*_stopping(9), Cut()]
    with pytest.raises(RuntimeError, match="cut"):
        _fit(trainer(), epochs=8, checkpoint=path, callbacks=callbacks)
    _same(load_model(path).model.state_dict(), callbacks[0].kept[2])


def test_weights_that_a_callback_of_the_users_leaves_are_the_models_too(tmp_path):
    path = tmp_path / "run.ckpt"

    class Ones(Callback):
        def on_train_end(self, trainer):
            trainer.model[0].weight.value = np.ones((8, 2))

    made = _fit(trainer(), checkpoint=path, callbacks=[Ones()])
    _same(load_model(path).model.state_dict(), made.model.state_dict())
    plain = tmp_path / "plain.ckpt"
    _fit(trainer(), checkpoint=plain)
    assert "ended" not in tensorfile.read(plain)[1]


def test_without_a_checkpoint_of_this_run_nothing_is_added(tmp_path):
    path = tmp_path / "run.ckpt"
    _fit(trainer(), checkpoint=path)
    before = path.read_bytes()

    class Spoil(Callback):
        def on_epoch_begin(self, trainer, epoch):
            trainer.model[0].weight.value = np.full((8, 2), np.inf)

        def on_train_end(self, trainer):
            trainer.model[0].weight.value = np.ones((8, 2))

    with pytest.warns(UserWarning, match="nothing was saved before"):
        _fit(trainer(), checkpoint=path, callbacks=[Spoil()])
    assert path.read_bytes() == before


# Runs that diverge.


class Blow(Callback):
    """Makes a weight unusable when an epoch begins, or when a step is done."""

    def __init__(self, epoch=None, step=None, value=np.nan):
        self.epoch, self.step, self.value = epoch, step, value

    def on_epoch_begin(self, trainer, epoch):
        if epoch == self.epoch:
            self._spoil(trainer)

    def on_chunk_end(self, trainer, losses):
        if trainer.steps == self.step:
            self._spoil(trainer)

    def _spoil(self, trainer):
        trainer.model[0].weight.value = np.full((8, 2), self.value)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{}, {"save_every_steps": 1}, {"save_every": 2}])
def test_a_run_that_diverges_keeps_its_last_good_state(tmp_path, watched, value, options):
    path = tmp_path / "run.ckpt"
    good = _fit(trainer(), epochs=2)
    callbacks = [Blow(epoch=3, value=value), *([TerminateOnNaN()] if watched else [])]
    with pytest.warns(UserWarning, match="it keeps the state of step 12") as found:
        made = _fit(trainer(), checkpoint=path, callbacks=callbacks, **options)
    assert made.diverged == watched
    assert len([w for w in found if "was not written" in str(w.message)]) == 1
    _same(load_model(path).model.state_dict(), good.model.state_dict())


def test_a_state_that_blew_up_after_the_last_loss_is_not_saved_either(tmp_path):
    path = tmp_path / "run.ckpt"
    good = _fit(trainer(), epochs=2)
    with pytest.warns(UserWarning, match="weights are not finite"):
        _fit(trainer(), epochs=3, checkpoint=path, callbacks=[Blow(step=18)])
    _same(load_model(path).model.state_dict(), good.model.state_dict())


def test_a_loss_that_is_infinite_once_does_not_stop_saving_for_good(tmp_path):
    path = tmp_path / "run.ckpt"

    def once(outputs, y, weights=None):
        return ops.mean(ops.square(outputs)) + ops.stop_gradient(ops.max(outputs) * 0 + flag)

    flag = Buffer(np.float32(0.0), "flag")

    class Spoil(Callback):
        def on_epoch_begin(self, trainer, epoch):
            flag.value = np.float32(np.inf if epoch == 2 else 0.0)

    model = nn.Linear(2, 3)
    made = Trainer(model, once, optim.SGD(model.parameters(), 0.01), backend="numpy")
    with pytest.warns(UserWarning, match="a loss of the epoch is not finite: it keeps .* step 6"):
        _fit(made, checkpoint=path, callbacks=[Spoil()])
    _same(load_model(path).model.state_dict(), model.state_dict())


@pytest.mark.parametrize("best", [True, False])
def test_model_checkpoints_never_hold_weights_that_are_not_finite(tmp_path, best):
    path = tmp_path / "m.safetensors"
    keep = ModelCheckpoint(path, "loss", save_best_only=best)
    _fit(trainer(), callbacks=[Blow(step=12), keep])
    assert all(np.isfinite(a).all() for a in load_model(path).model.state_dict().values())


def test_best_weights_are_finite():
    stopping = EarlyStopping("loss", 9, restore_best_weights=True)
    made = _fit(trainer(), callbacks=[Blow(step=18), stopping])
    assert stopping.best_epoch == 2
    assert made.weights_are_finite()


def test_infinity_is_never_the_best():
    for mode, value in (("max", np.inf), ("min", -np.inf)):
        stopping = EarlyStopping("val_loss", 9, mode=mode)
        _fit(trainer(), callbacks=[Script([1.0, value, 2.0, 1.5]), stopping])
        assert stopping.best in (1.0, 2.0)


# Averages.


def _averaged():
    return trainer(average=0.9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_saved_inside_apply_is_the_state(tmp_path, backend):
    inside, outside = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    made = _fit(trainer(backend, average=0.9), epochs=2)
    raw, averages = made.model.state_dict(), made.ema.averages
    made.save(outside)
    with made.ema.apply():
        applied = made.model.state_dict()
        made.save(inside)
        _same(made.model.state_dict(), applied)
    assert inside.read_bytes() == outside.read_bytes()
    resumed = trainer(backend, average=0.9)
    resumed.load(inside)
    _same(resumed.model.state_dict(), raw)
    for mine, theirs in zip(resumed.ema.averages, averages, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_state_loaded_inside_apply_is_the_state(tmp_path):
    path = tmp_path / "a.ckpt"
    made = _fit(_averaged(), epochs=2)
    made.save(path)
    raw, averages, count = made.model.state_dict(), made.ema.averages, made.ema.n_averaged
    _fit(made, epochs=1)
    with made.ema.apply():
        made.load(path)
        weights = [p.numpy() for p in made.model.parameters()]
        for weight, average in zip(weights, averages, strict=True):
            np.testing.assert_array_equal(weight, average)
    _same(made.model.state_dict(), raw)
    for mine, theirs in zip(made.ema.averages, averages, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert made.ema.n_averaged == count


def test_averages_are_there_as_soon_as_a_state_is_loaded(tmp_path):
    path = tmp_path / "a.ckpt"
    made = _fit(_averaged(), epochs=2, checkpoint=path)
    loaded = _averaged()
    loaded.load(path)
    with made.ema.apply(), loaded.ema.apply():
        np.testing.assert_array_equal(loaded.predict(X), made.predict(X))


def test_a_state_that_does_not_fit_changes_no_averages(tmp_path):
    path = tmp_path / "a.ckpt"
    made = _fit(trainer(average=0.9, hidden=8), epochs=1, checkpoint=path)
    tensors, record = tensorfile.read(path)
    record["trainer"]["ema"]["averages"] = record["trainer"]["ema"]["averages"][:-1]
    tensorfile.write(path, tensors, record)
    before, averages = made.model.state_dict(), made.ema.averages
    _fit(made, epochs=1)
    after = made.model.state_dict()
    with pytest.raises(CheckpointError, match="expected 4"):
        made.load(path)
    _same(made.model.state_dict(), after)
    assert not np.array_equal(before["0.weight"], after["0.weight"])
    assert len(averages) == 4


def test_training_inside_apply_is_refused_before_anything_is_loaded(tmp_path):
    path = tmp_path / "a.ckpt"
    made = _fit(_averaged(), epochs=2, checkpoint=path)
    steps = made.steps
    with made.ema.apply(), pytest.raises(DataError, match=r"leave `with ema.apply\(\):`"):
        _fit(made, resume=path)
    assert made.steps == steps


def test_averages_kept_for_good_inside_apply():
    made = _fit(_averaged(), epochs=1)
    averages = made.ema.averages
    with made.ema.apply():
        made.ema.copy_to_params()
    for param, average in zip(made.model.parameters(), averages, strict=True):
        np.testing.assert_array_equal(param.numpy(), average)


def test_the_scale_of_the_loss_is_loaded_by_its_name(tmp_path):
    path = tmp_path / "a.ckpt"
    made = _fit(trainer(loss_scale=gp.LossScale(256.0, growth_interval=5)), checkpoint=path)
    assert float(made.step.settings.loss_scale.scale.value) > 256.0
    loaded = trainer(loss_scale=gp.LossScale(256.0, growth_interval=5))
    loaded.load(path)
    assert (
        loaded.step.settings.loss_scale.state_dict() == made.step.settings.loss_scale.state_dict()
    )


# What a resumed run does with new options.


def test_what_was_changed_after_loading_is_not_undone(tmp_path):
    path = tmp_path / "a.ckpt"
    _fit(trainer(), epochs=1, checkpoint=path)
    loaded = trainer()
    loaded.load(path)
    loaded.model[3].weight.value = np.zeros((3, 8))
    loaded.optimizer.param_groups[0]["lr"] = 0.0
    before = loaded.model.state_dict()
    _fit(loaded, epochs=1)
    _same(loaded.model.state_dict(), before)


def test_a_resumed_run_says_what_it_did_with_new_options(tmp_path):
    path = tmp_path / "a.ckpt"
    _fit(trainer(options={"lr": 0.02}), epochs=2, checkpoint=path)
    resumed = trainer(options={"lr": 0.1, "betas": (0.8, 0.99)}, max_grad_norm=None)
    with pytest.warns(UserWarning) as found:
        _fit(resumed, resume=path, batch_size=30)
    said = " ".join(str(w.message) for w in found)
    assert "lr=0.02 (0.1 was not taken)" in said
    assert "betas=[0.9, 0.999] ([0.8, 0.99] was not taken)" in said
    assert "batch_size=30 (was 16)" in said
    assert found[0].filename == __file__
    assert resumed.optimizer.param_groups[0]["lr"] == 0.02


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            {"schedule": ("StepLR", {"step_size": 1})},
            {"schedule": ("StepLR", {"step_size": 3})},
            r"StepLR.step_size=1 \(3 was not taken\)",
        ),
        (
            {"schedule": ("ReduceLROnPlateau", {"patience": 1})},
            {"schedule": ("ReduceLROnPlateau", {"patience": 5})},
            r"patience=1 \(5 was not taken\)",
        ),
        ({"average": 0.9}, {"average": 0.99}, r"ema decay=0.99 \(was 0.9\)"),
        ({"max_grad_value": 1.0}, {"max_grad_value": 2.0}, r"max_grad_value=2.0 \(was 1.0\)"),
        ({"optimizer": "Adam"}, {"optimizer": "AdamW"}, r"optimizer=AdamW \(was Adam\)"),
    ],
)
def test_options_of_schedules_steps_and_averages(tmp_path, first, second, said):
    path = tmp_path / "a.ckpt"
    _fit(trainer(**first), epochs=2, checkpoint=path)
    with pytest.warns(UserWarning, match=said):
        _fit(trainer(**second), resume=path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": ("ExponentialLR", {"gamma": 0.5})},
        {"schedule": ("ReduceLROnPlateau", {"patience": 0, "threshold": 9.0})},
        {
            "schedule": ("OneCycleLR", {"max_lr": 0.1, "total_steps": 99}),
            "scheduler_every": "step",
        },
    ],
)
def test_the_same_options_say_nothing(tmp_path, options):
    path = tmp_path / "a.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _fit(trainer(**options), epochs=2, checkpoint=path, max_steps=9)
        _fit(trainer(**options), epochs=3, checkpoint=path, resume=path)
        made = _fit(trainer(**options), epochs=4, checkpoint=path, resume=path)
        _fit(made, epochs=5, checkpoint=path, resume=path)  # the same trainer goes back
