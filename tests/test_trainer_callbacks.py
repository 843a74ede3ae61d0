"""Callbacks: when they are called, what each of them does, and what it remembers."""

from __future__ import annotations

import copy
import csv
import sys

import numpy as np
import pytest
from points import points, trainer

from gpubp import nn, optim
from gpubp.errors import DataError, MissingExtraError, NestingError, UnknownNameError
from gpubp.train import (
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    LRFinder,
    LRMonitor,
    MLflowLogger,
    ModelCheckpoint,
    TensorBoard,
    TerminateOnNaN,
    TrackioLogger,
    Trainer,
    WandbLogger,
    load_model,
)

X, Y = points()


def _quiet(made, epochs=1, **options):
    return made.fit(X, Y, epochs=epochs, verbose=False, **options)


class _Notes(Callback):
    def __init__(self, notes, name=""):
        self.notes, self.name = notes, name

    def on_train_begin(self, trainer):
        self.notes.append(f"{self.name}begin")

    def on_epoch_begin(self, trainer, epoch):
        self.notes.append(f"{self.name}epoch {epoch}")

    def on_chunk_end(self, trainer, losses):
        self.notes.append(f"{self.name}chunk {len(losses)} {trainer.position}")

    def on_epoch_end(self, trainer, epoch, record):
        record["seen"] = record.get("seen", 0) + 1
        self.notes.append(f"{self.name}end {epoch} {sorted(record)}")

    def on_train_end(self, trainer):
        self.notes.append(f"{self.name}over")


def test_when_callbacks_are_called():
    notes = []
    made = trainer()
    _quiet(made, 2, callbacks=[_Notes(notes)])
    one = ["chunk 3 90", "end {} ['epoch', 'loss', 'seen']"]
    assert notes == [
        "begin",
        *["epoch 1", one[0], one[1].format(1)],
        *["epoch 2", one[0], one[1].format(2)],
        "over",
    ]
    assert made.history["seen"] == [1, 1]


def test_callbacks_are_called_in_order_and_share_the_record():
    notes = []
    made = trainer()
    _quiet(made, callbacks=[_Notes(notes, "a "), _Notes(notes, "b ")])
    assert [note[0] for note in notes] == list("ab" * 5)
    assert made.history["seen"] == [2]


def test_an_error_in_a_callback_still_ends_training():
    class Broken(Callback):
        def on_epoch_end(self, trainer, epoch, record):
            raise RuntimeError("broken")

    notes = []
    with pytest.raises(RuntimeError, match="broken"):
        _quiet(trainer(), callbacks=[_Notes(notes), Broken()])
    assert notes[-1] == "over"


class _Script(Callback):
    """Adds numbers to the records as if they had been measured."""

    def __init__(self, values, name="val_loss"):
        self.values, self.name = values, name

    def on_epoch_end(self, trainer, epoch, record):
        record[self.name] = self.values[epoch - 1]


class _Keep(Callback):
    def __init__(self):
        self.weights = []

    def on_epoch_end(self, trainer, epoch, record):
        self.weights.append(trainer.model.state_dict())


@pytest.mark.parametrize(
    ("values", "options", "stopped", "best"),
    [
        ([5, 4, 3, 4, 3, 4, 1, 1], {"patience": 3}, 6, 3),
        ([5, 4, 3, 4, 3, 2, 1, 1], {"patience": 3}, None, 7),
        ([5, 4.9, 4.8, 1, 1, 1, 1, 1], {"patience": 2, "min_delta": 0.5}, 3, 1),
        ([1, 2, 3, 2, 2, 9, 9, 9], {"patience": 2, "mode": "max"}, 5, 3),
        ([1, float("nan"), float("nan"), 0, 0, 0, 0, 0], {"patience": 2}, 3, 1),
        ([0, 1, 5, 4, 6, 6, 3, 2], {"patience": 2, "start_from_epoch": 3}, 6, 4),
    ],
)
def test_early_stopping_stops_and_restores_the_best(values, options, stopped, best):
    keep = _Keep()
    stopping = EarlyStopping(**options, restore_best_weights=True)
    made = trainer()
    _quiet(made, 8, callbacks=[_Script(values), keep, stopping])
    assert made.epoch == (stopped or 8)
    assert (stopping.best_epoch, stopping.best) == (best, values[best - 1])
    for name, value in made.model.state_dict().items():
        np.testing.assert_array_equal(value, keep.weights[best - 1][name])
    if stopped:
        assert f"was best in epoch {best}" in made.stop_reason
    else:
        assert made.stop_reason is None


