"""Ends of epochs and runs: what is known before the first step, and what a stop leaves behind."""

from __future__ import annotations

import csv
import math
import os
import signal
import warnings
from functools import cache

import numpy as np
import pytest
from points import assert_same, points, trainer

from gpubp import nn, ops, optim
from gpubp.data import sources
from gpubp.errors import CheckpointError, DataError, ShapeError, UnknownNameError
from gpubp.train import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LRMonitor,
    ModelCheckpoint,
    TerminateOnNaN,
    Trainer,
)
from gpubp.train.direction import direction

X, Y = points()
HELD = {"validation_data": (X[:40], Y[:40])}


def _fit(made, *data, **options):
    """6 batches an epoch."""
    options = {"epochs": 3, "verbose": False, **options}
    data = data or (X, Y)
    if len(data) == 2:
        options.setdefault("batch_size", 16)
    return made.fit(*data, **options)


def _normalised(track=True, **options):
    ops.manual_seed(0)
    norm = nn.BatchNorm1d(8, track_running_stats=track)
    model = nn.Sequential(nn.Linear(2, 8), norm, nn.ReLU(), nn.Linear(8, 3))
    optimizer = optim.Adam(model.parameters())
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, backend="numpy", **options)


# Last batches of one.


@pytest.mark.parametrize(
    ("batch_size", "options"),
    [(88, {}), (8, {"accumulate": 3}), (44, {"max_steps": 3}), (1, {})],
)
def test_a_last_batch_of_one_is_refused_before_the_first_step(batch_size, options):
    made = _normalised(accumulate=options.pop("accumulate", 1))
    advice = "one value a channel" if batch_size == 1 else "has 1 sample; pass drop_last=True"
    with pytest.raises(ShapeError, match=advice):
        _fit(made, X[:89], Y[:89], batch_size=batch_size, **options)
    assert made.steps == 0
    assert int(made.model[1].num_batches_tracked.value) == 0


def test_a_last_batch_that_is_never_reached_is_no_fault():
    made = _normalised()
    _fit(made, X[:89], Y[:89], batch_size=44, max_steps=2)
    assert made.steps == 2
    # Where it would be reached in the rest of the epoch, it is.
    with pytest.raises(ShapeError, match="drop_last"):
        _fit(_normalised(), X[:89], Y[:89], batch_size=44, max_steps=3)


def test_a_list_of_batches_with_one_of_one_sample_is_refused_at_once():
    stream = [(X[:16], Y[:16]), (X[16:17], Y[16:17]), (X[17:40], Y[17:40])]
    made = _normalised()
    with pytest.raises(ShapeError, match="has 1 sample; leave it out"):
        _fit(made, stream)
    assert made.steps == 0


def test_validation_that_the_model_cannot_take_is_refused_at_once():
    made = _normalised(track=False)
    with pytest.raises(ShapeError, match="BatchNorm1d"):
        _fit(made, validation_data=(X[:1], Y[:1]))
    assert made.steps == 0


def test_drop_last_trains_on_whole_batches():
    made, whole = trainer(dropout=0.0), trainer(dropout=0.0)
    history = _fit(made, batch_size=40, drop_last=True, shuffle=False)
    assert (made.steps, made.epoch) == (6, 3)
    _fit(whole, X[:80], Y[:80], batch_size=40, shuffle=False)
    assert history["loss"] == whole.history["loss"]
    assert_same(made, whole)


def test_drop_last_draws_all_rows_and_leaves_out_the_last_of_them():
    batches = []

    class Seen(Callback):
        def on_epoch_end(self, trainer, epoch, record):
            batches.append(trainer.steps)

    made = _normalised()
    _fit(made, X[:89], Y[:89], batch_size=44, drop_last=True, callbacks=[Seen()])
    assert batches == [2, 4, 6]
    full = _fit(trainer(), batch_size=45, drop_last=True)
    assert full.records == _fit(trainer(), batch_size=45).records


