"""Schedules: arguments, resuming, and what a compiled step does with them. Rates: tests/oracle."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tolerances import assert_same

from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.errors import DataError, UnknownNameError
from gpubp.optim import lr_scheduler as schedules
from gpubp.runtime.step import compile_step

DATA = np.ones((12, 1))


def _optimizer(groups=1, cls=optim.SGD, **options):
    params = [nn.Parameter(np.ones(2), name=f"p{i}") for i in range(groups)]
    return cls([{"params": [p]} for p in params], lr=0.1, **options)


def _step(optimizer, **settings):
    params = optimizer.parameters()

    def loss(x):
        return sum((ops.sum(ops.square(p)) for p in params), 0.0 * ops.sum(x))

    return compile_step(loss, optimizer, backend="numpy", **settings)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: schedules.StepLR(o, 0), DataError, "step_size is 0"),
        (lambda o: schedules.StepLR(o, 1.5), DataError, "step_size is 1.5"),
        (lambda o: schedules.MultiStepLR(o, [3, -1]), DataError, "a milestone is -1"),
        (lambda o: schedules.ConstantLR(o, factor=1.5), DataError, "factor is 1.5"),
        (lambda o: schedules.LinearLR(o, start_factor=0.0), DataError, "start_factor is 0.0"),
        (lambda o: schedules.LinearLR(o, end_factor=1.1), DataError, "end_factor is 1.1"),
        (lambda o: schedules.LinearLR(o, total_iters=0), DataError, "total_iters is 0"),
        (lambda o: schedules.PolynomialLR(o, total_iters=0), DataError, "total_iters is 0"),
        (lambda o: schedules.InverseTimeLR(o, gamma=-1.0), DataError, "gamma is -1.0"),
        (lambda o: schedules.CosineAnnealingLR(o, T_max=0), DataError, "T_max is 0"),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 0), DataError, "T_0 is 0"),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 5, 0), DataError, "T_mult is 0"),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 5, 1.5), DataError, "T_mult is 1.5"),
        (
            lambda o: schedules.CosineAnnealingWarmRestarts(o, 5, eta_min="a"),
            DataError,
            "eta_min is 'a'",
        ),
        (lambda o: schedules.OneCycleLR(o, 0.1), DataError, "pass total_steps, or epochs"),
        (lambda o: schedules.OneCycleLR(o, 0.1, total_steps=0), DataError, "total_steps is 0"),
        (
            lambda o: schedules.OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=3),
            DataError,
            "epochs is 0",
        ),
        (
            lambda o: schedules.OneCycleLR(o, 0.1, total_steps=9, pct_start=1.5),
            DataError,
            "pct_start is 1.5",
        ),
        (
            lambda o: schedules.OneCycleLR(o, 0.1, total_steps=9, anneal_strategy="coss"),
            UnknownNameError,
            "Did you mean 'cos'",
        ),
        (
            lambda o: schedules.OneCycleLR(o, [0.1, 0.2], total_steps=9),
            DataError,
            "max_lr has 2 values, but the optimizer has 1",
        ),
        (
            lambda o: schedules.CyclicLR(o, 0.1, 0.2, mode="triangle"),
            UnknownNameError,
            "Did you mean 'triangular",
        ),
        (lambda o: schedules.CyclicLR(o, 0.1, 0.2, step_size_up=0), DataError, "step sizes are"),
        (lambda o: schedules.LambdaLR(o, [abs, abs]), DataError, "expected 1 functions"),
        (
            lambda o: schedules.MultiplicativeLR(o, 0.5),
            TypeError,
            "expected a function",
        ),
        (lambda o: schedules.ExponentialLR(o, math.nan), DataError, "gamma is nan"),
        (lambda o: schedules.LambdaLR(o, lambda e: -1.0), DataError, "rate -0.1 at epoch 0"),
        (lambda o: schedules.CyclicLR(o, math.inf, 0.2), DataError, "base_lr is inf"),
        (lambda o: schedules.ReduceLROnPlateau(o, eps=math.nan), DataError, "expected finite"),
        (lambda o: schedules.SequentialLR(o, [], []), DataError, "at least one schedule"),
        (
            lambda o: schedules.SequentialLR(o, [schedules.ExponentialLR(o, 0.9)], [3]),
            DataError,
            "need 0 milestones, got 1",
        ),
        (
            lambda o: schedules.SequentialLR(
                o, [schedules.ExponentialLR(o, 0.9) for _ in range(3)], [5, 3]
            ),
            DataError,
            "not in order",
        ),
        (
            lambda o: schedules.ChainedScheduler(
                [schedules.ExponentialLR(o, 0.9), schedules.ReduceLROnPlateau(o)]
            ),
            TypeError,
            "schedule 1 is a ReduceLROnPlateau",
        ),
        (
            lambda o: schedules.SequentialLR(o, [schedules.ExponentialLR(_optimizer(), 0.9)], []),
            DataError,
            "another optimizer",
        ),
        (lambda o: schedules.ReduceLROnPlateau(o, factor=1.0), DataError, "factor is 1.0"),
        (lambda o: schedules.ReduceLROnPlateau(o, mode="mim"), UnknownNameError, "mean 'min'"),
        (lambda o: schedules.ReduceLROnPlateau(o, patience=-1), DataError, "patience is -1"),
        (lambda o: schedules.ReduceLROnPlateau(o, min_lr=[0, 0]), DataError, "min_lr has 2"),
        (lambda o: schedules.ExponentialLR("sgd", 0.9), TypeError, "expected an Optimizer"),
        (lambda o: schedules.ExponentialLR(o, 0.9, last_epoch=3), DataError, "'initial_lr'"),
    ],
)
def test_wrong_arguments_of_schedules_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(_optimizer(momentum=0.5))


def test_momentum_cannot_be_cycled_where_there_is_none():
    optimizer = _optimizer(cls=optim.Adagrad)
    with pytest.raises(DataError, match="cycle_momentum=False"):
        schedules.OneCycleLR(optimizer, 0.2, total_steps=9)
    assert optimizer.param_groups[0]["lr"] == 0.1
    schedules.OneCycleLR(optimizer, 0.2, total_steps=9, cycle_momentum=False)
    with pytest.raises(DataError, match="betas are"):
        schedules.OneCycleLR(_optimizer(cls=optim.Adam), 0.2, total_steps=9, max_momentum=1.5)


@pytest.mark.parametrize("staircase", [False, True])
def test_inverse_time_is_its_formula(staircase):
    optimizer = _optimizer()
    schedule = schedules.InverseTimeLR(optimizer, gamma=0.5, decay_steps=4, staircase=staircase)
    for epoch in range(20):
        done = epoch // 4 if staircase else epoch / 4
        assert schedule.get_last_lr() == pytest.approx([0.1 / (1.0 + 0.5 * done)], rel=1e-14)
        schedule.step()


def test_a_step_past_the_end_of_a_cycle_is_refused():
    optimizer = _optimizer(momentum=0.9)
    schedule = schedules.OneCycleLR(optimizer, 0.2, total_steps=5)
    step = _step(optimizer, scheduler=schedule)
    step.run(DATA, batch_size=4)
    before, rate = optimizer.parameters()[0].numpy(), schedule.get_last_lr()
    with pytest.raises(DataError, match="step 6 was asked for, but the cycle has 5"):
        step.run(DATA, batch_size=4)
    np.testing.assert_array_equal(optimizer.parameters()[0].value, before)
    assert (schedule.last_epoch, schedule.get_last_lr()) == (3, rate)
    step.run(DATA, batch_size=6)
    with pytest.raises(DataError, match="step 6"):
        step(DATA)
    with pytest.raises(DataError, match="step 6"):
        schedule.step()


MAKERS = {
    "StepLR": lambda o: schedules.StepLR(o, 7, gamma=0.5),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [4, 9]),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.93),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 25, 1.7),
    "LinearLR": lambda o: schedules.LinearLR(o, total_iters=11),
    "ConstantLR": lambda o: schedules.ConstantLR(o, total_iters=11),
    "InverseTimeLR": lambda o: schedules.InverseTimeLR(o, 0.2),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 9, 1e-3),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 4, 2),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.3, total_steps=40),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.3, 5),
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda e: 0.9**e),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda e: 0.9),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, total_iters=6), schedules.CosineAnnealingLR(o, 10)], [6]
    ),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.LinearLR(o, total_iters=6), schedules.CosineAnnealingLR(o, 10, 1e-3)]
    ),
}


def test_every_schedule_is_listed():
    bases = {"LRScheduler", "ReduceLROnPlateau"}
    assert set(MAKERS) == set(schedules.__all__) - bases


@pytest.mark.parametrize("stop", [3, 8, 14])
@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_schedule_is_bit_identical(name, stop):
    """Also through JSON, and whether epochs are steps of the caller or of the program."""
    optimizer = _optimizer(groups=2, momentum=0.9)
    schedule = MAKERS[name](optimizer)
    seen, kept = [], None
    for epoch in range(30):
        if epoch == stop:
            kept = json.loads(json.dumps([schedule.state_dict(), _options(optimizer)]))
        seen.append(_numbers(optimizer))
        schedule.step()
    assert kept is not None
    fresh = _optimizer(groups=2, momentum=0.9)
    resumed = MAKERS[name](fresh)
    fresh.load_state_dict({"state": {}, "param_groups": kept[1]})
    resumed.load_state_dict(kept[0])
    assert resumed.get_last_lr() == seen[stop][:2]
    for epoch in range(stop, 30):
        assert _numbers(fresh) == seen[epoch]
        resumed.step()
    inside = _optimizer(groups=2, momentum=0.9)
    step = _step(inside, scheduler=MAKERS[name](inside))
    for epoch in range(30):
        assert _numbers(inside) == seen[epoch]
        step(DATA)


def _options(optimizer):
    return optimizer.state_dict()["param_groups"]


def _numbers(optimizer):
    groups = optimizer.param_groups
    return [g["lr"] for g in groups] + [g["momentum"] for g in groups]


@pytest.mark.parametrize(
    ("made", "other"),
    [
        (
            lambda o: schedules.OneCycleLR(
                o, 0.3, total_steps=30, three_phase=True, anneal_strategy="linear"
            ),
            lambda o: schedules.OneCycleLR(o, 0.3, total_steps=99),
        ),
        (
            lambda o: schedules.CyclicLR(o, 0.01, 0.3, 5, 3, mode="triangular2"),
            lambda o: schedules.CyclicLR(o, 0.02, 0.5, 9, mode="exp_range", gamma=0.9),
        ),
        (lambda o: schedules.StepLR(o, 3), lambda o: schedules.StepLR(o, 5, gamma=0.9)),
        (
            lambda o: schedules.CosineAnnealingWarmRestarts(o, 3, 2),
            lambda o: schedules.CosineAnnealingWarmRestarts(o, 5, 3, 1e-3),
        ),
    ],
)
def test_settings_are_part_of_the_state(made, other):
    optimizer, fresh = _optimizer(momentum=0.9), _optimizer(momentum=0.9)
    schedule, resumed = made(optimizer), other(fresh)
    for _ in range(7):
        schedule.step()
    fresh.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for _ in range(20):
        schedule.step()
        resumed.step()
        assert _numbers(fresh) == _numbers(optimizer)


def test_a_plateau_resumes():
    values = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.8, 0.85, 0.86, 0.87, 0.9, 0.9]
    optimizer = _optimizer()
    schedule = schedules.ReduceLROnPlateau(optimizer, patience=1)
    fresh = schedules.ReduceLROnPlateau(_optimizer(), patience=9)
    for i, value in enumerate(values):
        if i == 5:
            fresh.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
            fresh.optimizer.load_state_dict(optimizer.state_dict())
        schedule.step(value)
        if i >= 5:
            fresh.step(value)
    assert fresh.get_last_lr() == schedule.get_last_lr() != [0.1]
    with pytest.raises(UnknownNameError, match="Did you mean 'patience'"):
        fresh.load_state_dict({"patienc": 3})


def test_states_that_do_not_fit():
    schedule = MAKERS["StepLR"](_optimizer())
    with pytest.raises(UnknownNameError, match="Did you mean 'step_size'"):
        schedule.load_state_dict({"stepsize": 3})
    with pytest.raises(DataError, match="base_lrs holds 2 rates, expected 1"):
        schedule.load_state_dict({"base_lrs": [0.1, 0.2]})
    assert schedule.step_size == 7
    cycle = schedules.CyclicLR(_optimizer(), 0.1, 0.2, cycle_momentum=False)
    with pytest.raises(DataError, match="cycle_momentum=True, this schedule has False"):
        cycle.load_state_dict({"cycle_momentum": True})
    chain = MAKERS["ChainedScheduler"](_optimizer())
    with pytest.raises(DataError, match="of 1 schedules, expected 2"):
        chain.load_state_dict({"_schedulers": [{}]})


def test_a_step_takes_a_schedule_of_its_own_optimizer():
    optimizer = _optimizer()
    with pytest.raises(DataError, match="another optimizer"):
        _step(optimizer, scheduler=MAKERS["StepLR"](_optimizer()))
    with pytest.raises(DataError, match="ReduceLROnPlateau cannot run inside the program"):
        _step(optimizer, scheduler=schedules.ReduceLROnPlateau(optimizer))


def test_groups_added_later_are_refused():
    optimizer = _optimizer()
    schedule = MAKERS["StepLR"](optimizer)
    optimizer.add_param_group({"params": nn.Parameter(np.ones(1))})
    with pytest.raises(DataError, match="2 parameter groups, the schedule was made for 1"):
        schedule.step()


def test_more_updates_than_the_table_has_columns():
    optimizer = _optimizer()
    schedule = schedules.LambdaLR(optimizer, lambda epoch: 1.0 / (1 + epoch))
    step = _step(optimizer, scheduler=schedule)
    capacity = schedule.table.capacity
    count = 2 * capacity + 5
    step.run(np.ones((count, 1)), batch_size=1)
    value = 1.0
    for epoch in range(count):
        value -= 2 * value * 0.1 / (1 + epoch)
    assert schedule.last_epoch == count
    assert optimizer.param_groups[0]["lr"] == 0.1 * (1.0 / (1 + count))
    np.testing.assert_allclose(optimizer.parameters()[0].value, value, rtol=1e-12)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam"])
def test_workers_agree_on_every_bit(name, dtype, accumulate):
    """A worker that is behind still reads the rate of its own step."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 20)).astype(dtype), rng.integers(0, 5, 300)
    results = []
    for workers in (1, 3):
        ops.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(20, 30, dtype=dtype), nn.ReLU(), nn.Linear(30, 5, dtype=dtype)
        )
        options = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(optim, name)(model.parameters(), **options)
        schedule = schedules.OneCycleLR(optimizer, 0.05, total_steps=100)
        loss_fn, ema = nn.CrossEntropyLoss(), optim.EMA(model.parameters(), 0.9)
        step = compile_step(
            lambda x, t, m=model, f=loss_fn: f(m(x), t),
            optimizer,
            backend=NumbaBackend(workers=workers),
            scheduler=schedule,
            accumulate=accumulate,
            ema=ema,
        )
        losses = step.run(X, y, batch_size=16, epochs=5, seed=0)
        weights = [p.numpy() for p in model.parameters()]
        results.append([losses, *weights, *ema.averages, np.array(_rates(optimizer))])
    for one, several in zip(*results, strict=True):
        assert_same(several, one)
    assert schedule.last_epoch == 5 * -(-19 // accumulate) == ema.n_averaged


def _rates(optimizer):
    return [[g["lr"], float(g.momentum.value)] for g in optimizer.param_groups]


def test_a_schedule_is_read_anew_in_every_run():
    """Settings and rates that change between runs of one program take effect."""
    optimizer = _optimizer()
    schedule = schedules.ExponentialLR(optimizer, 0.5)
    step = _step(optimizer, scheduler=schedule)
    step.run(DATA, batch_size=4)
    program = step.program
    assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**3
    schedule.gamma = 1.0
    schedule.step()
    optimizer.param_groups[0]["lr"] = 0.25
    step.run(DATA, batch_size=4)
    step(DATA)
    assert optimizer.param_groups[0]["lr"] == 0.25
    optimizer.param_groups[0]["lr"] = 0.0
    before = optimizer.parameters()[0].numpy()
    step.run(DATA, batch_size=4)
    np.testing.assert_array_equal(optimizer.parameters()[0].value, before)
    assert schedule.last_epoch == 11
    assert step.program is program


def test_data_that_are_refused_leave_the_schedule_where_it_is():
    optimizer = _optimizer()
    schedule = schedules.ExponentialLR(optimizer, 0.5)
    step = _step(optimizer, scheduler=schedule)
    with pytest.raises(DataError, match="nan"):
        step.run(np.full((4, 1), math.nan), batch_size=2)
    assert schedule.last_epoch == 0
    assert schedule.get_last_lr() == [0.1]


def test_a_schedule_called_between_runs_needs_no_new_program():
    optimizer = _optimizer()
    schedule = schedules.StepLR(optimizer, 1, gamma=0.5)
    step = _step(optimizer)
    rates = []
    step.run(
        DATA,
        batch_size=4,
        epochs=3,
        progress=lambda *_: (schedule.step(), rates.append(optimizer.param_groups[0]["lr"])),
    )
    assert rates == [0.05, 0.025, 0.0125]
    value = 1.0
    for rate in (0.1, 0.05, 0.025):
        value *= (1 - 2 * rate) ** 3
    np.testing.assert_allclose(optimizer.parameters()[0].value, value, rtol=1e-12)
