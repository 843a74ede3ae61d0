"""Schedules in a fit: what they watch, whether they are long enough, and the finder beside them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from points import points, trainer

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import DataError, ShapeError, UnknownNameError
from gpubp.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from gpubp.train import Callback, LRFinder, LRMonitor, Trainer
from gpubp.train.scheduling import updates_left

X, Y = points()


def _fit(made, **options):
    """6 batches an epoch."""
    options = {"epochs": 3, "batch_size": 16, "verbose": False, **options}
    return made.fit(X, Y, **options)


def _plateau(mode, **options):
    made = trainer(
        dropout=0.0, schedule=("ReduceLROnPlateau", {"mode": mode, "patience": 0}), **options
    )
    return made


HELD = {"validation_data": (X[:40], Y[:40])}
CASES = [
    ("min", None, {}, "loss", min),
    ("min", None, HELD, "val_loss", min),
    ("max", None, HELD, "val_accuracy", max),
    ("max", None, {"metrics": ["accuracy"]}, "accuracy", max),
    ("max", "val_f1_macro", {**HELD, "metrics": ["f1_macro"]}, "val_f1_macro", max),
    ("max", "f1_macro", {**HELD, "metrics": ["f1_macro"]}, "f1_macro", max),
    ("min", "loss", HELD, "loss", min),
]


@pytest.mark.parametrize(("mode", "monitor", "options", "name", "best"), CASES)
def test_a_plateau_watches_what_was_chosen(mode, monitor, options, name, best):
    made = _plateau(mode, monitor=monitor)
    fed = []
    inner = made.scheduler.step
    made.scheduler.step = lambda metrics: fed.append(metrics) or inner(metrics)
    history = _fit(made, **options)
    assert fed == history[name]
    assert made.scheduler.best == pytest.approx(best(fed), rel=1e-3)


def test_a_number_of_the_users_may_be_watched_either_way():
    def spread(y, outputs):
        return float(outputs.std())

    for mode in ("min", "max"):
        made = _plateau(mode, monitor="val_spread")
        history = _fit(made, **HELD, metrics=[spread])
        best = (min if mode == "min" else max)(history["val_spread"])
        assert made.scheduler.best == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: _plateau("max", monitor="val_loss"), DataError, "improves when it falls.*'max'"),
        (lambda: _plateau("min", monitor="val_acc"), DataError, "improves when it rises"),
        (lambda: trainer(monitor="loss"), DataError, "there is no scheduler"),
        (
            lambda: trainer(schedule=("StepLR", {"step_size": 2}), monitor="loss"),
            DataError,
            "StepLR watches none",
        ),
        (lambda: trainer(scheduler=3), DataError, "needs a step.*int has none"),
    ],
)
def test_what_a_trainer_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("mode", "monitor", "options", "error", "message"),
    [
        ("max", None, {}, DataError, "no accuracy is measured.*epoch, loss"),
        ("max", None, {"metrics": ["f1"]}, DataError, "no accuracy is measured.*f1"),
        ("min", "val_loss", {}, UnknownNameError, "to monitor 'val_loss'"),
        ("max", "val_f1", HELD, UnknownNameError, "to monitor 'val_f1'"),
    ],
)
def test_what_is_not_measured_is_refused_before_the_first_step(
    mode, monitor, options, error, message
):
    made = _plateau(mode, monitor=monitor)
    with pytest.raises(error, match=message):
        _fit(made, **options)
    assert (made.steps, made.scheduler.last_epoch) == (0, 0)


def _onecycle(total, **options):
    schedule = ("OneCycleLR", {"max_lr": 0.1, "total_steps": total})
    return trainer(schedule=schedule, scheduler_every="step", **options)


STREAM = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 90, 16)]


@pytest.mark.parametrize(
    ("updates", "make", "options"),
    [
        (18, {}, {}),
        (24, {}, {"epochs": 4}),
        (15, {}, {"drop_last": True}),
        (9, {"accumulate": 2}, {}),
        (6, {"accumulate": 4}, {}),
        (11, {}, {"max_steps": 11}),
        (18, {}, {"max_steps": 99}),
        (12, {}, {"validation_split": 0.34, "batch_size": 16}),
        (5, {"accumulate": 3}, {"max_steps": 16}),
    ],
)
def test_a_cycle_of_one_step_less_is_refused_before_the_first(updates, make, options):
    made = _onecycle(updates, **make)
    _fit(made, **options)
    assert made.scheduler.last_epoch == updates
    short = _onecycle(updates - 1, **make)
    with pytest.raises(DataError, match=f"too short for this run of {updates} updates"):
        _fit(short, **options)
    assert (short.steps, short.scheduler.last_epoch) == (0, 0)


def test_streams_with_a_length_are_counted_and_others_are_refused_when_it_is_reached():
    made = _onecycle(17)
    with pytest.raises(DataError, match="run of 18 updates"):
        made.fit(STREAM, epochs=3, verbose=False)
    assert made.steps == 0
    made = _onecycle(17)
    with pytest.raises(DataError, match="step 18 was asked for"):
        made.fit(lambda: iter(STREAM), epochs=3, verbose=False)
    assert made.epoch == 2


def test_a_resumed_run_counts_what_is_left(tmp_path):
    path = tmp_path / "run.ckpt"
    made = _onecycle(18)
    _fit(made, max_steps=8, checkpoint=path)
    resumed = _onecycle(18)
    _fit(resumed, resume=path)
    assert resumed.scheduler.last_epoch == 18
    prolonged = _onecycle(18)
    with pytest.raises(DataError, match="run of 16 updates"):
        _fit(prolonged, resume=path, epochs=4)


@pytest.mark.parametrize(
    "arguments",
    [
        (3, 6, 0, 1, 0, 1e9),
        (3, 6, 2, 4, 2, 1e9),
        (2, 7, 3, 3, 0, 1e9),
        (3, 6, 2, 4, 2, 3),
        (4, 5, 0, 2, 1, 12),
        (1, 5, 4, 3, 1, 1),
        (2, 5, 0, 3, 0, 7),
    ],
)
def test_updates_are_counted_as_they_come(arguments):
    epochs, batches, done, accumulate, pending, budget = arguments
    found = ran = 0
    for epoch in range(epochs):
        for batch in range(done if epoch == 0 else 0, batches):
            if ran >= budget:
                break
            ran, pending = ran + 1, pending + 1
            if pending == accumulate or batch == batches - 1:
                found, pending = found + 1, 0
    assert updates_left(*arguments) == found


def test_a_schedule_that_steps_by_epochs_is_checked_too():
    made = trainer(schedule=("OneCycleLR", {"max_lr": 0.1, "total_steps": 2}))
    with pytest.raises(DataError, match="run of 3 epochs"):
        _fit(made)
    assert made.steps == 0
    _fit(made, max_steps=13)
    assert made.epoch == 2


def _composite(made):
    warm = ExponentialLR(made.optimizer, 0.9)
    cycle = OneCycleLR(made.optimizer, 0.1, total_steps=40)
    return SequentialLR(made.optimizer, [warm, cycle], [1])


@pytest.mark.parametrize(
    "make",
    [
        lambda m: OneCycleLR(m.optimizer, 0.1, total_steps=18),
        lambda m: CyclicLR(m.optimizer, 0.01, 0.1, step_size_up=9),
        _composite,
        lambda m: ChainedScheduler([OneCycleLR(m.optimizer, 0.1, total_steps=18)]),
    ],
)
def test_a_cycle_of_updates_that_steps_by_epochs_warns(make):
    made = trainer()
    made.scheduler = make(made)
    with pytest.warns(UserWarning, match="scheduler_every='step'") as found:
        _fit(made)
    assert found[0].filename == __file__


@pytest.mark.parametrize(
    "schedule",
    [("OneCycleLR", {"max_lr": 0.1, "total_steps": 3}), ("CosineAnnealingLR", {"T_max": 99})],
)
def test_a_schedule_of_epochs_does_not_warn(schedule):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _fit(trainer(schedule=schedule))
        _fit(_onecycle(99))


def _everything(made):
    """Whatever a training program may write, and what it reads of the optimiser."""
    model, optimizer, step = made.model, made.optimizer, made.step
    found = {
        **model.state_dict(),
        **{f"optimizer {k}": v for k, v in _flat(optimizer.state_dict())},
        **{f"step {k}": v for k, v in _flat(step.state_dict())},
        "modes": [m.training for m in model.modules()],
        "random": ops.random.default_generator.state.value.copy(),
    }
    if made.ema is not None:
        found.update(_flat(made.ema.state_dict()))
    if step.settings.loss_scale is not None:
        found.update(step.settings.loss_scale.state_dict())
    if made.scheduler is not None:
        found.update(_flat(made.scheduler.state_dict()))
    return found


def _flat(value, name=""):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, (dict, list, tuple)):
            yield from _flat(inner, f"{name}.{key}")
        else:
            yield f"{name}.{key}", inner


class _Noisy(nn.Module):
    """Draws from a generator of its own, and counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.generator = ops.random.Generator(3)
        self.register_buffer("calls", np.zeros((), np.int64))

    def forward(self, x):
        ops.assign(self.calls, ops.add(self.calls, 1))
        return ops.multiply(x, ops.random.uniform(x.shape, generator=self.generator))