def test_drop_last_of_mapped_arrays_and_resumption(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 300)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    whole, path = trainer(), tmp_path / "run.ckpt"
    _fit(whole, drop_last=True)
    assert whole.steps == 15
    made = trainer()
    _fit(made, mapped, Y, drop_last=True, max_steps=7, checkpoint=path)
    assert made.history["epoch"] == [1, pytest.approx(1.4)]
    resumed = trainer()
    _fit(resumed, mapped, Y, drop_last=True, resume=path)
    assert_same(resumed, whole)
    with pytest.raises(CheckpointError, match=r"stands within an epoch of .*'drop_last': True"):
        _fit(trainer(), resume=path)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((X, Y), {"batch_size": 91}, "leaves nothing of 90 samples"),
        ((X, Y), {"batch_size": 64, "validation_split": 0.5}, "leaves nothing of 45"),
        (([(X, Y)],), {}, "an iterable makes its own batches"),
    ],
)
def test_drop_last_that_cannot_be(data, options, message):
    with pytest.raises(DataError, match=message):
        _fit(trainer(), *data, drop_last=True, **options)


# Metrics: undefined ones, and names.


def test_an_undefined_auc_is_nan_with_a_warning():
    made = trainer()
    held = (X[:20], np.zeros(20, int))
    with pytest.warns(UserWarning, match="auc is not defined"):
        history = _fit(made, validation_data=held, metrics=["auc"])
    assert len(history["auc"]) == 3
    assert np.isnan(history["val_auc"]).all()
    assert np.isfinite(history["auc"]).all()


def test_early_stopping_on_numbers_that_are_never_defined():
    stopping = EarlyStopping("val_auc", patience=2, restore_best_weights=True)
    made = trainer()
    held = (X[:20], np.zeros(20, int))
    with pytest.warns(UserWarning, match="auc is not defined"):
        _fit(made, epochs=9, validation_data=held, metrics=["auc"], callbacks=[stopping])
    assert made.epoch == 2
    assert "was in no epoch a finite number (nan at last)" in made.stop_reason


@pytest.mark.parametrize(
    ("metrics", "options", "message"),
    [
        (["top_4_accuracy"], {}, "at least 4 outputs"),
        (["mse"], {}, "mse needs"),
        (["f1", "f1"], {}, "the metric 'f1' stands twice"),
    ],
)
def test_metrics_that_targets_do_not_have_are_refused_before_the_first_step(
    metrics, options, message
):
    for held in ({}, HELD):
        made = trainer()
        with pytest.raises(DataError, match=message):
            _fit(made, metrics=metrics, **held)
        assert made.steps == 0


def test_metrics_of_a_stream_need_data_to_measure_them_on():
    with pytest.raises(DataError, match="are measured on validation_data"):
        _fit(trainer(), [(X, Y)], metrics=["f1"])


def loss(y, outputs):
    return 99.0


def lr(y, outputs):
    return 98.0


def val_loss(y, outputs):
    return 97.0


def epoch(y, outputs):
    return 96.0


def accuracy(y, outputs):
    return 95.0


def test_names_that_are_taken_are_recorded_under_others():
    plain = _fit(trainer(), **HELD, callbacks=[LRMonitor()])
    with pytest.warns(UserWarning, match="'loss' here.* recorded as 'metric_loss'") as found:
        made = _fit(
            trainer(),
            **HELD,
            metrics=["accuracy", loss, lr, val_loss, epoch, accuracy, lambda y, o: 1.0,
                     lambda y, o: 2.0],
            callbacks=[LRMonitor()],
        )  # fmt: skip
    assert len([w for w in found if "is recorded as" in str(w.message)]) == 6
    for name in plain:
        assert made[name] == plain[name]
    names = ["metric_loss", "metric_lr", "metric_val_loss", "metric_epoch", "accuracy_2"]
    assert [made[n][-1] for n in names] == [99.0, 98.0, 97.0, 96.0, 95.0]
    assert (made["<lambda>"], made["<lambda>_2"]) == ([1.0] * 3, [2.0] * 3)
    assert made["val_metric_loss"] == [99.0] * 3


