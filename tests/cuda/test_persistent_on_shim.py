"""The persistent step on the tests' device: whole trainings by one kernel whose blocks meet.

They equal the reference within the tolerances of launched kernels, and launched kernels to the bit
wherever those add in the same order: with as many multiprocessors as an H100 has, no sum of these
models is cut in pieces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from shim_backend import shim_backend
from shim_driver import ORDERS
from test_programs_on_shim import agree

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend, execution
from gpubp.backends.cuda.kept import Kept, keep
from gpubp.errors import BackendError, DataError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

PROCESSORS = 132


@pytest.fixture(autouse=True)
def _no_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is launched is what the runs themselves ask for."""
    monkeypatch.setenv("GPUBP_VERIFY", "0")


MAKES = {
    "sgd": OPTIMIZERS["sgd"],
    "nesterov": OPTIMIZERS["nesterov"],
    "adam": OPTIMIZERS["adam"],
    "adamw": lambda p: optim.AdamW(p, lr=1e-3, weight_decay=0.1),
}


def staying(order: str = "random", **options: Any) -> CupyBackend:
    options = {"processors": PROCESSORS, "alive": 4, **options}
    return shim_backend(order, execution="persistent", **options)


def launched() -> CupyBackend:
    return shim_backend("forward", execution="graph", processors=PROCESSORS)


def trained(target: Any, make: Any, model: Any = None, **options: Any) -> dict[str, Any]:
    """Losses of two epochs, whose last batch is a short one, and of a single step; parameters."""
    gp.manual_seed(5)
    model = model() if model else mlp(hidden=(64, 100))
    batch, samples = options.pop("batch", 32), options.pop("samples", 90)
    step = classifier_step(make, model, backend=target, seed=9, **options)
    x, y = digits(model[0].weight.value.dtype, samples, model[0].weight.shape[1])
    losses = step.run(x, y, batch_size=batch, epochs=2, seed=4)
    single = np.array(step(x[:20], y[:20]))
    return {"losses": losses, "single": single, **model.state_dict()}


def require_same(found: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", MAKES)
def test_64_100_10_with_every_rule(name: str) -> None:
    target = staying()
    found = trained(target, MAKES[name])
    assert target.driver.together == 2 == sum(target.driver.launched.values()), "a run, and a step"
    agree(found, trained("numpy", MAKES[name]), "float32")
    require_same(found, trained(launched(), MAKES[name]))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("alive", [1, 3, 7])
def test_any_number_of_blocks_and_any_order_make_the_same_bits(order: str, alive: int) -> None:
    found = trained(staying(order, alive=alive), MAKES["adam"])
    require_same(found, trained(launched(), MAKES["adam"]))


@pytest.mark.parametrize("kept", ["what others read, too", "nothing"])
def test_what_blocks_keep_changes_no_bit(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the model chooses, blocks keep what they alone read: see the test above."""
    plans = {"what others read, too": lambda *a: keep(*a[:3], copies=True)}
    monkeypatch.setattr(execution, "keep", plans.get(kept, lambda *_: Kept()))
    found = trained(staying(), MAKES["adam"], _dropped)
    monkeypatch.undo()
    require_same(found, trained(launched(), MAKES["adam"], _dropped))


def test_a_block_without_room_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device refuses, temporaries go through global memory."""
    target = staying()
    allow = target.driver.allow_shared

    def refused(kernel: Any, nbytes: int) -> None:
        if "gp::kept<" in sources[-1]:
            raise BackendError("too much")
        allow(kernel, nbytes)

    sources: list[str] = []
    compiled = target.driver.compile
    monkeypatch.setattr(target.driver, "allow_shared", refused)
    monkeypatch.setattr(target.driver, "compile", lambda s: sources.append(s) or compiled(s))
    require_same(trained(target, MAKES["sgd"]), trained(launched(), MAKES["sgd"]))
    kernels = ["gp::kept<" in source for source in sources if "run_steps" in source]
    assert kernels[:2] == [True, False]


def _tiny() -> Any:
    return mlp(nn.Tanh, hidden=(4, 8, 6), out=10)


def test_a_tiny_model_in_one_block() -> None:
    target = shim_backend("random", execution="auto", processors=PROCESSORS)
    found = trained(target, MAKES["adamw"], _tiny, batch=8, samples=27)
    assert target.driver.together == 1, "the run; the single step is a graph"
    agree(found, trained("numpy", MAKES["adamw"], _tiny, batch=8, samples=27), "float32")
    require_same(found, trained(launched(), MAKES["adamw"], _tiny, batch=8, samples=27))


def _dropped() -> Any:
    nn.init.manual_seed(3)
    return nn.Sequential(nn.Linear(64, 30), nn.Dropout(0.4), nn.GELU(), nn.Linear(30, 10))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (_dropped, {}),
        (lambda: mlp(nn.Sigmoid, "float64", hidden=(70, 90)), {}),
        (lambda: mlp(hidden=(64, 40)), {"accumulate": 3}),
        (lambda: mlp(hidden=(64, 40)), {"max_grad_norm": 0.5}),
        (lambda: mlp(hidden=(5, 300), out=10), {"batch": 70, "samples": 200}),
    ],
    ids=["dropout", "float64", "accumulated", "clipped", "wide"],
)
def test_other_programs(model: Any, options: dict[str, Any]) -> None:
    target = staying("reverse")
    found = trained(target, MAKES["adam"], model, **options)
    assert target.driver.together >= 1 and not target.driver.launched["kernel"]
    dtype = str(found["losses"].dtype)
    agree(found, trained("numpy", MAKES["adam"], model, **options), dtype)
    require_same(found, trained(launched(), MAKES["adam"], model, **options))


def _scheduled(target: Any) -> dict[str, Any]:
    """Two epochs of a rate that falls with each step, and two of another that the host set."""
    model = mlp(hidden=(64, 20))
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    loss = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda x, y: loss(model(x), y), optimizer, scheduler=schedule, backend=target
    )
    x, y = digits(samples=70)
    losses = [step.run(x, y, batch_size=32, epochs=2, seed=i) for i in range(2)]
    return {"losses": np.concatenate(losses), **model.state_dict()}


def test_schedules_and_runs_that_follow_each_other() -> None:
    target = staying()
    found = _scheduled(target)
    assert not target.driver.launched["kernel"]
    agree(found, _scheduled("numpy"), "float32")
    require_same(found, _scheduled(launched()))


def test_bad_labels_are_errors() -> None:
    step = classifier_step(MAKES["sgd"], mlp(hidden=(64, 20)), backend=staying())
    x, y = digits(samples=64)
    step.run(x, y, batch_size=32)
    y[40] = 10
    with pytest.raises(DataError, match="label"):
        step.run(x, y, batch_size=32)


def test_launched_and_persistent_steps_of_a_run_follow_each_other() -> None:
    """The words and tables of a run are those of `begin_step`: pieces may go either way."""
    target = staying()
    first = trained(target, MAKES["adam"])
    stepping = target._stepping
    kernel = stepping._executions.kernel
    stepping._executions.kernel = lambda *a: None if a[2] == 1 else kernel(*a)  # type: ignore[method-assign]
    mixed = trained(target, MAKES["adam"])
    assert target.driver.launched["kernel"], "single steps were launched"
    require_same(mixed, first)
