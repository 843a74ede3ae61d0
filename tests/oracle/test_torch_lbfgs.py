"""L-BFGS against PyTorch: every configuration of its database, state, and minibatches.

A search follows the shape of the loss to its last digits, so differences of rounding grow from step
to step. The first steps are compared, of float64; float32 as far as one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE
from twin import Twin, to_numpy

from gpubp import nn, optim
from gpubp.runtime.step import compile_step

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
database = pytest.importorskip(
    "torch.testing._internal.common_optimizers", reason="this PyTorch has no optimiser database"
)

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore:Converting a tensor")]

MORE: list[dict[str, Any]] = [
    {"max_iter": 4, "history_size": 2, "lr": 0.5},
    {"max_iter": 6, "max_eval": 4},
    {"max_iter": 5, "history_size": 3, "max_eval": 8, "line_search_fn": "strong_wolfe"},
    {"max_iter": 9, "lr": 0.05, "line_search_fn": "strong_wolfe", "tolerance_change": 1e-3},
    {"lr": 8.0, "max_iter": 6, "line_search_fn": "strong_wolfe"},
    {"max_eval": 1, "line_search_fn": "strong_wolfe"},
    {"tolerance_grad": 10.0},
]


def _options() -> Iterator[Any]:
    (info,) = [i for i in database.optim_db if i.optim_cls.__name__ == "LBFGS"]
    for given in info.optim_inputs_func(device="cpu"):
        yield pytest.param(given.kwargs, id=given.desc)
    for options in MORE:
        yield pytest.param(options, id=",".join(f"{k}={v}" for k, v in options.items()))


class Pair:
    """A step of ours and one of PyTorch's, on the same batches."""

    def __init__(self, twin: Twin, mine: Any, theirs: Any) -> None:
        self.twin, self.mine, self.theirs = twin, mine, theirs
        self.step = twin.stepper(mine)

    def closure(self, rows: Any) -> Any:
        def evaluate() -> Any:
            self.theirs.zero_grad()
            outputs = self.twin.other(torch.from_numpy(self.twin.X[rows]))
            loss = torch.nn.CrossEntropyLoss()(outputs, torch.from_numpy(self.twin.y[rows]))
            loss.backward()
            return loss

        return evaluate

    def take(self, steps: int) -> None:
        rows = np.arange(len(self.twin.X))
        for _ in range(steps):
            self.twin.losses.append(self.step(self.twin.X, self.twin.y))
            self.twin.expected.append(float(self.theirs.step(self.closure(rows)).detach()))

    def counts(self) -> None:
        """As many iterations and evaluations."""
        expected = self.theirs.state_dict()["state"][0]
        found = self.mine.state_dict()["state"][0]
        for name in ("n_iter", "func_evals"):
            assert found[name] == expected[name], name
        for name in ("old_dirs", "old_stps", "ro"):
            assert len(found.get(name, ())) == len(expected.get(name, ())), name


@pytest.mark.parametrize("options", list(_options()))
def test_trajectory_equals_torch(twin: Twin, options: dict[str, Any]) -> None:
    pair = Pair(twin, *twin.optimizers("LBFGS", options))
    pair.take(2 if twin.dtype == "float64" else 1)
    if twin.dtype == "float32":
        np.testing.assert_allclose(twin.losses, twin.expected, rtol=ORACLE["float32"])
        return
    twin.check()
    pair.counts()


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_minibatches_in_a_run(twin: Twin, search: str | None) -> None:
    """Torch's steps on the same rows, one after the other; the loss is that before each."""
    if twin.dtype == "float32":
        return
    options = {"max_iter": 3, "line_search_fn": search, "lr": 0.1}
    pair = Pair(twin, *twin.optimizers("LBFGS", options))
    order = twin.order[:32]
    losses = pair.step.run(twin.X, twin.y, batch_size=8, order=order)
    expected = [pair.theirs.step(pair.closure(rows)).item() for rows in order.reshape(4, 8)]
    np.testing.assert_allclose(losses, expected, rtol=ORACLE[twin.dtype])
    twin.check_weights(twin.other.state_dict())
    pair.counts()


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_state_goes_from_one_to_the_other(twin: Twin, search: str | None) -> None:
    if twin.dtype == "float32":
        return
    options = {"max_iter": 3, "line_search_fn": search, "lr": 0.5}
    pair = Pair(twin, *twin.optimizers("LBFGS", options))
    pair.take(2)
    state = pair.mine.state_dict()
    expected = pair.theirs.state_dict()["state"][0]
    assert set(expected) - {"al"} == set(state["state"][0])
    fresh = optim.LBFGS(twin.model.parameters(), lr=9.0)
    fresh.load_state_dict(to_numpy(pair.theirs.state_dict()))
    back = torch.optim.LBFGS(twin.other.parameters(), lr=9.0)
    back.load_state_dict({**state, "state": {0: _tensors(state["state"][0])}})
    again = Pair(twin, fresh, back)
    again.take(2)
    again.counts()
    twin.check()


def _tensors(state: dict[str, Any]) -> dict[str, Any]:
    def made(value: Any) -> Any:
        if isinstance(value, list):
            return [made(v) for v in value]
        return torch.as_tensor(value) if isinstance(value, np.ndarray) else value

    return {name: made(value) for name, value in state.items()}


def test_it_finds_the_least_squares(twin: Twin) -> None:
    """Of a linear model, whose minimum NumPy knows."""
    targets = twin.X @ np.arange(12.0).reshape(6, 2).astype(twin.dtype) + 1.0
    twin.model = nn.Sequential(nn.Linear(6, 2, dtype=twin.dtype))
    (weight, bias) = twin.model.parameters()
    exact = {"tolerance_grad": 1e-10, "tolerance_change": 1e-18}
    mine = optim.LBFGS([weight, bias], line_search_fn="strong_wolfe", max_iter=90, **exact)
    loss_fn = nn.MSELoss()
    step = compile_step(lambda x, t: loss_fn(twin.model(x), t), mine, backend=twin.backend)
    step(twin.X, targets)
    close = 1e-3 if twin.dtype == "float32" else 1e-6
    np.testing.assert_allclose(weight.value, np.arange(12.0).reshape(6, 2).T, atol=close)
    np.testing.assert_allclose(bias.value, 1.0, atol=close)