def test_early_stopping_without_restoring_keeps_the_last_weights():
    keep = _Keep()
    made = trainer()
    _quiet(made, 8, callbacks=[_Script([1] * 8), keep, EarlyStopping(patience=2)])
    np.testing.assert_array_equal(made.model.state_dict()["0.weight"], keep.weights[-1]["0.weight"])
    assert made.epoch == 3


def test_what_is_best_of_accuracies_is_the_largest():
    assert [EarlyStopping(m).mode for m in ("val_accuracy", "f1_macro", "val_auc", "r2")] == [
        "max"
    ] * 4
    assert [EarlyStopping(m).mode for m in ("val_loss", "rmse", "mae")] == ["min"] * 3


def test_a_callback_that_is_used_again_starts_anew():
    stopping = EarlyStopping(patience=1)
    made = trainer()
    for _ in range(2):
        _quiet(made, 5, callbacks=[_Script([1] * 20), stopping])
    assert made.epoch == 4


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EarlyStopping(patience=0), DataError, "patience=0"),
        (lambda: EarlyStopping(start_from_epoch=-1), DataError, "start_from_epoch=-1"),
        (lambda: EarlyStopping(mode="up"), UnknownNameError, "mode 'up'"),
        (lambda: EarlyStopping("val_los"), UnknownNameError, "Did you mean 'val_loss'"),
        (lambda: ModelCheckpoint("m-{val_acc}", "loss"), DataError, "cannot be filled in"),
    ],
)
def test_callbacks_that_cannot_work(make, error, message):
    with pytest.raises(error, match=message):
        _quiet(trainer(), validation_data=(X, Y), callbacks=[make()])


def test_model_checkpoint_keeps_the_best(tmp_path):
    path, keep = tmp_path / "best.safetensors", _Keep()
    best = ModelCheckpoint(path, extra={"labels": ["a"]})
    every = ModelCheckpoint(tmp_path / "m-{epoch:02d}-{val_loss:.1f}", save_best_only=False)
    _quiet(trainer(), 4, callbacks=[_Script([3.0, 1.0, 2.0, 4.0]), keep, best, every])
    found = load_model(path)
    assert found.extra == {"labels": ["a"]}
    np.testing.assert_array_equal(found.model.state_dict()["0.weight"], keep.weights[1]["0.weight"])
    names = ["best.safetensors", "m-01-3.0", "m-02-1.0", "m-03-2.0", "m-04-4.0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_csv_logger_writes_as_training_goes_and_resumes_without_gaps(tmp_path):
    log, checkpoint = tmp_path / "run.csv", tmp_path / "run.ckpt"

    lines = []

    class Count(Callback):
        def on_epoch_end(self, trainer, epoch, record):
            lines.append(len(log.read_text().splitlines()))

    made = trainer()
    _quiet(made, 4, callbacks=[CSVLogger(log), Count()], checkpoint=checkpoint, max_steps=8)
    assert lines == [2, 3]
    log.write_text("spoilt")
    resumed = trainer()
    _quiet(resumed, 4, callbacks=[CSVLogger(log), Count()], resume=checkpoint)
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in rows] == resumed.history["loss"]
    with pytest.raises(DataError, match="cannot be written: No such file"):
        _quiet(trainer(), callbacks=[CSVLogger(tmp_path / "no" / "run.csv")])


def test_csv_logger_takes_new_columns(tmp_path):
    class Late(Callback):
        def on_epoch_end(self, trainer, epoch, record):
            if epoch == 2:
                record["late"] = 7.0

    log = tmp_path / "run.csv"
    _quiet(trainer(), 3, callbacks=[Late(), CSVLogger(log)])
    with log.open(newline="") as file:
        assert [row["late"] for row in csv.DictReader(file)] == ["", "7.0", ""]