def _full(schedule=None, **options):
    ops.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3)
    )
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if schedule is not None:
        options["scheduler"] = schedule(optimizer)
    return Trainer(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        backend="numpy",
        ema=optim.EMA(model.parameters(), 0.9),
        **options,
    )


FULL = [
    {},
    {"schedule": lambda o: OneCycleLR(o, 0.1, total_steps=30), "scheduler_every": "step"},
    {"schedule": lambda o: OneCycleLR(o, 0.1, total_steps=7), "scheduler_every": "step"},
    {"schedule": lambda o: CyclicLR(o, 0.01, 0.1, step_size_up=3), "scheduler_every": "step"},
    {"schedule": lambda o: CosineAnnealingLR(o, 5)},
    {"schedule": lambda o: ReduceLROnPlateau(o)},
    {"accumulate": 4},
    {"loss_scale": "dynamic"},
    {"max_grad_norm": 1.0},
]


@pytest.mark.parametrize("trained", [0, 7])
@pytest.mark.parametrize("options", FULL)
def test_the_finder_leaves_no_trace(options, trained):
    made = _full(**options)
    made.model[2].eval()
    if trained:
        made.fit(X, Y, batch_size=16, max_steps=trained, epochs=2, verbose=False)
        if options.get("accumulate"):
            made.step(X[:16], Y[:16])
            assert made.step.pending
    before = _everything(made)
    LRFinder(made).find(X, Y, batch_size=16, steps=12)
    after = _everything(made)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_the_finder_undoes_an_error_too():
    made = _full(schedule=lambda o: OneCycleLR(o, 0.1, total_steps=30), scheduler_every="step")
    before = _everything(made)
    finder = LRFinder(made)
    inner = finder._losses

    def broken(step, arrays, size, rates):
        inner(step, arrays, size, rates[:12])
        raise KeyboardInterrupt

    finder._losses = broken
    with pytest.raises(KeyboardInterrupt):
        finder.find(X, Y, batch_size=16)
    for name, value in _everything(made).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_a_run_after_the_finder_is_the_run_without_it():
    def run(find):
        made = _full(schedule=lambda o: OneCycleLR(o, 0.1, total_steps=18), scheduler_every="step")
        if find:
            LRFinder(made).find(X, Y, batch_size=16)
        return _fit(made, callbacks=[LRMonitor()]).records

    assert run(True) == run(False)


