"""A change is seen by the next step, run, fit, evaluation and prediction that was compiled before.

Each test holds what was compiled before a change against what is compiled after it.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import optimizers
import pytest

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.core.announce import announce
from gpubp.core.facts import Facts
from gpubp.errors import DataError, GradientError
from gpubp.optim import lr_scheduler
from gpubp.train import Trainer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 4)).astype(np.float32)
Y = (X @ RNG.standard_normal((4, 3)) + 0.1).astype(np.float32)
LABELS = RNG.integers(0, 3, 24)


def _model() -> nn.Sequential:
    gp.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.LeakyReLU(), nn.Linear(8, 3))


def _step(model: nn.Module, loss: Any, **options: Any) -> gp.Step:
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    return gp.compile_step(lambda x, y: loss(model(x), y), optimizer, **options)


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "eps": lambda model, loss: setattr(model[1], "eps", 1.0),
    "slope": lambda model, loss: setattr(model[2], "negative_slope", 0.9),
    "smoothing": lambda model, loss: setattr(loss, "label_smoothing", 0.5),
    "reduction": lambda model, loss: setattr(loss, "reduction", "sum"),
    "ignored": lambda model, loss: setattr(loss, "ignore_index", 1),
    "weights": lambda model, loss: setattr(loss, "weight", nn.Buffer(np.float32([1, 2, 3]))),
    "layer": lambda model, loss: setattr(model, "2", nn.Tanh()),
    "another layer": lambda model, loss: model.append(nn.Tanh()),
}


@pytest.mark.parametrize("way", ["calls", "runs", "accumulates"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_step_follows_what_it_reads_between_calls(what: str, way: str) -> None:
    def train(step: gp.Step) -> Any:
        if way == "runs":
            return step.run(X, LABELS, batch_size=10, shuffle=False)
        return np.array([step(X[i : i + 8], LABELS[i : i + 8]) for i in (0, 8, 16)])

    options = {"accumulate": 2} if way == "accumulates" else {}
    model, loss = _model(), nn.CrossEntropyLoss()
    step = _step(model, loss, **options)
    for _ in range(2):  # an even number of batches: nothing waits for an update
        before = train(step)
    CHANGES[what](model, loss)
    twin, twin_loss = copy.deepcopy(model), copy.deepcopy(loss)
    after = train(step)
    np.testing.assert_array_equal(after, train(_step(twin, twin_loss, **options)))
    assert not np.allclose(before, after, 1e-2)
    for name, value in twin.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], value, name)


def test_a_new_head_that_the_optimizer_does_not_know() -> None:
    """Its parameters stay; where the old ones were left in the optimizer, the step says so."""
    model, loss = _model(), nn.MSELoss()
    trained = [*model[0].parameters(), *model[1].parameters()]
    step = gp.compile_step(lambda x, y: loss(model(x), y), optim.SGD(trained, lr=0.1))
    step(X, Y)
    setattr(model, "3", nn.Linear(8, 3))
    expected = np.mean((np.asarray(model(X)) - Y) ** 2)
    np.testing.assert_allclose(step(X, Y), expected, 1e-5)
    setattr(model, "0", nn.Linear(4, 8))
    with pytest.raises(GradientError, match=r"do not reach the loss: 0\.weight, 0\.bias"):
        step(X, Y)


def test_averages_and_loss_scales() -> None:
    model, loss = _model(), nn.MSELoss()
    ema, scale = optim.EMA(model.parameters(), 0.9), gp.LossScale(256.0, growth_interval=100)
    step = _step(model, loss, ema=ema, loss_scale=scale)
    step(X, Y)
    ema.decay = 0.0
    step(X, Y)
    for average, param in zip(ema.averages, model.parameters(), strict=True):
        np.testing.assert_array_equal(average, param.value)
    scale.growth_interval, scale.growth_factor = 3, 4.0
    step(X, Y)
    assert scale.scale.value == 1024.0
    for name, value in (("growth_factor", 0.5), ("backoff_factor", 1.0), ("growth_interval", 0)):
        with pytest.raises(DataError, match=name):
            setattr(scale, name, value)
    with pytest.raises(DataError, match="decay"):
        ema.decay = 2.0


@pytest.mark.parametrize("name", optimizers.ROWS)
def test_options_of_optimizers(name: str) -> None:
    """One is changed after the other; a step that has seen none of the changes agrees."""
    model, loss = _model(), nn.MSELoss()
    optimizer = getattr(optim, name)(optimizers.taken(name, model.parameters()))
    step = gp.compile_step(lambda x, y: loss(model(x), y), optimizer)
    step(X, Y)
    for option, value in optimizer.defaults.items():
        other = not value if isinstance(value, bool) else _other(value)
        try:
            optimizer.param_groups[0][option] = other
        except DataError:
            continue
        twin, same = copy.deepcopy((model, optimizer))
        new = gp.compile_step(lambda x, y, m=twin, f=loss: f(m(x), y), same)
        for _ in range(2):
            np.testing.assert_array_equal(step(X, Y), new(X, Y), f"{option} = {other}")


def _other(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(0.9 * (v or 0.01) for v in value)
    return 0.5 * value + 0.01 if isinstance(value, (int, float)) else value


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (lambda o: lr_scheduler.StepLR(o, 2), "gamma", 0.9),
        (lambda o: lr_scheduler.StepLR(o, 2), "step_size", 1),
        (lambda o: lr_scheduler.ExponentialLR(o, 0.5), "gamma", 0.9),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 9), "T_max", 20),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 9), "eta_min", 0.01),
        (lambda o: lr_scheduler.PolynomialLR(o, 9), "power", 3.0),
        (lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 6]), "gamma", 0.9),
        (lambda o: lr_scheduler.LambdaLR(o, lambda e: 0.5**e), "base_lrs", [0.01]),
    ],
)
def test_schedules_inside_the_step(make: Any, name: str, value: Any) -> None:
    """Their numbers are computed for each run: the next one has the new ones."""
    rates = []
    for inside in (True, False):
        model, loss = _model(), nn.MSELoss()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        schedule = make(optimizer)
        options: Any = {"scheduler": schedule} if inside else {}
        step = gp.compile_step(lambda x, y, m=model, f=loss: f(m(x), y), optimizer, **options)
        found = []
        for i in range(6):
            if i == 3:
                setattr(schedule, name, value)
            step(X, Y)
            if not inside:
                schedule.step()
            found.append(optimizer.param_groups[0]["lr"])
        rates.append(found)
    np.testing.assert_allclose(*rates, rtol=1e-12)


# --- plain objects of the user's ---


class Pinball:
    def __init__(self, q: float) -> None:
        self.q = q
        self.seen: list[float] = []

    def __call__(self, p: Any, y: Any) -> Any:
        d = y - p
        return ops.mean(ops.maximum(self.q * d, self.less() * d))

    def less(self) -> float:
        return self.q - 1.0

    def note(self, value: float) -> None:
        self.seen.append(value)


class Slotted:
    __slots__ = ("q",)

    def __init__(self, q: float) -> None:
        self.q = q


class Experiment:
    def __init__(self) -> None:
        self.model, self.options, self.history = _model(), SimpleNamespace(q=0.9), []
        self.traced = 0

    def loss(self, x: Any, y: Any) -> Any:
        global traced
        traced += 1
        return Pinball(self.options.q)(self.model(x), y)


class Holder(nn.Module):
    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, p: Any, y: Any) -> Any:
        return self.worked(p, y)

    def worked(self, p: Any, y: Any) -> Any:
        return Pinball(self.options.q)(p, y)


traced = 0
pinball = Pinball(0.9)


def through_a_global(p: Any, y: Any) -> Any:
    return helper(p, y)


def helper(p: Any, y: Any) -> Any:
    return pinball(p, y)


def with_options(p: Any, y: Any, options: Any) -> Any:
    return Pinball(options.q)(p, y)


def _closure(options: Any) -> Any:
    return lambda p, y: Pinball(options.q)(p, y)


def _method(options: Any) -> Any:
    return Holder(options).worked


WAYS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "the function itself": lambda: (pinball, pinball),
    "a global of a function it calls": lambda: (through_a_global, pinball),
    "a closure": lambda: (lambda o: (_closure(o), o))(Slotted(0.9)),
    "a method": lambda: (pinball.__call__, pinball),
    "a partial": lambda: (lambda o: (partial(with_options, options=o), o))(Slotted(0.9)),
    "options of a module": lambda: (lambda o: (Holder(o), o))(argparse.Namespace(q=0.9)),
    "a method of a module": lambda: (lambda o: (_method(o), o))(SimpleNamespace(q=0.9)),
}


@pytest.mark.parametrize("way", WAYS)
def test_attributes_of_plain_objects_are_followed(way: str) -> None:
    fn, owner = WAYS[way]()
    model = _model()
    f, step = gp.compile(fn), _step(model, fn)
    trainer = Trainer(model, fn, optim.SGD(model.parameters(), lr=0.0))
    for q in (0.9, 0.1, 0.5):
        owner.q = q
        p = np.asarray(model(X))
        d = Y.astype(np.float64) - p
        expected = np.mean(np.maximum(q * d, (q - 1.0) * d))
        np.testing.assert_allclose(f(p, Y), expected, 1e-5)
        np.testing.assert_allclose(step(X, Y), expected, 1e-5)
        p = np.asarray(model(X))
        d = Y.astype(np.float64) - p
        expected = np.mean(np.maximum(q * d, (q - 1.0) * d))
        np.testing.assert_allclose(trainer.evaluate(X, Y)["loss"], expected, 1e-5)
        fitted = trainer.fit(X, Y, batch_size=24, shuffle=False, verbose=False)["loss"][-1]
        np.testing.assert_allclose(fitted, expected, 1e-5)


def test_what_the_code_does_not_mention_may_change() -> None:
    """An object that also keeps the books is not traced again for that."""
    experiment = Experiment()
    step = gp.compile_step(experiment.loss, optim.SGD(experiment.model.parameters(), lr=0.1))
    for _ in range(4):
        experiment.history.append(step(X, Y))
    before = traced
    experiment.history.append(step(X, Y))
    assert traced == before == 1
    experiment.options.q = 0.2
    step(X, Y)
    assert traced == 2
    experiment.options = SimpleNamespace(q=0.3)
    step(X, Y)
    assert traced == 3


# --- Trainer ---


def test_a_trainer_takes_another_loss_and_another_model() -> None:
    model = _model()
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.0))
    trainer.fit(X, Y, batch_size=24, verbose=False)
    mse = trainer.evaluate(X, Y)["loss"]
    trainer.loss_fn = nn.L1Loss()
    expected = np.mean(np.abs(np.asarray(model(X)) - Y))
    np.testing.assert_allclose(trainer.evaluate(X, Y)["loss"], expected, 1e-5)
    losses = trainer.fit(X, Y, batch_size=24, verbose=False)["loss"]
    np.testing.assert_allclose(losses, [mse, expected], 1e-5)
    trainer.model = nn.Sequential(model, nn.Tanh())
    np.testing.assert_allclose(trainer.predict(X), np.tanh(np.asarray(model(X))), 1e-5, 1e-6)
    expected = np.mean(np.abs(np.tanh(np.asarray(model(X))) - Y))
    np.testing.assert_allclose(trainer.evaluate(X, Y)["loss"], expected, 1e-5)
    np.testing.assert_allclose(
        trainer.fit(X, Y, batch_size=24, verbose=False)["loss"][-1], expected, 1e-5
    )


def test_predictions_and_evaluations_see_changes() -> None:
    model = _model()
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.0))
    trainer.predict(X)
    trainer.evaluate(X, LABELS)
    for change in CHANGES.values():
        change(model, trainer.loss_fn)
        np.testing.assert_allclose(trainer.predict(X), np.asarray(model(X)), 1e-5, 1e-6)
        measured = trainer.evaluate(X, LABELS)["loss"]
        twin = copy.deepcopy((model, trainer.loss_fn))
        fresh = Trainer(*twin, optim.SGD(twin[0].parameters(), lr=0.0))
        assert measured == fresh.evaluate(X, LABELS)["loss"]


def test_a_trainer_keeps_its_optimizer() -> None:
    model = _model()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    schedule = lr_scheduler.StepLR(optimizer, 2)
    trainer = Trainer(model, nn.MSELoss(), optimizer, scheduler=schedule, scheduler_every="step")
    trainer.optimizer, trainer.scheduler = optimizer, schedule
    with pytest.raises(DataError, match=r"compiled for its optimizer\. Make a new Trainer"):
        trainer.optimizer = optim.Adam(model.parameters())
    with pytest.raises(DataError, match="compiled for its scheduler"):
        trainer.scheduler = lr_scheduler.StepLR(optimizer, 3)
    free = Trainer(model, nn.MSELoss(), optimizer, scheduler=schedule)
    free.scheduler = None
    free.fit(X, Y, verbose=False)


# --- the cost ---


def test_nothing_is_looked_at_until_something_is_announced() -> None:
    looked: list[int] = []
    facts = Facts()

    def fact() -> int:
        looked.append(1)
        return 3

    facts.assume(fact)
    facts.assume(fact)
    for _ in range(5):
        assert facts.hold()
    assert len(looked) == 1
    announce()
    for _ in range(5):
        assert facts.hold()
    assert len(looked) == 2


def test_a_step_of_modules_watches_nothing() -> None:
    """Losses, modules and optimisers of gpubp announce: no list of theirs is compared at a call."""
    model, loss = _model(), nn.CrossEntropyLoss([1.0, 2.0, 3.0], label_smoothing=0.1)
    step = _step(model, loss, ema=optim.EMA(model.parameters()))
    step(X, LABELS)
    assert step._runner.last is not None
    assert step._runner.last.graph.facts._watched == []
