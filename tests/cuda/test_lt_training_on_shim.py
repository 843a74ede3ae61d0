"""Whole runs through the library: every optimiser, precisions, schedules, recordings, copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optimizers
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from shim_driver import ORDERS
from shim_products import launches_of, library_backend, send_everything
from test_programs_on_shim import STEPS, agree, backend, trained
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import PRECISIONS, stepping
from gpubp.backends.cuda.stepping import STEPS_A_GRAPH
from gpubp.optim import lr_scheduler

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

UNITS = {"tf32": 2.0**-11, "float16": 2.0**-11, "bf16": 2.0**-8}


@pytest.fixture(autouse=True)
def _everything_to_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    send_everything(monkeypatch, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_of_every_optimizer(name: str, dtype: str) -> None:
    expected = trained(OPTIMIZERS[name], "numpy", dtype)
    targets = [library_backend(order) for order in ORDERS]
    found = [trained(OPTIMIZERS[name], target, dtype) for target in targets]
    agree(found[0], expected, dtype)
    for other in found[1:]:
        for key, value in found[0].items():
            assert_same(other[key], value, key)
    launched = launches_of(targets[0])
    assert len(launched) == 16, "eight products each, of two batch sizes"


OTHERS = [name for name in optimizers.ROWS if name not in ("SGD", "Adam")]


@pytest.mark.parametrize("name", OTHERS)
def test_ten_steps_of_the_other_optimizers(name: str) -> None:
    def make(parameters: Any) -> Any:
        return getattr(optim, name)(optimizers.taken(name, parameters))

    target = library_backend()
    agree(trained(make, target, "float64"), trained(make, "numpy", "float64"), "float64")
    products = len(launches_of(target))
    assert products > 16 if name in optimizers.OF_MATRICES else products == 16


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "float32"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_ten_steps_in_low_precision(name: str, precision: str) -> None:
    target = library_backend(precision=precision)
    found = trained(OPTIMIZERS[name], target)
    expected = trained(OPTIMIZERS[name], "numpy")
    ours = backend()
    ours.precision = precision
    tiled = trained(OPTIMIZERS[name], ours)
    unit = UNITS[precision]
    assert 0 < np.abs(found["losses"] - expected["losses"]).max() < 8 * unit
    assert np.abs(found["losses"] - tiled["losses"]).max() < 2 * unit
    assert len(launches_of(target)) == 16


def _on_schedule(target: Any) -> dict[str, Any]:
    """A learning rate that the program moves at each step."""
    model = mlp(dtype="float64")
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.7)
    step = gp.compile_step(
        lambda x, y: loss_fn(model(x), y), optimizer, scheduler=scheduler, backend=target
    )
    x, y = digits("float64", 32 * STEPS)
    return {"losses": step.run(x, y, batch_size=32, epochs=2, seed=1), **model.state_dict()}


def test_a_schedule_reaches_the_librarys_alpha() -> None:
    target = library_backend()
    agree(_on_schedule(target), _on_schedule("numpy"), "float64")
    assert any(problem.update for problem in launches_of(target))


@pytest.mark.parametrize("options", [{"max_grad_norm": 0.5}, {"accumulate": 2}])
def test_gradients_that_are_kept(options: dict[str, Any]) -> None:
    make, target = OPTIMIZERS["sgd"], library_backend()
    x, y = digits("float64", 32 * STEPS)
    found = []
    for chosen in (target, "numpy"):
        model = mlp(dtype="float64")
        step = classifier_step(make, model, backend=chosen, **options)
        found.append({"losses": step.run(x, y, batch_size=32), **model.state_dict()})
    agree(*found, "float64")
    assert launches_of(target)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_replays_are_launches_bit_for_bit(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits(samples=8 * (2 * STEPS_A_GRAPH + 5))

    def losses() -> Any:
        step = classifier_step(
            OPTIMIZERS[name], mlp(), backend=library_backend(precision=precision)
        )
        return step.run(x, y, batch_size=8, epochs=2)

    replayed = losses()
    monkeypatch.setattr(stepping, "WARM", 10**9)
    assert_same(losses(), replayed)


@pytest.mark.parametrize("make", ["sgd", "adam"])
def test_a_cast_is_made_once_for_its_readers(make: str) -> None:
    """Activations and weights are each read twice a step, gradients of activations too."""
    target = library_backend(precision="bf16")
    step = classifier_step(OPTIMIZERS[make], mlp(), backend=target)
    x, y = digits(samples=64)
    step(x[:32], y[:32])
    ready = step._runner.last
    assert ready is not None
    before = target.driver.launched["kernel"]
    step(x[:32], y[:32])
    kernels = target.driver.launched["kernel"] - before
    casts = 9  # x, h1, h2, three weights, three gradients; each product has two factors, 16
    alpha = int(make == "sgd")
    finishes = 2 + 3 * (make == "adam")  # relu's gradient twice, Adam's update
    others = sum(p.kernel != "matmul" for p in ready.loaded.program.parts)
    split = 0  # no reduction is long enough for a second kernel
    assert kernels == casts + alpha + finishes + others + split


def test_a_profile_leaves_everything_as_it_was() -> None:
    """Updates in place by the library are undone too."""
    model = mlp()
    step = classifier_step(OPTIMIZERS["sgd"], model, backend=library_backend(precision="bf16"))
    x, y = digits(samples=64)
    step.run(x, y, batch_size=32)
    before = {k: v.copy() for k, v in model.state_dict().items()}
    assert "us a step, each part alone" in step.report(profile=True)
    for name, value in model.state_dict().items():
        assert_same(value, before[name], name)