def test_evaluate_names_them_alike():
    made = trainer()
    with pytest.warns(UserWarning, match="metric_loss"):
        found = made.evaluate(X, Y, metrics=[loss])
    assert found["loss"] == made.evaluate(X, Y)["loss"]
    assert found["metric_loss"] == 99.0


def test_a_metric_that_is_no_number_says_so():
    def each(y, outputs):
        return outputs

    with pytest.raises(DataError, match=r"metric each gave float32 of shape \(90, 3\)"):
        trainer().evaluate(X, Y, metrics=[each])


# What monitors watch.


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *[(n, "max") for n in ("val_acc", "val_kappa", "val_R2", "accuracy", "top_5_accuracy")],
        *[(n, "max") for n in ("f1_macro", "val_roc_auc", "neg_mean_squared_error", "f1_score")],
        *[(n, "max") for n in ("BalancedAccuracy", "acc1", "val_mcc", "explained_variance")],
        *[(n, "min") for n in ("loss", "val_loss", "val_f1_loss", "val_inaccuracy", "error_rate")],
        *[(n, "min") for n in ("val_rmse", "brier_score", "accuracy_error", "perplexity")],
        *[(n, "min") for n in ("negative_log_likelihood", "val_MAE", "cross_entropy")],
        *[(n, None) for n in ("v", "lr", "val_custom", "epoch_time", "")],
    ],
)
def test_which_way_a_name_improves(name, way):
    assert direction(name) == way
    if way is None:
        with pytest.warns(UserWarning, match="pass mode='min' or mode='max'") as found:
            assert EarlyStopping(name).mode == "min"
        assert found[0].filename == __file__
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert EarlyStopping(name).mode == ModelCheckpoint("m", name).mode == way
    assert EarlyStopping(name, mode="max").mode == "max"


def _no_step(made, error, message, **options):
    with pytest.raises(error, match=message):
        _fit(made, **options)
    assert (made.steps, made.history.records) == (0, [])


@pytest.mark.parametrize(
    "callback",
    [
        lambda: EarlyStopping("val_loss"),
        lambda: EarlyStopping("f1"),
        lambda: ModelCheckpoint("m.safetensors", "val_accuracy"),
    ],
)
def test_what_will_not_be_recorded_is_refused_before_the_first_step(callback, tmp_path):
    known = [LRMonitor(), CSVLogger(tmp_path / "a.csv")]
    _no_step(trainer(), UnknownNameError, "to watch", callbacks=[*known, callback()])


def test_what_callbacks_add_may_be_watched_after_them():
    class Adds(Callback):
        def on_epoch_end(self, trainer, epoch, record):
            record["val_loss"] = 1.0

    _fit(trainer(), callbacks=[Adds(), EarlyStopping("val_loss", patience=9)])
    _fit(trainer(), callbacks=[LRMonitor(), EarlyStopping("lr", patience=9, mode="min")])
    _no_step(trainer(), UnknownNameError, "'val_loss'", callbacks=[EarlyStopping(), Adds()])


def test_places_that_cannot_be_written_are_refused_before_the_first_step(tmp_path):
    missing = tmp_path / "no" / "run"
    _no_step(trainer(), CheckpointError, "the folder .* is not there", checkpoint=missing)
    best = ModelCheckpoint(missing, "loss")
    _no_step(trainer(), DataError, "the folder .* is not there", callbacks=[best])
    best = ModelCheckpoint(tmp_path / "m-{val_acc}", "loss")
    _no_step(trainer(), DataError, "cannot be filled in.*epoch, loss", callbacks=[best])


class Odd(Callback):
    def state_dict(self):
        return {"thing": object()}