def test_generators_and_buffers_of_the_users_are_put_back():
    ops.manual_seed(0)
    model = nn.Sequential(_Noisy(), nn.Linear(2, 3))
    made = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), backend="numpy")
    LRFinder(made).find(X, Y, batch_size=16)
    assert int(model[0].calls.value) == 0
    np.testing.assert_array_equal(
        model[0].generator.state.value, ops.random.Generator(3).state.value
    )


def test_the_finder_refuses_averages_in_the_place_of_weights():
    made = _full()
    with made.ema.apply(), pytest.raises(DataError, match=r"leave `with ema.apply\(\):`"):
        LRFinder(made).find(X, Y)
    with pytest.raises(ShapeError, match="BatchNorm1d"):
        LRFinder(made).find(X, Y, batch_size=1)


def test_a_schedule_reads_the_record_and_a_callback_sees_the_moved_rate():
    seen = []

    class See(Callback):
        def on_epoch_end(self, trainer, epoch, record):
            seen.append(trainer.optimizer.param_groups[0]["lr"])

    _fit(trainer(schedule=("ExponentialLR", {"gamma": 0.5})), callbacks=[See()])
    assert seen == pytest.approx([0.03 * 0.5**n for n in (1, 2, 3)])


def test_a_step_beside_the_finders_keeps_its_own_gradients():
    model = nn.Linear(2, 3)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = gp.compile_step(
        lambda x, y: loss_fn(model(x), y), optimizer, backend="numpy", accumulate=2
    )
    step(X[:8], Y[:8])
    other = step.unscheduled()
    other(X[8:16], Y[8:16])
    assert (step.pending, other.pending) == (1, 1)


@pytest.mark.parametrize("later", [False, True])
def test_a_schedule_of_another_optimizer_is_refused(later):
    model = nn.Linear(2, 3)
    mine, other = (optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
    schedule = optim.lr_scheduler.StepLR(other, 1)
    with pytest.raises(DataError, match="another optimizer"):
        if not later:
            Trainer(model, nn.CrossEntropyLoss(), mine, scheduler=schedule)
        made = Trainer(model, nn.CrossEntropyLoss(), mine)
        made.scheduler = schedule
        made.fit(*points(), verbose=False)
