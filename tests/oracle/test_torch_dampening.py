"""SGD whose momentum and dampening are switched while it trains, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS

import gpubp as gp
from gpubp import nn, ops, optim

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 2))

# What is set before each step: (group, option, value).
Changes = list[list[tuple[int, str, float]]]
SCRIPTS: dict[str, Changes] = {
    "dampening later": [
        [(0, "momentum", 0.9), (1, "momentum", 0.9)], [], [(0, "dampening", 0.5)], [],
        [(1, "dampening", 0.3)], [],
    ],
    "momentum later": [
        [(0, "dampening", 0.5), (1, "dampening", 0.5)], [], [(0, "momentum", 0.9)], [],
        [(1, "momentum", 0.8)], [], [],
    ],
    "on, off, on": [
        [(0, "momentum", 0.9), (0, "dampening", 0.5)], [], [(0, "dampening", 0.0)], [],
        [(0, "momentum", 0.0)], [], [(0, "momentum", 0.9), (0, "dampening", 0.2)], [], [],
    ],
    "both later": [[], [], [(0, "momentum", 0.9), (0, "dampening", 0.5)], [], []],
    "one group dampens": [
        [(0, "momentum", 0.9), (0, "dampening", 0.5), (1, "momentum", 0.9)], [], [],
        [(1, "dampening", 0.7)], [], [],
    ],
}  # fmt: skip


class _Pair:
    """The same model, loss and optimiser here and there."""

    def __init__(self, groups: int, backend: str) -> None:
        ops.manual_seed(0)
        layers = [nn.Linear(3, 4, dtype="float64"), nn.Tanh(), nn.Linear(4, 2, dtype="float64")]
        self.mine = nn.Sequential(*layers)
        self.other = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
        ).double()
        state = {k: torch.from_numpy(v) for k, v in self.mine.state_dict().items()}
        self.other.load_state_dict(state)
        self.optimizer = optim.SGD(self._groups(self.mine, groups), lr=0.1)
        self.theirs = torch.optim.SGD(self._groups(self.other, groups), lr=0.1)
        loss_fn = nn.MSELoss()
        self.step = gp.compile_step(
            lambda x, y: loss_fn(self.mine(x), y), self.optimizer, backend=backend
        )

    @staticmethod
    def _groups(model: Any, groups: int) -> Any:
        if groups == 1:
            return list(model.parameters())
        return [{"params": list(model[i].parameters())} for i in (0, 2)]

    def change(self, changes: list[tuple[int, str, float]]) -> None:
        for group, name, value in changes:
            if group < len(self.optimizer.param_groups):
                self.optimizer.param_groups[group][name] = value
                self.theirs.param_groups[group][name] = value

    def train(self) -> None:
        self.step(X, Y)
        self.theirs.zero_grad()
        out = self.other(torch.from_numpy(X))
        torch.nn.functional.mse_loss(out, torch.from_numpy(Y)).backward()
        self.theirs.step()

    def check(self) -> None:
        theirs = self.other.state_dict()
        for name, value in self.mine.state_dict().items():
            np.testing.assert_allclose(value, theirs[name].numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", SCRIPTS)
def test_options_that_change_while_training(name: str, groups: int, backend: str) -> None:
    pair = _Pair(groups, backend)
    for changes in SCRIPTS[name]:
        pair.change(changes)
        pair.train()
        pair.check()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("stop", [0, 1, 2, 4])
def test_states_that_are_loaded_between(name: str, groups: int, stop: int) -> None:
    first, pair = _Pair(groups, "numpy"), _Pair(groups, "numpy")
    for i, changes in enumerate(SCRIPTS[name]):
        if i == stop:
            pair.step.prepare(X, Y)  # makes buffers of zeros, which no gradient has reached
            pair.mine.load_state_dict(first.mine.state_dict())
            pair.optimizer.load_state_dict(first.optimizer.state_dict())
            pair.other.load_state_dict(first.other.state_dict())
            pair.theirs.load_state_dict(first.theirs.state_dict())
        now = first if i < stop else pair
        now.change(changes)
        now.train()
        now.check()


def test_torchs_state_goes_on_here() -> None:
    first, pair = _Pair(1, "numpy"), _Pair(1, "numpy")
    for made in (first, pair):
        made.change([(0, "momentum", 0.9)])
    first.train()
    state = first.theirs.state_dict()
    arrays = {
        i: {k: v.numpy() for k, v in s.items() if v is not None} for i, s in state["state"].items()
    }
    pair.optimizer.load_state_dict({**state, "state": arrays})
    pair.theirs.load_state_dict(state)
    pair.mine.load_state_dict(first.mine.state_dict())
    pair.other.load_state_dict(first.other.state_dict())
    pair.change([(0, "dampening", 0.5)])
    for _ in range(3):
        pair.train()
        pair.check()


def test_buffers_that_no_gradient_has_reached_are_not_saved() -> None:
    pair = _Pair(1, "numpy")
    pair.change([(0, "momentum", 0.9)])
    pair.step.prepare(X, Y)
    assert pair.optimizer.state_dict()["state"] == {}
    pair.train()
    assert len(pair.optimizer.state_dict()["state"]) == 4
