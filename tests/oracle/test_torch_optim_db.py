"""Every optimiser of PyTorch's own test database, in every configuration listed there.

`torch.testing._internal.common_optimizers.optim_db` names the options; what it leaves out (betas,
eps, combinations) is added here. Trajectories of 50 steps of a small MLP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from optimizers import DEFINITIONS, OF_MATRICES, taken
from twin import BATCH, STEPS, Twin, to_numpy, to_torch

from gpubp import optim

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
database = pytest.importorskip(
    "torch.testing._internal.common_optimizers", reason="this PyTorch has no optimiser database"
)

pytestmark = pytest.mark.oracle

# A step of it is a search around closures; it has rows and tests in test_torch_lbfgs.py.
ELSEWHERE = {"LBFGS"}
MORE: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"lr": 0.02, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}],
    "Adagrad": [{"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3, "maximize": True}],
    "Adadelta": [{"lr": 0.5, "rho": 0.5, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}],
    "RMSprop": [
        {"alpha": 0.8, "eps": 1e-3, "momentum": 0.9},
        {"alpha": 0.8, "centered": True},
        {"alpha": 0.8, "centered": True, "momentum": 0.5, "maximize": True},
    ],
    "Adam": [
        {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "amsgrad": True, "maximize": True},
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "AdamW": [
        {"lr": 0.01, "betas": (0.5, 0.9), "amsgrad": True},
        {"lr": 0.01, "weight_decay": 0.5, "maximize": True},
        {"lr": 0.01, "weight_decay": 0.0},
    ],
    "Adamax": [{"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3}],
    "NAdam": [
        {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "momentum_decay": 0.1},
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
    "RAdam": [
        {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3},
        {"lr": 0.01, "betas": (0.9, 0.6)},
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
    "Rprop": [{"lr": 1e-3, "etas": (0.3, 1.1), "step_sizes": (1e-4, 5e-3), "maximize": True}],
    "Adafactor": [
        {"lr": 0.1, "eps": (1e-2, 0.1), "weight_decay": 0.1},
        {"lr": 0.02, "eps": (None, 0.5), "beta2_decay": -0.5, "d": 2.0, "maximize": True},
    ],
    "Muon": [
        {"lr": 0.02, "nesterov": False, "weight_decay": 0.0, "eps": 1.0},
        {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "momentum": 0.5},
        {"lr": 0.02, "adjust_lr_fn": "original", "ns_steps": 0},
    ],
    "SparseAdam": [{"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "maximize": True}],
    "ASGD": [
        {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 5.0},
        {"lr": 0.1, "t0": 0.0, "weight_decay": 0.1, "maximize": True},
    ],
}


# Rprop follows the signs of gradients: where one is nothing but rounding (of sums of products near
# 1), which sign it has is the order of a sum, and no two libraries agree from there on.
UNDETERMINED = {"float32": 1e-7, "float64": 1e-15}


def _cases() -> Iterator[Any]:
    for info in database.optim_db:
        name = info.optim_cls.__name__
        if name in ELSEWHERE:
            continue
        inputs = [(i.desc, i.kwargs) for i in info.optim_inputs_func(device="cpu")]
        for desc, options in inputs:
            yield pytest.param(name, options, id=f"{name}-{desc}")
    for name, several in MORE.items():
        for options in several:
            given = ",".join(f"{k}={v}" for k, v in options.items())
            yield pytest.param(name, options, id=f"{name}-{given}")


@pytest.mark.parametrize(("name", "options"), list(_cases()))
def test_trajectory_equals_torch(twin: Twin, name: str, options: dict[str, Any]) -> None:
    start = twin.model.state_dict()
    if name in ("Muon", "SparseAdam"):  # which round a rate that is a tensor to float32
        options = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    mine, theirs = twin.optimizers(name, options)
    steps = _determined_steps(twin, options) if name == "Rprop" else STEPS
    twin.train(twin.stepper(mine), theirs, steps)
    twin.check()
    trained = [k for k, v in start.items() if name not in OF_MATRICES or v.ndim == 2]
    assert all((twin.model.state_dict()[k] != start[k]).any() for k in trained)


def _determined_steps(twin: Twin, options: dict[str, Any]) -> int:
    """50, or the steps before the first gradient whose sign is rounding; at least 25."""
    scratch = Twin(twin.dtype, "numpy")
    theirs = torch.optim.Rprop(scratch.other.parameters(), **options)
    for done, rows in enumerate(scratch.order[: STEPS * BATCH].reshape(STEPS, BATCH)):
        theirs.zero_grad()
        scratch.backward(rows)
        least = min(float(p.grad.abs().min()) for p in scratch.other.parameters())
        if least < UNDETERMINED[twin.dtype]:
            assert done >= 25
            return done
        theirs.step()
    return STEPS


STATEFUL = [
    ("SGD", {"lr": 0.02, "momentum": 0.9}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.1}),
    ("Adam", {"lr": 0.01}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("Adadelta", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("RMSprop", {}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("Adamax", {"lr": 0.01}),
    ("NAdam", {"lr": 0.01, "momentum_decay": 0.1}),
    ("RAdam", {"lr": 0.01}),
    ("Rprop", {"lr": 1e-3}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "t0": 5.0}),
    ("Adafactor", {"eps": (1e-2, 0.1), "d": 1.5}),
    ("Muon", {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw"}),
    ("SparseAdam", {"lr": 0.01}),
]


@pytest.fixture(autouse=True)
def _muon_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's Muon orthogonalises in bfloat16: here in the parameters' own dtype, as gpubp's."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@pytest.mark.parametrize(("name", "options"), STATEFUL)
def test_training_goes_on_from_torch_state(twin: Twin, name: str, options: dict[str, Any]) -> None:
    mine, theirs = twin.optimizers(name, options)
    twin.train(twin.stepper(mine), theirs, 10)
    fresh = getattr(optim, name)(taken(name, twin.model.parameters()), lr=9.0)
    fresh.load_state_dict(to_numpy(theirs.state_dict()))
    twin.train(twin.stepper(fresh), theirs, 10)
    twin.check()


@pytest.mark.parametrize(("name", "options"), STATEFUL)
def test_torch_goes_on_from_our_state(twin: Twin, name: str, options: dict[str, Any]) -> None:
    mine, theirs = twin.optimizers(name, options)
    step = twin.stepper(mine)
    twin.train(step, theirs, 10)
    state = to_torch(mine.state_dict())
    expected = theirs.state_dict()["state"]
    assert {i: set(s) for i, s in state["state"].items()} == {
        i: set(s) for i, s in expected.items()
    }
    for i, values in expected.items():  # SparseAdam counts in an int; float32 would cost it digits
        for key in [k for k, v in values.items() if isinstance(v, int)]:
            state["state"][i][key] = int(state["state"][i][key])
    fresh = getattr(torch.optim, name)(taken(name, twin.other.parameters()), lr=9.0)
    fresh.load_state_dict(state)
    twin.train(step, fresh, 10)
    twin.check()


def test_state_of_adagrad_is_there_before_the_first_step(twin: Twin) -> None:
    mine, theirs = twin.optimizers("Adagrad", {"initial_accumulator_value": 0.5})
    expected = to_numpy(theirs.state_dict())["state"]
    found = mine.state_dict()["state"]
    assert set(found) == set(expected)
    for i, arrays in expected.items():
        assert set(found[i]) == set(arrays)
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[i][key], array)


def test_two_optimisers_of_one_step(twin: Twin) -> None:
    """Muon for matrices, AdamW for biases: in torch one is stepped after the other."""
    found: list[list[Any]] = []
    for model, library in ((twin.model, optim), (twin.other, torch.optim)):
        params = list(model.parameters())
        matrices = [p for p in params if p.ndim == 2]
        others = [p for p in params if p.ndim != 2]
        found.append([library.Muon(matrices, lr=0.02), library.AdamW(others, lr=0.01)])
    mine, (muon, adamw) = found
    schedule = optim.lr_scheduler.ExponentialLR(mine[1], 0.95)
    reference = torch.optim.lr_scheduler.ExponentialLR(adamw, 0.95)
    step = twin.stepper(mine, scheduler=schedule)

    def after() -> None:
        adamw.step()
        adamw.zero_grad()
        reference.step()

    twin.train(step, muon, STEPS, after)
    twin.check()


def _refused() -> Iterator[Any]:
    for info in database.optim_db:
        name = info.optim_cls.__name__
        for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
            given = error.optimizer_error_input
            # What is left out is about torch's params, foreach, and betas that are tensors.
            tensors = any(isinstance(b, torch.Tensor) for b in given.kwargs.get("betas", ()))
            ours = given.params is None and "foreach" not in given.kwargs and not tensors
            if name not in ELSEWHERE and ours:
                yield pytest.param(name, given.kwargs, id=f"{name}-{given.desc}")


@pytest.mark.parametrize(("name", "options"), list(_refused()))
def test_what_torch_refuses_is_refused(name: str, options: dict[str, Any]) -> None:
    model = Twin("float32", "numpy").model
    with pytest.raises(ValueError, match=f"{name}: "):
        getattr(optim, name)(taken(name, model.parameters()), **options)


def _own_names() -> set[str]:
    return {n for n in optim.__all__ if isinstance(getattr(optim, n), type)} - {
        *ELSEWHERE,
        "EMA",
        "Optimizer",
        "ParamGroup",
    }


def test_every_optimiser_is_compared() -> None:
    known = {info.optim_cls.__name__ for info in database.optim_db} - ELSEWHERE
    assert known == _own_names() - set(DEFINITIONS)
    assert set(MORE) == known


@pytest.mark.parametrize(("name", "options"), [("Adam", {"lr": 0.01}), ("NAdam", {"lr": 0.01})])
def test_a_parameter_that_is_thawed_starts_from_its_own_first_step(
    twin: Twin, name: str, options: dict[str, Any]
) -> None:
    mine, theirs = twin.optimizers(name, options)
    step = twin.stepper(mine)
    for frozen, steps in ((None, 5), (0, 5), (None, 5), (2, 5), (0, 5), (None, 10)):
        for layer in (0, 2):
            twin.model[layer].weight.requires_grad = layer != frozen
            twin.other[layer].weight.requires_grad_(layer != frozen)
            if layer == frozen:
                twin.other[layer].weight.grad = None
        twin.train(step, theirs, steps)
    twin.check()
    counts = [float(s["step"]) for s in mine.state_dict()["state"].values()]
    assert counts == [25.0, 35.0, 30.0, 35.0]
    again = getattr(optim, name)(twin.model.parameters(), lr=9.0)
    again.load_state_dict(mine.state_dict())
    twin.train(twin.stepper(again), theirs, 5)
    twin.check()