def test_terminate_on_nan_says_where():
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), lr=1e20)
    made = Trainer(model, nn.MSELoss(), optimizer, backend="numpy")
    made.fit(X, X[:, :1], epochs=9, batch_size=9, verbose=False, callbacks=[TerminateOnNaN()])
    assert made.epoch < 9
    assert made.stop_reason.startswith("the loss was ")
    step = int(made.stop_reason.split()[-1])
    assert 2 <= step <= 10


def test_lr_monitor_and_schedules_each_epoch():
    class Third:
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def step(self):
            self.optimizer.param_groups[0]["lr"] /= 3

    made = trainer()
    made.scheduler = Third(made.optimizer)
    _quiet(made, 3, callbacks=[LRMonitor()])
    assert made.history["lr"] == [0.03, 0.03 / 3, 0.03 / 3 / 3]


def test_a_schedule_that_takes_a_metric_gets_the_validation_loss():
    class Watcher:
        def __init__(self):
            self.seen = []

        def step(self, metrics, epoch=None):
            self.seen.append(metrics)

    for options, key in (({}, "loss"), ({"validation_data": (X, Y)}, "val_loss")):
        made = trainer()
        made.scheduler = watcher = Watcher()
        _quiet(made, 2, **options)
        assert watcher.seen == made.history[key]


@pytest.mark.parametrize(
    ("package", "make", "line"),
    [
        ("tensorboardX", lambda: TensorBoard(), r'pip install "gpubp\[tensorboard\]"'),
        ("wandb", lambda: WandbLogger(), r'pip install "gpubp\[wandb\]"'),
        ("mlflow", lambda: MLflowLogger(), r'pip install "gpubp\[mlflow\]"'),
        ("trackio", lambda: TrackioLogger(), r'pip install "gpubp\[trackio\]"'),
        ("matplotlib.figure", lambda: _history().plot(), r'pip install "gpubp\[plot\]"'),
    ],
)
def test_missing_packages_say_how_to_install_them(monkeypatch, package, make, line):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=line):
        make()


def _history():
    history = History()
    for i in range(1, 5):
        history.add({"epoch": i, "loss": 1 / i, "val_loss": 1.2 / i, "val_accuracy": 1 - 1 / i})
    return history


def test_lr_finder_finds_a_useful_rate_and_undoes_its_steps():
    made = trainer(optimizer="SGD", options={"lr": 1e-3, "momentum": 0.9})
    _quiet(made)
    before = {slot.name: slot.value.copy() for slot in made.step.written_slots()}
    twin_rate = made.optimizer.param_groups[0]["lr"]
    finder = LRFinder(made)
    rate = finder.find(X, Y, batch_size=16, min_lr=1e-5, max_lr=100.0)
    assert 1e-3 < rate < 10.0
    assert len(finder.rates) == len(finder.losses) <= 100
    assert made.optimizer.param_groups[0]["lr"] == twin_rate
    for slot in made.step.written_slots():
        np.testing.assert_array_equal(slot.value, before[slot.name], err_msg=slot.name)
    made.optimizer.param_groups[0]["lr"] = rate
    history = _quiet(made, 20)
    assert history["loss"][-1] < 0.1


def test_lr_finder_plots_and_refuses(tmp_path):
    made = trainer()
    finder = LRFinder(made)
    with pytest.raises(DataError, match="too few"):
        finder.suggestion()
    with pytest.raises(DataError, match="min_lr=1"):
        finder.find(X, Y, min_lr=1.0, max_lr=0.1)
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    finder.find(X, Y)
    finder.plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_fit_inside_of_a_fit_is_refused():
    class Again(Callback):
        def on_epoch_end(self, trainer, epoch, record):
            with pytest.raises(NestingError, match="in a fit already"):
                trainer.fit(X, Y, verbose=False)
            copy.deepcopy(trainer).fit(X, Y, epochs=1, verbose=False)

    made = trainer()
    made.fit(X, Y, epochs=2, verbose=False, callbacks=[Again()])
    made.fit(X, Y, verbose=False)
    assert made.history["epoch"] == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        made.fit(X, Y, verbose=False, callbacks=[_Raises()])
    made.fit(X, Y, verbose=False)


class _Raises(Callback):
    def on_epoch_begin(self, trainer, epoch):
        1 / 0  # noqa: B018
