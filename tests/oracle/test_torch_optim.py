"""SGD and Adam against PyTorch: every combination of options, trajectories of 50 steps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE
from twin import STEPS, Twin

from gpubp import optim

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")

pytestmark = pytest.mark.oracle

DTYPES = tuple(ORACLE)


def _sgd_options() -> list[dict[str, Any]]:
    forms = (
        {},
        {"dampening": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.1},
        {"momentum": 0.9, "nesterov": True},
    )
    rest = itertools.product(forms, (0.0, 0.01), (False, True))
    return [{"lr": 0.02, **f, "weight_decay": w, "maximize": m} for f, w, m in rest]


def _adam_options() -> list[dict[str, Any]]:
    betas, eps, decay, maximize = (
        ((0.9, 0.999), (0.5, 0.9)),
        (1e-8, 1e-3),
        (0.0, 0.01),
        (False, True),
    )
    return [
        {"lr": 0.01, "betas": b, "eps": e, "weight_decay": w, "maximize": m}
        for b, e, w, m in itertools.product(betas, eps, decay, maximize)
    ]


CASES = [
    *[("SGD", options) for options in _sgd_options()],
    *[("Adam", options) for options in _adam_options()],
    ("Adam", {"lr": 0.01, "betas": (0.0, 0.9)}),
]
IDS = [f"{name}-" + "-".join(f"{k}={v}" for k, v in o.items()) for name, o in CASES]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_trajectory_equals_torch(twin: Twin, name: str, options: dict[str, Any]) -> None:
    start = twin.model.state_dict()
    mine, theirs = twin.optimizers(name, options)
    twin.train(twin.stepper(mine), theirs, STEPS)
    twin.check()
    moved = [np.abs(twin.model.state_dict()[k] - v).max() for k, v in start.items()]
    assert min(moved) > 1e-3


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_groups_have_their_own_options(twin: Twin, name: str) -> None:
    def groups(model: Any) -> list[dict[str, Any]]:
        first, second = list(model.parameters())[:2], list(model.parameters())[2:]
        return [{"params": first, "lr": 0.05, "weight_decay": 0.1}, {"params": second}]

    mine = getattr(optim, name)(groups(twin.model), lr=0.01)
    theirs = getattr(torch.optim, name)(groups(twin.other), lr=0.01)
    twin.train(twin.stepper(mine), theirs, STEPS)
    twin.check()


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_learning_rate_changes_midway(twin: Twin, name: str) -> None:
    mine, theirs = twin.optimizers(name, {"lr": 0.01})
    step = twin.stepper(mine)
    for lr in (0.01, 0.03, 0.002):
        mine.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = lr
        twin.train(step, theirs, 10)
    twin.check()


@pytest.mark.parametrize(
    "change",
    [{"momentum": 0.5}, {"weight_decay": 0.1}, {"maximize": True}],
    ids=lambda c: next(iter(c)),
)
def test_other_options_change_midway(twin: Twin, change: dict[str, Any]) -> None:
    mine, theirs = twin.optimizers("SGD", {"lr": 0.02, "momentum": 0.9})
    step = twin.stepper(mine)
    twin.train(step, theirs, 10)
    mine.param_groups[0].update(change)
    theirs.param_groups[0].update(change)
    twin.train(step, theirs, 10)
    twin.check()


def test_frozen_parameters_stay(twin: Twin) -> None:
    twin.model[0].weight.requires_grad = False
    twin.other[0].weight.requires_grad_(False)
    before = twin.model[0].weight.numpy()
    mine, theirs = twin.optimizers("Adam", {"lr": 0.01})
    step = twin.stepper(mine)
    twin.train(step, theirs, 10)
    np.testing.assert_array_equal(twin.model[0].weight.value, before)
    twin.check()


def test_state_dict_has_torch_layout_before_the_first_step(twin: Twin) -> None:
    mine, theirs = twin.optimizers("Adam", {"lr": 0.01})
    state, expected = mine.state_dict(), theirs.state_dict()
    assert state["state"] == expected["state"] == {}
    for group, reference in zip(state["param_groups"], expected["param_groups"], strict=True):
        assert all(reference[key] == value for key, value in group.items())
