"""Schedules against PyTorch: called once an epoch, and once an update inside the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from twin import Twin, to_numpy

from gpubp import nn, optim
from gpubp.optim import lr_scheduler as mine_module

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::UserWarning")]

STEPS = 200
RTOL, ATOL = 1e-10, 1e-16

Make = Callable[[Any, Any], Any]


def _swa(schedules: Any) -> Any:
    """The module that has SWALR."""
    return optim.swa_utils if schedules is mine_module else torch.optim.swa_utils


def _two(optimizer: Any) -> list[float]:
    return [0.03, 0.01][: len(optimizer.param_groups)]


SCHEDULES: dict[str, Make] = {
    "SWALR": lambda s, o: _swa(s).SWALR(o, 0.02),
    "SWALR-linear": lambda s, o: _swa(s).SWALR(o, _two(o), 50, anneal_strategy="linear"),
    "SWALR-quick": lambda s, o: _swa(s).SWALR(o, 0.03, 1),
    "ChainedScheduler-swa": lambda s, o: s.ChainedScheduler(
        [s.ExponentialLR(o, gamma=0.99), _swa(s).SWALR(o, 0.3, 20, "linear")]
    ),
    "StepLR": lambda s, o: s.StepLR(o, 30, gamma=0.5),
    "StepLR-every": lambda s, o: s.StepLR(o, step_size=1, gamma=0.99),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [120, 20, 50, 50], gamma=0.3),
    "MultiStepLR-at-0": lambda s, o: s.MultiStepLR(o, [0, 3]),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, gamma=0.97),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, total_iters=150, power=2.0),
    "PolynomialLR-root": lambda s, o: s.PolynomialLR(o, total_iters=260, power=0.5),
    "LinearLR": lambda s, o: s.LinearLR(o, start_factor=0.1, end_factor=0.7, total_iters=80),
    "LinearLR-to-0": lambda s, o: s.LinearLR(o, 1.0, 0.0, total_iters=33),
    "ConstantLR": lambda s, o: s.ConstantLR(o, factor=0.2, total_iters=40),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, T_max=60, eta_min=1e-4),
    "CosineAnnealingLR-long": lambda s, o: s.CosineAnnealingLR(o, T_max=300),
    "WarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=25, eta_min=1e-3),
    "WarmRestarts-mult": lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=7, T_mult=2),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, max_lr=0.1, total_steps=STEPS),
    "OneCycleLR-linear": lambda s, o: s.OneCycleLR(
        o, max_lr=0.2, epochs=20, steps_per_epoch=11, anneal_strategy="linear", pct_start=0.4
    ),
    "OneCycleLR-three": lambda s, o: s.OneCycleLR(
        o,
        max_lr=0.2,
        total_steps=STEPS,
        three_phase=True,
        div_factor=10.0,
        final_div_factor=100.0,
        base_momentum=0.5,
        max_momentum=0.8,
    ),
    "OneCycleLR-lr-only": lambda s, o: s.OneCycleLR(
        o, max_lr=0.2, total_steps=STEPS, cycle_momentum=False
    ),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.1, step_size_up=20),
    "CyclicLR-2": lambda s, o: s.CyclicLR(
        o, 0.01, 0.1, step_size_up=13, step_size_down=29, mode="triangular2", base_momentum=0.3
    ),
    "CyclicLR-exp": lambda s, o: s.CyclicLR(
        o, 0.01, 0.1, step_size_up=20, mode="exp_range", gamma=0.99, cycle_momentum=False
    ),
    "CyclicLR-function": lambda s, o: s.CyclicLR(
        o, 0.01, 0.1, step_size_up=20, scale_fn=lambda x: 1.0 / (1.0 + x), scale_mode="iterations"
    ),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda epoch: 0.95**epoch + 0.1 * (epoch % 3)),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda epoch: 1.0 - 0.5 / (epoch + 1)),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o,
        [
            s.LinearLR(o, start_factor=0.1, total_iters=20),
            s.CosineAnnealingLR(o, T_max=80),
            s.ExponentialLR(o, gamma=0.99),
        ],
        milestones=[20, 100],
    ),
    "SequentialLR-restarts": lambda s, o: s.SequentialLR(
        o,
        [s.ConstantLR(o, factor=0.1, total_iters=100), s.CosineAnnealingWarmRestarts(o, T_0=30)],
        milestones=[10],
    ),
    "SequentialLR-multiplicative": lambda s, o: s.SequentialLR(
        o,
        [s.ExponentialLR(o, gamma=0.9), s.MultiplicativeLR(o, lambda epoch: 0.98)],
        milestones=[15],
    ),
    "SequentialLR-onecycle": lambda s, o: s.SequentialLR(
        o,
        [s.ConstantLR(o, factor=0.5, total_iters=9), s.OneCycleLR(o, max_lr=0.3, total_steps=190)],
        milestones=[12],
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, factor=0.1, total_iters=20), s.ExponentialLR(o, gamma=0.97)]
    ),
    "ChainedScheduler-cosine": lambda s, o: s.ChainedScheduler(
        [
            s.LinearLR(o, start_factor=0.2, total_iters=25),
            s.CosineAnnealingLR(o, T_max=70, eta_min=1e-3),
            s.StepLR(o, step_size=40, gamma=0.6),
        ]
    ),
    "ChainedScheduler-of-sequential": lambda s, o: s.ChainedScheduler(
        [
            s.SequentialLR(
                o,
                [s.LinearLR(o, 0.1, total_iters=10), s.PolynomialLR(o, 120, 1.5)],
                milestones=[10],
            ),
            s.ExponentialLR(o, gamma=0.99),
        ]
    ),
}


def _pair(name: str, make: Make, optimizer: str = "SGD", **options: Any) -> tuple[Any, ...]:
    """(our optimiser, torch's, our schedule, torch's) over two groups."""
    params = [nn.Parameter(np.ones(2)), nn.Parameter(np.ones(3))]
    others = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    if optimizer == "SGD":
        options = {"momentum": 0.9, **options}
    mine = getattr(optim, optimizer)(
        [{"params": [params[0]], "lr": 0.05}, {"params": [params[1]]}], lr=0.2, **options
    )
    theirs = getattr(torch.optim, optimizer)(
        [{"params": [others[0]], "lr": 0.05}, {"params": [others[1]]}], lr=0.2, **options
    )
    return mine, theirs, make(mine_module, mine), make(torch.optim.lr_scheduler, theirs)


def _numbers(optimizer: Any) -> list[float]:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    momenta = [
        float(g["momentum"] if "momentum" in g else g["betas"][0]) for g in optimizer.param_groups
    ]
    return rates + momenta


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_equal_torch(name: str, optimizer: str) -> None:
    mine, theirs, ours, reference = _pair(name, SCHEDULES[name], optimizer)
    seen = set()
    for _ in range(STEPS):
        np.testing.assert_allclose(_numbers(mine), _numbers(theirs), RTOL, ATOL)
        np.testing.assert_allclose(ours.get_last_lr(), reference.get_last_lr(), RTOL, ATOL)
        seen.add(tuple(_numbers(mine)))
        theirs.step()
        ours.step()
        reference.step()
    assert len(seen) > 1


BY_HAND = ["StepLR", "CosineAnnealingLR", "LinearLR", "PolynomialLR", "SWALR-linear"]


@pytest.mark.parametrize("name", BY_HAND)
def test_a_rate_that_was_changed_by_hand_goes_on_as_torchs(name: str) -> None:
    mine, theirs, ours, reference = _pair(name, SCHEDULES[name])
    for epoch in range(STEPS):
        if epoch in (5, 45):
            for optimizer in (mine, theirs):
                optimizer.param_groups[1]["lr"] *= 0.25
        np.testing.assert_allclose(_numbers(mine), _numbers(theirs), RTOL, ATOL)
        theirs.step()
        ours.step()
        reference.step()


@pytest.mark.parametrize("epochs", [30, 70])
@pytest.mark.parametrize("name", SCHEDULES)
def test_torchs_state_is_taken(name: str, epochs: int) -> None:
    _, theirs, _, reference = _pair(name, SCHEDULES[name])
    for _ in range(epochs):
        theirs.step()
        reference.step()
    mine, _, ours, _ = _pair(name, SCHEDULES[name])
    mine.load_state_dict({**to_numpy(theirs.state_dict()), "state": {}})
    state = reference.state_dict()
    if name.startswith("ChainedScheduler"):
        state = {**state, "last_epoch": epochs}
    ours.load_state_dict(state)
    for _ in range(STEPS - epochs):
        np.testing.assert_allclose(_numbers(mine), _numbers(theirs), RTOL, ATOL)
        theirs.step()
        ours.step()
        reference.step()


PLATEAUS: dict[str, dict[str, Any]] = {
    "default": {"patience": 3},
    "max": {"mode": "max", "factor": 0.5, "patience": 2, "threshold": 0.05},
    "abs": {"threshold_mode": "abs", "threshold": 0.02, "patience": 1, "cooldown": 4},
    "max-abs": {"mode": "max", "threshold_mode": "abs", "patience": 0, "min_lr": [1e-3, 1e-2]},
    "eps": {"patience": 1, "min_lr": 0.04, "eps": 0.02},
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_plateaus_equal_torch(name: str) -> None:
    options = PLATEAUS[name]
    mine, theirs, ours, reference = _pair(name, lambda s, o: s.ReduceLROnPlateau(o, **options))
    rng = np.random.default_rng(0)
    for epoch in range(STEPS):
        metric = 1.0 / (epoch + 1) + 0.1 * rng.random()
        metric = float("nan") if epoch == 77 else metric
        for schedule in (ours, reference):
            schedule.step(metric)
        np.testing.assert_allclose(_numbers(mine), _numbers(theirs), RTOL, ATOL)
        assert ours.num_bad_epochs == reference.num_bad_epochs
    assert _numbers(mine)[:2] != [0.05, 0.2]


@pytest.mark.parametrize("name", SCHEDULES)
def test_in_the_program_each_update_has_its_own_rate(twin: Twin, name: str) -> None:
    """Several runs of one compiled step equal torch with scheduler.step() after each update."""
    options = {"lr": 0.1, "momentum": 0.9}
    mine, theirs = twin.optimizers("SGD", options)
    ours = SCHEDULES[name](mine_module, mine)
    reference = SCHEDULES[name](torch.optim.lr_scheduler, theirs)
    step = twin.stepper(mine, scheduler=ours)
    programs = set()
    for steps in (30, 1, 29, 60):
        twin.train(step, theirs, steps, reference.step)
        programs.add(id(step.program))
        np.testing.assert_allclose(ours.get_last_lr(), reference.get_last_lr(), RTOL, ATOL)
        np.testing.assert_allclose(_numbers(mine), _numbers(theirs), RTOL, ATOL)
    assert len(programs) == 1
    twin.check()


OPTIMIZERS = ["Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_moves_inside_the_program(twin: Twin, name: str) -> None:
    options = {"momentum": 0.9} if name == "RMSprop" else {}
    mine, theirs = twin.optimizers(name, options)
    schedules = [
        s.OneCycleLR(o, max_lr=0.02, total_steps=60, base_momentum=0.6, max_momentum=0.8)
        for s, o in ((mine_module, mine), (torch.optim.lr_scheduler, theirs))
    ]
    step = twin.stepper(mine, scheduler=schedules[0])
    for steps in (20, 40):
        twin.train(step, theirs, steps, schedules[1].step)
        np.testing.assert_allclose(_numbers(mine), _numbers(theirs), RTOL, ATOL)
    twin.check()


@pytest.mark.parametrize("options", [{"nesterov": True}, {"dampening": 0.2}], ids=str)
def test_moving_momentum_with_the_options_of_sgd(twin: Twin, options: dict[str, Any]) -> None:
    mine, theirs = twin.optimizers("SGD", {"lr": 0.1, "momentum": 0.9, **options})
    schedules = [
        s.CyclicLR(o, 0.01, 0.1, step_size_up=7)
        for s, o in ((mine_module, mine), (torch.optim.lr_scheduler, theirs))
    ]
    twin.train(twin.stepper(mine, scheduler=schedules[0]), theirs, 50, schedules[1].step)
    twin.check()