class Stateless:
    def step(self):
        pass


def test_what_cannot_be_saved_is_refused_before_the_first_step(tmp_path):
    path = tmp_path / "run.ckpt"
    _no_step(trainer(), CheckpointError, "holds a object", checkpoint=path, callbacks=[Odd()])
    made = trainer(scheduler=Stateless())
    _no_step(made, CheckpointError, r"Stateless has no state_dict\(\)", checkpoint=path)
    _no_step(trainer(), CheckpointError, "holds a set", checkpoint=path, extra={"a": {1}})
    assert not path.exists()
    _fit(trainer(scheduler=Stateless()), callbacks=[Odd()])


# Stops: streams as arrays, at the last batch of an epoch too.


class _Stop(Callback):
    """Asks to stop when so many steps are done."""

    def __init__(self, steps):
        self.steps = steps

    def on_chunk_end(self, trainer, losses):
        if trainer.steps >= self.steps:
            trainer.stop("enough")


class _Press(_Stop):
    """Presses Ctrl-C then."""

    def on_chunk_end(self, trainer, losses):
        if trainer.steps == self.steps:
            os.kill(os.getpid(), signal.SIGINT)


class _Late(_Stop):
    """Takes until after the deadline then."""

    def on_chunk_end(self, trainer, losses):
        if trainer.steps == self.steps:
            self.fit._deadline = -math.inf


def _batches():
    return [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 90, 16)]


KINDS = {
    "arrays": lambda: (X, Y),
    "list": lambda: (_batches(),),
    "function": lambda: (lambda: iter(_batches()),),
}
STOPS = ["max_steps", "callback", "ctrl-c", "max_time"]


def _ended(monkeypatch, kind, how, steps, held=HELD, **options):
    """A run that stops after so many steps, for that reason."""
    from gpubp.train import fit

    monkeypatch.setattr(fit, "FIRST_CHUNK_BATCHES", 1)
    monkeypatch.setattr(fit, "SECONDS_BETWEEN_LOOKS", 0.0)
    made = trainer()
    callback = {"callback": _Stop, "ctrl-c": _Press, "max_time": _Late}.get(how)
    callbacks = [callback(steps)] if callback else [_Stop(10**9)]
    if how == "max_time":
        inner = fit.Fit.__init__

        def noted(self, *arguments):
            inner(self, *arguments)
            callbacks[0].fit = self

        monkeypatch.setattr(fit.Fit, "__init__", noted)
    more = {"max_steps": steps} if how == "max_steps" else {}
    _fit(made, *KINDS[kind](), shuffle=False, **held, callbacks=callbacks, **more, **options)
    assert made.steps == steps
    return made


