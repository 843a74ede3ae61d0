"""L-BFGS: a step that searches. Its numbers are compared with PyTorch's in tests/oracle."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from points import assert_same, points, trainer
from registered import BACKENDS

import gpubp as gp
from gpubp import nn, optim
from gpubp.errors import DataError, ShapeError

X, Y = points(40, seed=2)
WOLFE = {"line_search_fn": "strong_wolfe", "max_iter": 5}


def _pair(**options: Any) -> tuple[Any, Any, Any]:
    """(model, optimiser, function of a step)."""
    gp.manual_seed(1)
    model, loss = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)), nn.CrossEntropyLoss()
    made = optim.LBFGS(model.parameters(), **{**WOLFE, **options})
    return model, made, lambda x, y: loss(model(x), y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_and_runs_are_the_same_steps(backend: str) -> None:
    """A run of three whole batches, and three calls; with what the function returns beside."""
    found = []
    for in_calls in (True, False):
        model, optimizer, fn = _pair()
        step = gp.compile_step(
            lambda x, y, f=fn, m=model: (f(x, y), {"bias": m[0].bias}), optimizer, backend=backend
        )
        if in_calls:
            losses = [step(X, Y) for _ in range(3)]
            rows = np.array([v[0] for v in losses]), np.stack([v[1]["bias"] for v in losses])
        else:
            value, more = step.run(X, Y, batch_size=len(X), epochs=3, shuffle=False)
            rows = value, more["bias"]
            assert step.totals.shape == (3, 1, 2) and (step.losses == value).all()
        found.append([*rows, *model.state_dict().values()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    losses = found[0][0]
    assert losses[0] > losses[1] > losses[2], "from before each step"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (lambda o, p: {"accumulate": 2}, "accumulate"),
        (lambda o, p: {"max_grad_norm": 1.0}, "max_grad_norm"),
        (lambda o, p: {"max_grad_value": 1.0}, "max_grad_value"),
        (lambda o, p: {"loss_scale": 8.0}, "loss_scale"),
        (lambda o, p: {"ema": optim.EMA(p)}, "ema"),
        (lambda o, p: {"scheduler": optim.lr_scheduler.ExponentialLR(o, 0.9)}, "scheduler"),
    ],
)
def test_what_a_program_does_after_gradients_is_refused(
    settings: Callable[[Any, Any], dict[str, Any]], name: str
) -> None:
    model, optimizer, fn = _pair()
    with pytest.raises(DataError, match=f"LBFGS finds .* {name} cannot"):
        gp.compile_step(fn, optimizer, **settings(optimizer, model.parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"max_iter": 0}, "max_iter is 0"),
        ({"max_eval": 0}, "max_eval is 0"),
        ({"history_size": 0}, "history_size is 0"),
        ({"tolerance_grad": -1.0}, "tolerance_grad is"),
        ({"line_search_fn": "wolfe"}, "line_search_fn is wolfe"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"LBFGS: {message}.*expected"):
        _pair(**options)
    _, optimizer, _ = _pair()
    ((name, value),) = options.items()
    with pytest.raises(DataError, match=message):
        optimizer.param_groups[0][name] = value


def test_there_is_one_group() -> None:
    model, optimizer, _ = _pair()
    groups = [{"params": [p]} for p in model.parameters()]
    with pytest.raises(DataError, match="one parameter group"):
        optim.LBFGS(groups)
    assert len(optimizer.param_groups) == 1


def test_options_are_read_at_every_step() -> None:
    model, optimizer, fn = _pair(line_search_fn=None)
    step = gp.compile_step(fn, optimizer)
    step(X, Y)
    before = model.state_dict()
    optimizer.param_groups[0]["lr"] = 0.0
    step(X, Y)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    optimizer.param_groups[0].update(lr=1.0, max_iter=1)
    done = optimizer.state_dict()["state"][0]["n_iter"]
    step(X, Y)
    assert optimizer.state_dict()["state"][0]["n_iter"] == done + 1


def test_a_search_that_fails_changes_nothing() -> None:
    model, optimizer, fn = _pair()
    calls = []

    def forward(x: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return x

    op = gp.custom_op("lbfgs_stops", forward, lambda g, y, x: (g,))
    step = gp.compile_step(lambda x, y: fn(op(x), y), optimizer, backend="numpy")
    step_state = optimizer.state_dict()
    before = model.state_dict()
    with pytest.raises(KeyboardInterrupt):
        step(X, Y)
    assert len(calls) > 4
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert optimizer.state_dict() == step_state


def test_frozen_parameters_stay_and_the_memory_begins_again() -> None:
    model, optimizer, fn = _pair(max_iter=2)
    step = gp.compile_step(fn, optimizer)
    step(X, Y)
    before = model[0].weight.numpy()
    model[0].weight.requires_grad = False
    losses = [float(step(X, Y)) for _ in range(3)]
    np.testing.assert_array_equal(model[0].weight.value, before)
    assert losses[0] > losses[1] > losses[2]
    model[0].weight.requires_grad = True
    step(X, Y)
    assert (model[0].weight.value != before).any()


@pytest.mark.parametrize("how", [copy.deepcopy, None])
def test_copies_and_states_go_on(how: Callable[[Any], Any] | None) -> None:
    model, optimizer, fn = _pair()
    step = gp.compile_step(fn, optimizer)
    step(X, Y), step(X, Y)
    if how is None:
        model2, optimizer2, fn2 = _pair(max_iter=1)
        model2.load_state_dict(model.state_dict())
        optimizer2.load_state_dict(optimizer.state_dict())
    else:
        loss = nn.CrossEntropyLoss()
        model2, optimizer2 = how((model, optimizer))
        fn2 = lambda x, y: loss(model2(x), y)  # noqa: E731
    other = gp.compile_step(fn2, optimizer2)
    for _ in range(2):
        assert step(X, Y) == other(X, Y)
    saved, wrong = optimizer.state_dict(), optimizer.state_dict()
    wrong["state"][0]["d"] = np.ones(3)
    with pytest.raises(ShapeError, match=r"state d has shape \(3,\)"):
        optimizer.load_state_dict(wrong)
    wrong["state"][0].update(d=saved["state"][0]["d"], ro=[1.0])
    with pytest.raises(DataError, match="differ in length"):
        optimizer.load_state_dict(wrong)
    assert step(X, Y) == other(X, Y)


def test_a_trainer_resumes(tmp_path: Any) -> None:
    """Minibatches and dropout: what is drawn in a search counts too."""
    path = tmp_path / "run.ckpt"

    def fitted(**how: Any) -> Any:
        made = trainer(optimizer="LBFGS", options={"lr": 0.5, "max_iter": 3})
        made.fit(X, Y, batch_size=16, epochs=3, verbose=False, **how)
        return made

    whole = fitted()
    fitted(max_steps=4, checkpoint=path)
    assert_same(fitted(resume=path), whole)
    assert whole.history["loss"][-1] < whole.history["loss"][0]
