"""Deep copies, shallow copies and pickles: whole, linked among themselves, and apart from the rest.

A copy that is taken in the middle of training goes on with the same bits as the original.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import optimizers
import points
import populations
import pytest
from registered import BACKENDS
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim, train
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.errors import CopyError, DataError
from gpubp.optim import lr_scheduler as schedules
from gpubp.train import metrics

HOWS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(12, 4)), RNG.normal(size=(12, 2))


def _fall(epoch: int) -> float:
    return 0.9**epoch


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o, 0.5, total_iters=4), schedules.ExponentialLR(o, 0.9)]
    ),
    "ConstantLR": lambda o: schedules.ConstantLR(o, 0.5, total_iters=4),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, T_max=5),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 2),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "CyclicLR-function": lambda o: schedules.CyclicLR(
        o, 0.01, 0.1, 2, scale_fn=_fall, base_momentum=0.3
    ),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.8),
    "InverseTimeLR": lambda o: schedules.InverseTimeLR(o, 0.5),
    "LambdaLR": lambda o: schedules.LambdaLR(o, _fall),
    "LinearLR": lambda o: schedules.LinearLR(o, total_iters=4),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [1, 4]),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, _fall),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.1, total_steps=30),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, total_iters=7),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.ConstantLR(o, 0.5), schedules.StepLR(o, 1, 0.5)], milestones=[4]
    ),
    "StepLR": lambda o: schedules.StepLR(o, 2, 0.5),
}


def _model() -> nn.Module:
    gp.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 2))
    for slot in (*model.parameters(), *model.buffers()):
        slot.value = slot.value.astype(np.float32)
    return model


def _groups(model: Any, name: str = "") -> list[dict[str, Any]]:
    first, *rest = optimizers.taken(name, model.parameters())
    return [{"params": [first], "lr": 0.02}, {"params": rest}]


def _step(model: Any, optimizer: Any, backend: Any = "numba", **settings: Any) -> gp.Step:
    loss = nn.MSELoss()
    return gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend, **settings)


def _state(model: Any, optimizer: Any) -> list[Any]:
    saved = optimizer.state_dict()
    arrays = [a for _, entry in sorted(saved["state"].items()) for a in entry.values()]
    rates = [group["lr"] for group in saved["param_groups"]]
    return [*model.state_dict().values(), *arrays, np.array(rates)]


def _assert_equal(found: list[Any], wanted: list[Any]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert_same(a, b)


def _differ(found: list[Any], wanted: list[Any]) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_every_optimiser_and_schedule_is_here() -> None:
    names = {name for name in dir(optim) if isinstance(getattr(optim, name), type)}
    classes = {n for n in names if issubclass(getattr(optim, n), optim.Optimizer)}
    assert classes - {"Optimizer", "LBFGS"} == set(optimizers.ROWS)  # test_lbfgs.py
    assert {name.partition("-")[0] for name in SCHEDULES} == set(schedules.__all__) - {
        "LRScheduler",
        "ReduceLROnPlateau",
    }


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("name", "options"), optimizers.CASES)
def test_a_copied_optimiser_goes_on_with_its_model(
    name: str, options: dict[str, Any], how: str
) -> None:
    model = _model()
    optimizer = getattr(optim, name)(_groups(model, name), **options)
    step = _step(model, optimizer)
    for _ in range(3):
        step(X, Y)
    model2, optimizer2 = HOWS[how]((model, optimizer))
    mine = [id(p) for group in optimizer2.param_groups for p in group["params"]]
    assert mine == [id(p) for p in optimizers.taken(name, model2.parameters())]
    _assert_equal(_state(model2, optimizer2), _state(model, optimizer))
    before = _state(model2, optimizer2)
    for _ in range(3):
        step(X, Y)
    _assert_equal(_state(model2, optimizer2), before)  # the original trains alone
    step2 = _step(model2, optimizer2)
    for _ in range(3):
        step2(X, Y)
    _assert_equal(_state(model2, optimizer2), _state(model, optimizer))
    assert _differ(_state(model2, optimizer2), before)
    for group, group2 in zip(optimizer.param_groups, optimizer2.param_groups, strict=True):
        old = group["lr"]
        group2["lr"] = 0.25 * old
        assert group["lr"] == old
    for _ in range(2):  # ASGD's next rate is known a step before, Rprop has its own from the first
        step(X, Y), step2(X, Y)
    weights, weights2 = ([p.numpy() for p in m.parameters()] for m in (model, model2))
    assert _differ(weights2, weights) == (name != "Rprop")


@pytest.mark.parametrize("how", HOWS)
def test_options_that_are_changed_in_a_copy_are_seen_by_its_steps_alone(how: str) -> None:
    model = _model()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    step = _step(model, optimizer)
    step(X, Y)
    model2, optimizer2 = HOWS[how]((model, optimizer))
    step2 = _step(model2, optimizer2)
    step(X, Y), step2(X, Y)
    optimizer2.param_groups[0]["momentum"] = 0.0
    optimizer2.param_groups[0]["lr"] = 0.0
    before = [p.numpy() for p in model2.parameters()]
    step(X, Y), step2(X, Y)
    _assert_equal([p.numpy() for p in model2.parameters()], before)
    assert optimizer.param_groups[0]["momentum"] == 0.5
    extra = nn.Parameter(np.ones(2, np.float32))
    optimizer2.add_param_group({"params": [extra], "lr": 0.5})
    assert (len(optimizer.param_groups), len(optimizer2.param_groups)) == (1, 2)


@pytest.mark.parametrize("how", HOWS)
def test_an_optimiser_that_is_copied_alone_has_parameters_of_its_own(how: str) -> None:
    """As in torch: its groups hold copies of the parameters, which nobody else uses."""
    model = _model()
    optimizer = optim.Adam(model.parameters())
    step = _step(model, optimizer)
    step(X, Y)
    alone = HOWS[how](optimizer)
    theirs = {id(p) for p in model.parameters()}
    assert not any(id(p) in theirs for group in alone.param_groups for p in group["params"])
    wanted = alone.state_dict()["state"]
    step(X, Y)
    for i, entry in alone.state_dict()["state"].items():
        _assert_equal(list(entry.values()), list(wanted[i].values()))


def test_shallow_copies_share_everything() -> None:
    model = _model()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = schedules.StepLR(optimizer, 1, 0.5)
    twin, schedule2 = copy.copy(optimizer), copy.copy(schedule)
    step, step2 = _step(model, optimizer), _step(model, twin)
    step(X, Y), step2(X, Y)
    twin.param_groups[0]["momentum"] = 0.0
    optimizer.param_groups[0]["lr"] = 0.0
    before = [p.numpy() for p in model.parameters()]
    step(X, Y), step2(X, Y)
    _assert_equal([p.numpy() for p in model.parameters()], before)
    assert schedule2.optimizer is optimizer
    schedule2.step()
    assert (schedule2.last_epoch, schedule.last_epoch) == (1, 0)


def test_optimisers_are_copied_before_their_first_step_and_after_loading() -> None:
    model = _model()
    optimizer = optim.Adam(model.parameters())
    step = _step(model, optimizer)
    step(X, Y)
    saved = optimizer.state_dict()
    fresh = _model()
    loaded = optim.Adam(fresh.parameters())
    unused, _ = copy.deepcopy((loaded, fresh))
    assert unused.state_dict()["state"] == {}
    fresh.load_state_dict(model.state_dict())
    loaded.load_state_dict(saved)
    again, fresh2 = copy.deepcopy(copy.deepcopy((loaded, fresh)))
    step2 = _step(fresh2, again)
    step(X, Y), step2(X, Y)
    _assert_equal(_state(fresh2, again), _state(model, optimizer))


def test_frozen_and_thawed_parameters_keep_their_counts_in_copies() -> None:
    model = _model()
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    step = _step(model, optimizer)
    first = next(model.parameters())
    first.requires_grad_(False)
    step(X, Y), step(X, Y)
    model2, optimizer2 = copy.deepcopy((model, optimizer))
    step2 = _step(model2, optimizer2)
    for one, made in ((model, step), (model2, step2)):
        next(one.parameters()).requires_grad_(True)
        made(X, Y), made(X, Y)
    _assert_equal(_state(model2, optimizer2), _state(model, optimizer))
    steps = [int(e["step"]) for e in optimizer2.state_dict()["state"].values()]
    assert sorted(set(steps)) == [2, 4]


@pytest.mark.parametrize("inside", [True, False], ids=["in the step", "between steps"])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_copied_schedule_goes_on(name: str, how: str, inside: bool) -> None:
    model = _model()
    optimizer = optim.SGD(_groups(model), lr=0.05, momentum=0.9)
    schedule = SCHEDULES[name](optimizer)

    def go(parts: Any, step: Any) -> None:
        for _ in range(3):
            step(X, Y)
            if not inside:
                parts[2].step()

    def compiled(parts: Any) -> Any:
        return _step(parts[0], parts[1], "numpy", **({"scheduler": parts[2]} if inside else {}))

    parts = (model, optimizer, schedule)
    step = compiled(parts)
    go(parts, step)
    twins = HOWS[how](parts)
    assert twins[2].optimizer is twins[1]
    assert twins[2].last_epoch == schedule.last_epoch == 3
    step2 = compiled(twins)
    go(parts, step), go(twins, step2)
    _assert_equal(_state(*twins[:2]), _state(*parts[:2]))
    assert twins[2].get_last_lr() == schedule.get_last_lr()
    parts[1].param_groups[0]["lr"] = twins[1].param_groups[0]["lr"] = 0.123
    go(twins, step2)
    assert parts[1].param_groups[0]["lr"] == 0.123
    go(parts, step)
    _assert_equal(_state(*twins[:2]), _state(*parts[:2]))


@pytest.mark.parametrize("how", HOWS)
def test_a_copied_plateau_schedule_goes_on(how: str) -> None:
    optimizer = optim.SGD([nn.Parameter(np.ones(2))], lr=1.0)
    schedule = schedules.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
    schedule.step(1.0), schedule.step(2.0)
    twin, optimizer2 = HOWS[how]((schedule, optimizer))
    schedule.step(2.0)
    assert [o.param_groups[0]["lr"] for o in (optimizer, optimizer2)] == [0.5, 1.0]
    twin.step(2.0)
    assert optimizer2.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("how", HOWS)
def test_averages_and_loss_scales_go_on(how: str) -> None:
    model = _model()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    average = optim.EMA(model.parameters(), decay=0.5)
    scale = gp.LossScale(1024.0, growth_interval=2)
    step = _step(model, optimizer, ema=average, loss_scale=scale)
    step(X, Y), step(X, Y)
    parts = model, optimizer, average, scale
    model2, optimizer2, average2, scale2 = HOWS[how](parts)
    assert (average2.n_averaged, scale2.state_dict()) == (2, scale.state_dict())
    step2 = _step(model2, optimizer2, ema=average2, loss_scale=scale2)
    before = average2.averages
    for _ in range(3):
        step(X, Y)
    _assert_equal(average2.averages, before)
    for _ in range(3):
        step2(X, Y)
    _assert_equal(average2.averages, average.averages)
    assert scale2.state_dict() == scale.state_dict() != gp.LossScale(1024.0).state_dict()
    with average2.apply():
        _assert_equal([p.numpy() for p in model2.parameters()], average.averages)
        with pytest.raises(DataError, match="leave the `with` block before copying"):
            HOWS[how](average2)
        HOWS[how](model2)  # the averaged weights themselves


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", HOWS)
def test_a_copied_generator_draws_on_by_itself(how: str, backend: str) -> None:
    generator = gp.Generator(7)
    draw = gp.compile(
        lambda x: (
            x + ops.uniform((3,), generator=generator) + ops.normal((3,), generator=generator)
        ),
        backend=backend,
    )
    zero = np.zeros(3, np.float32)
    draw(zero)
    twin = HOWS[how](generator)
    draw2 = gp.compile(
        lambda x: x + ops.uniform((3,), generator=twin) + ops.normal((3,), generator=twin),
        backend=backend,
    )
    wanted = [draw(zero) for _ in range(3)] + [ops.uniform(3, generator=generator)]
    found = [draw2(zero) for _ in range(3)] + [ops.uniform(3, generator=twin)]
    _assert_equal(found, wanted)
    assert repr(twin) == repr(generator)


@pytest.mark.parametrize("how", HOWS)
def test_copied_models_keep_ties_and_generators(how: str) -> None:
    generator = gp.Generator(1)
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.5, generator), nn.Linear(4, 4), nn.Dropout(0.5, generator)
    )
    model[2].weight = model[0].weight
    forward = gp.compile(model)
    x = np.ones((2, 4), np.float32)
    forward(x)
    twin = HOWS[how](model)
    assert twin[2].weight is twin[0].weight is not model[0].weight
    assert twin[1].generator is twin[3].generator is not generator
    assert_same(gp.compile(twin)(x), forward(x))
    model[0].weight.value[...] = 0.0
    assert (twin[0].weight.value != 0.0).any()


WITH_LAYERS = {"AdaptiveLogSoftmaxWithLoss": (16, 6, [2, 4]), "LinearCrossEntropyLoss": (4, 3)}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", [n for n in nn.__all__ if n.endswith("Loss")])
def test_copies_of_losses_are_whole(name: str, how: str) -> None:
    loss = getattr(nn, name)(*WITH_LAYERS.get(name, ()))
    twin = HOWS[how](loss)
    assert type(twin) is type(loss)
    assert repr(twin) == repr(loss)


@pytest.mark.parametrize("how", HOWS)
def test_copies_of_metrics_are_whole(how: str) -> None:
    """The functions; what `fit` makes of their names lives no longer than its call."""
    y, outputs = np.array([0, 1, 2, 1]), RNG.normal(size=(4, 3))
    for function in (metrics.accuracy, metrics.auc, metrics.top_k_accuracy):
        assert HOWS[how](function) is function
    for metric in metrics.find(["accuracy", "f1", "top_2_accuracy"]):
        assert copy.deepcopy(metric).compute(y, outputs, 0.5) == metric.compute(y, outputs, 0.5)


def _trained(epochs: int, **more: Any) -> Any:
    made = points.trainer(schedule=("StepLR", {"step_size": 1, "gamma": 0.5}), average=0.9, **more)
    made.fit(*points.points(), epochs=epochs, batch_size=20, verbose=False)
    return made


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("every", ["epoch", "step"])
def test_a_copied_trainer_goes_on(how: str, every: str) -> None:
    def go(trainer: Any, counter: int) -> None:
        gp.manual_seed(9)  # the default generator is no part of a trainer
        trainer.fit(*points.points(), epochs=2, batch_size=20, verbose=False)

    made = _trained(2, scheduler_every=every, loss_scale=256.0)
    twin = HOWS[how](made)
    assert twin.step is not made.step
    assert twin.optimizer.parameters()[0] is next(twin.model.parameters())
    before = twin.model.state_dict()
    go(made, 0)
    _assert_equal(list(twin.model.state_dict().values()), list(before.values()))
    go(twin, 0)
    points.assert_same(made, twin)
    assert_same(twin.predict(points.points()[0]), made.predict(points.points()[0]))


def test_a_copied_trainer_keeps_what_waits_for_an_update() -> None:
    x, y = points.points()
    made = points.trainer(dropout=0.0, accumulate=4)
    for _ in range(5):
        made.step(x[:10], y[:10])
    twin = copy.deepcopy(made)
    assert (twin.step.pending, made.step.pending) == (1, 1)
    for _ in range(3):
        assert_same(twin.step(x, y), made.step(x, y))
    points.assert_same(made, twin)


class _CopiesTrainer(train.Callback):
    """Copies everything in the middle of training."""

    def __init__(self) -> None:
        self.copies: list[Any] = []

    def on_epoch_end(self, trainer: Any, epoch: int, record: dict[str, float]) -> None:
        if epoch == 1:
            self.copies.append(copy.deepcopy(trainer))

    def __deepcopy__(self, memo: Any) -> _CopiesTrainer:
        return _CopiesTrainer()


@pytest.mark.parametrize("how", HOWS)
def test_copies_of_used_callbacks_are_whole(how: str, tmp_path: Any) -> None:
    callbacks = [
        train.CSVLogger(tmp_path / "log.csv"),
        train.EarlyStopping("loss", restore_best_weights=True),
        train.LRMonitor(),
        train.ModelCheckpoint(tmp_path / "best.safetensors", "loss"),
        train.TerminateOnNaN(),
    ]
    made = points.trainer()
    inside = _CopiesTrainer()
    made.fit(*points.points(), epochs=2, verbose=False, callbacks=[*callbacks, inside])
    for callback in callbacks:
        twin = HOWS[how](callback)
        assert repr(twin.state_dict()) == repr(callback.state_dict())
    (middle,) = inside.copies
    middle.fit(*points.points(), epochs=1, verbose=False, callbacks=middle.callbacks)
    assert (middle.epoch, made.epoch) == (2, 2)
    again = HOWS[how](made.history)
    assert again.records == made.history.records


def test_a_step_says_what_to_copy_instead() -> None:
    model = _model()
    step = _step(model, optim.SGD(model.parameters()))
    for how in (copy.copy, *HOWS.values()):
        with pytest.raises(CopyError, match=r"copy\.deepcopy\(\(model, optimizer\)\)"):
            how(step)


def test_populations_say_what_to_do_instead() -> None:
    made = populations.population(2)
    for value in (made, gp.Populations([made])):
        for how in (copy.copy, *HOWS.values()):
            with pytest.raises(CopyError, match=r"save_population\(path, "):
                how(value)


@pytest.mark.parametrize("how", HOWS)
def test_copies_of_ensembles_are_whole(how: str) -> None:
    made = populations.population(3, backend="numpy")
    X, y = populations.data()
    made.run(X, y, batch_size=50)
    first = made.ensemble([0, 2])
    twin = HOWS[how](first)
    assert len(twin) == 2 and twin is not first
    assert_same(twin.outputs(X[:7]), first.outputs(X[:7]))


@gp.compile
def doubled(x: Any) -> Any:
    """A compiled function that a module knows by name."""
    return x * 2.0


def _tripled(x: Any) -> Any:
    return x * 3.0


@pytest.mark.parametrize("how", HOWS)
def test_copies_of_compiled_functions_are_whole(how: str) -> None:
    x = np.ones((1, 4), np.float32)
    assert HOWS[how](doubled) is doubled
    model = _model().eval()
    for backend in (None, "numpy", NumbaBackend(workers=2)):
        tripled, forward, again = HOWS[how](
            (gp.compile(_tripled, backend=backend), gp.compile(model, backend=backend), model)
        )
        assert_same(tripled(x), 3 * x)
        wanted = model(x)
        np.testing.assert_allclose(forward(x), wanted, rtol=1e-5)
        for slot in again.parameters():
            slot.value[...] = 0.0
        assert (forward(x) == 0.0).all()  # the copied function reads the copied model
        assert_same(model(x), wanted)


def test_copies_of_copies_and_of_parts() -> None:
    """One memo keeps every link, however the parts are nested."""
    model = _model()
    optimizer = optim.AdamW(model.parameters())
    average = optim.EMA(model.parameters())
    schedule = schedules.OneCycleLR(optimizer, 0.1, total_steps=20)
    for parts in itertools.permutations((model, optimizer, schedule, average), 4):
        found = copy.deepcopy({"run": list(parts)})["run"]
        by_type = {type(original): twin for original, twin in zip(parts, found, strict=True)}
        twin = by_type[optim.AdamW]
        assert by_type[schedules.OneCycleLR].optimizer is twin
        mine = list(map(id, by_type[nn.Sequential].parameters()))
        assert [id(p) for p in twin.parameters()] == mine
        assert [id(p) for p in by_type[optim.EMA]._params] == mine
