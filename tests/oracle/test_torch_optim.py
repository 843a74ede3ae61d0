"""SGD and Adam against PyTorch: every combination of options, trajectories of 50 steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE

from gpubp import nn, ops, optim
from gpubp.step import compile_step

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

BACKENDS = ("numpy", "numba")
DTYPES = tuple(ORACLE)
STEPS, BATCH, FEATURES, CLASSES = 50, 8, 6, 4


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


class Twin:
    """One small MLP in both libraries, with the same weights and data."""

    def __init__(self, dtype: str, backend: str) -> None:
        ops.manual_seed(3)
        self.dtype, self.backend = dtype, backend
        self.model = nn.Sequential(
            nn.Linear(FEATURES, 5, dtype=dtype), nn.Tanh(), nn.Linear(5, CLASSES, dtype=dtype)
        )
        t = torch.nn
        self.other = t.Sequential(t.Linear(FEATURES, 5), t.Tanh(), t.Linear(5, CLASSES))
        self.other.to(getattr(torch, dtype)).load_state_dict(
            {k: torch.from_numpy(v) for k, v in self.model.state_dict().items()}
        )
        rng = np.random.default_rng(4)
        self.X = rng.normal(size=(40, FEATURES)).astype(dtype)
        self.y = rng.integers(0, CLASSES, 40)
        self.order = rng.integers(0, 40, STEPS * BATCH)
        self.losses: list[Any] = []
        self.expected: list[float] = []
        self.done = 0

    def optimizers(self, name: str, options: dict[str, Any]) -> tuple[optim.Optimizer, Any]:
        mine = getattr(optim, name)(self.model.parameters(), **options)
        return mine, getattr(torch.optim, name)(self.other.parameters(), **options)

    def stepper(self, optimizer: optim.Optimizer) -> Any:
        loss_fn = nn.CrossEntropyLoss()
        return compile_step(lambda x, y: loss_fn(self.model(x), y), optimizer, backend=self.backend)

    def train(self, step: Any, theirs: Any, steps: int) -> None:
        """Take `steps` further steps in both libraries."""
        order = self.order[self.done * BATCH : (self.done + steps) * BATCH]
        self.done += steps
        self.losses += list(step.run(self.X, self.y, batch_size=BATCH, order=order))
        loss_fn = torch.nn.CrossEntropyLoss()
        for rows in order.reshape(steps, BATCH):
            theirs.zero_grad()
            loss = loss_fn(
                self.other(torch.from_numpy(self.X[rows])), torch.from_numpy(self.y[rows])
            )
            loss.backward()
            theirs.step()
            self.expected.append(loss.item())

    def check(self) -> None:
        """Losses of all steps and the weights at the end."""
        tolerance = ORACLE[self.dtype]
        np.testing.assert_allclose(self.losses, self.expected, rtol=tolerance)
        theirs = self.other.state_dict()
        for name, value in self.model.state_dict().items():
            reference = theirs[name].numpy()
            assert np.abs(value - reference).max() <= tolerance * np.abs(reference).max(), name


@pytest.fixture(params=list(itertools.product(DTYPES, BACKENDS)), ids="-".join)
def twin(request: pytest.FixtureRequest) -> Twin:
    return Twin(*request.param)


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


def _to_numpy(state: dict[str, Any]) -> dict[str, Any]:
    return _converted(state, lambda v: v.numpy() if isinstance(v, torch.Tensor) else v)


def _to_torch(state: dict[str, Any]) -> dict[str, Any]:
    return _converted(state, lambda v: torch.as_tensor(v) if isinstance(v, np.ndarray) else v)


def _converted(state: dict[str, Any], leaf: Callable[[Any], Any]) -> dict[str, Any]:
    moments = {i: {k: leaf(v) for k, v in s.items()} for i, s in state["state"].items()}
    return {"state": moments, "param_groups": state["param_groups"]}


STATEFUL = [
    ("SGD", {"lr": 0.02, "momentum": 0.9}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.1}),
    ("Adam", {"lr": 0.01}),
]


@pytest.mark.parametrize(("name", "options"), STATEFUL)
def test_training_goes_on_from_torch_state(twin: Twin, name: str, options: dict[str, Any]) -> None:
    mine, theirs = twin.optimizers(name, options)
    twin.train(twin.stepper(mine), theirs, 10)
    fresh = getattr(optim, name)(twin.model.parameters(), lr=9.0)
    fresh.load_state_dict(_to_numpy(theirs.state_dict()))
    twin.train(twin.stepper(fresh), theirs, 10)
    twin.check()


@pytest.mark.parametrize(("name", "options"), STATEFUL)
def test_torch_goes_on_from_our_state(twin: Twin, name: str, options: dict[str, Any]) -> None:
    mine, theirs = twin.optimizers(name, options)
    step = twin.stepper(mine)
    twin.train(step, theirs, 10)
    state = _to_torch(mine.state_dict())
    expected = theirs.state_dict()["state"]
    assert {i: set(s) for i, s in state["state"].items()} == {
        i: set(s) for i, s in expected.items()
    }
    fresh = getattr(torch.optim, name)(twin.other.parameters(), lr=9.0)
    fresh.load_state_dict(state)
    twin.train(step, fresh, 10)
    twin.check()


def test_state_dict_has_torch_layout_before_the_first_step(twin: Twin) -> None:
    mine, theirs = twin.optimizers("Adam", {"lr": 0.01})
    state, expected = mine.state_dict(), theirs.state_dict()
    assert state["state"] == expected["state"] == {}
    for group, reference in zip(state["param_groups"], expected["param_groups"], strict=True):
        assert all(reference[key] == value for key, value in group.items())