@pytest.mark.parametrize("how", STOPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [6, 12, 18])
def test_a_stop_at_the_last_batch_of_an_epoch_counts_it(monkeypatch, kind, how, steps):
    # After Ctrl-C nothing is measured any more; see the next test.
    held = {} if how == "ctrl-c" else HELD
    made = _ended(monkeypatch, kind, how, steps, held)
    assert (made.epoch, made.position) == (steps // 6, 0)
    assert made.history["epoch"] == list(range(1, steps // 6 + 1))
    assert len(made.history["val_loss" if held else "loss"]) == steps // 6
    assert made.stop_reason is not None


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_at_the_last_batch_leaves_an_epoch_that_is_to_be_measured(monkeypatch, kind):
    made = _ended(monkeypatch, kind, "ctrl-c", 12)
    assert (made.epoch, made.position, made.stop_reason) == (1, 90, "interrupted")
    assert np.isnan(made.history["val_loss"]).tolist() == [False, True]


@cache
def _never_stopped(kind):
    whole = trainer()
    _fit(whole, *KINDS[kind](), shuffle=False, **HELD)
    return whole


@pytest.mark.parametrize("how", STOPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 6, 12, 17])
def test_a_run_resumed_after_any_end_is_one_never_stopped(monkeypatch, tmp_path, kind, how, steps):
    path = tmp_path / "run.ckpt"
    _ended(monkeypatch, kind, how, steps, checkpoint=path)
    monkeypatch.undo()
    if how == "callback":  # a callback's reason stays: training goes on in a call of its own
        resumed = trainer()
        resumed.load(path)
        left, data = -(-(18 - steps) // 6), KINDS[kind]()
        _fit(resumed, *data, shuffle=False, **HELD, callbacks=[_Stop(10**9)], epochs=left)
    else:
        resumed = trainer()
        same = {"max_steps": _Stop, "ctrl-c": _Press, "max_time": _Late}[how]
        _fit(resumed, *KINDS[kind](), shuffle=False, **HELD, resume=path, callbacks=[same(10**9)])
    assert_same(resumed, _never_stopped(kind))


@pytest.mark.parametrize("steps", [4, 6, 8])
def test_a_budget_that_was_used_up_trains_no_more(tmp_path, steps):
    path = tmp_path / "run.ckpt"
    made = trainer()
    _fit(made, **HELD, max_steps=steps, checkpoint=path)
    again = trainer()
    _fit(again, **HELD, max_steps=steps, checkpoint=path, resume=path)
    assert again.stop_reason == "max_steps"
    assert again.history.records == made.history.records
    assert_same(again, made)


def test_the_share_of_a_stream_is_known_or_nan():
    def share(stream, steps, epochs=3):
        return _fit(trainer(), stream, max_steps=steps, epochs=epochs)["epoch"]

    assert share(_batches(), 3) == [0.5]
    assert share(_batches(), 8) == [1, pytest.approx(1 + 32 / 90)]
    first = share(lambda: iter(_batches()), 3)
    assert len(first) == 1
    assert math.isnan(first[0])
    assert share(lambda: iter(_batches()), 8) == [1, pytest.approx(1 + 32 / 90)]


def test_a_stop_that_was_asked_for_while_measuring_is_heard_before_the_next_epoch(tmp_path):
    path = tmp_path / "run.ckpt"

    class Press(Callback):
        def on_epoch_end(self, trainer, epoch, record):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    made = trainer()
    _fit(made, epochs=5, callbacks=[Press()], checkpoint=path, save_every=5)
    assert (made.stop_reason, made.epoch, made.steps) == ("interrupted", 2, 12)
    whole = trainer()
    _fit(whole, epochs=5)
    resumed = trainer()

    class Press(Callback):  # the file knows callbacks by their names
        pass

    _fit(resumed, epochs=5, resume=path, callbacks=[Press()])
    assert_same(resumed, whole)


@pytest.mark.parametrize("steps", [4, 6, 10])
def test_the_csv_log_is_the_history(tmp_path, steps):
    log = tmp_path / "run.csv"
    made = trainer()
    _fit(made, max_steps=steps, **HELD, callbacks=[CSVLogger(log)])
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == made.history.records


def test_callbacks_that_did_not_begin_do_not_end():
    ended = []

    class Ends(Callback):
        def on_train_end(self, trainer):
            ended.append(self)

    first, last = Ends(), Ends()
    with pytest.raises(UnknownNameError):
        _fit(trainer(), callbacks=[first, EarlyStopping("val_loss"), last])
    assert ended == [first]


def test_terminate_on_nan_marks_the_run_as_diverged():
    class Blow(Callback):
        def on_epoch_begin(self, trainer, epoch):
            if epoch == 2:
                trainer.model[0].weight.value = np.full((8, 2), np.nan)

    made = trainer()
    _fit(made, callbacks=[Blow(), TerminateOnNaN()])
    assert made.diverged
    made.model[0].weight.value = np.zeros((8, 2))
    made.model[3].weight.value = np.zeros((3, 8))
    _fit(made, epochs=1)
    assert not made.diverged
