"""Whole programs through the CUDA backend's launch code, with the shim as the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from shim_driver import ORDERS, ShimDriver
from tolerances import ORACLE

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend, stepping
from gpubp.backends.cuda.stepping import STEPS_A_GRAPH, WARM
from gpubp.errors import DataError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

STEPS = 10


def backend(order: str = "random", **options: Any) -> CupyBackend:
    return CupyBackend(driver=ShimDriver(order, **options))


def trained(make: Any, target: Any, dtype: str = "float32", **options: Any) -> dict[str, Any]:
    """Losses of ten steps, the parameters after them, and the losses of two single steps."""
    model = mlp(options.pop("activation", nn.ReLU), dtype)
    step = classifier_step(make, model, backend=target, **options)
    x, y = digits(dtype, 32 * STEPS)
    losses = step.run(x, y, batch_size=32, shuffle=True, seed=4)
    singles = np.array([step(x[:20], y[:20]) for _ in range(2)])
    return {"losses": losses, "singles": singles, **model.state_dict()}


def agree(actual: dict[str, Any], expected: dict[str, Any], dtype: str) -> None:
    for name, value in expected.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(
            actual[name], value, 0, ORACLE[dtype] * scale, err_msg=name, strict=True
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_of_every_optimizer(name: str, dtype: str) -> None:
    assert STEPS > WARM, "so that recorded launches are part of it"
    expected = trained(OPTIMIZERS[name], "numpy", dtype)
    found = [trained(OPTIMIZERS[name], backend(order), dtype) for order in ORDERS]
    agree(found[0], expected, dtype)
    for other in found[1:]:
        for key, value in found[0].items():
            np.testing.assert_array_equal(other[key], value, err_msg=key)


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Tanh, nn.GELU])
@pytest.mark.parametrize("processors", [1, 132])
def test_ten_steps_of_every_activation(activation: Any, processors: int) -> None:
    make = OPTIMIZERS["adam"]
    expected = trained(make, "numpy", activation=activation)
    target = backend("reverse", processors=processors)
    agree(trained(make, target, activation=activation), expected, "float32")


@pytest.mark.parametrize("options", [{"max_grad_norm": 0.5}, {"keep_grads": True}])
def test_gradients_that_are_kept(options: dict[str, Any]) -> None:
    make = OPTIMIZERS["momentum"]
    agree(trained(make, backend(), **options), trained(make, "numpy", **options), "float32")


def test_dropout_draws_the_same_numbers() -> None:
    def losses(target: Any) -> Any:
        gp.manual_seed(5)
        model = nn.Sequential(nn.Linear(64, 30), nn.Dropout(0.4), nn.ReLU(), nn.Linear(30, 10))
        x, y = digits(samples=32 * STEPS)
        step = classifier_step(OPTIMIZERS["adam"], model, backend=target, seed=9)
        return np.concatenate([step.run(x, y, batch_size=32, epochs=2), [step(x[:32], y[:32])]])

    np.testing.assert_allclose(losses(backend()), losses("numpy"), rtol=ORACLE["float32"])


def _scheduled(target: Any) -> Any:
    """A learning rate that changes between runs, each of which is long enough to be recorded."""
    made: list[Any] = []

    def make(parameters: Any) -> Any:
        made.append(optim.SGD(parameters, lr=0.5, momentum=0.9))
        return made[0]

    model = mlp(dtype="float64")
    step = classifier_step(make, model, backend=target)
    x, y = digits("float64", 32 * STEPS)
    losses = []
    for lr in (0.5, 0.05, 0.2, 0.0):
        made[0].param_groups[0]["lr"] = lr
        losses.append(step.run(x, y, batch_size=32, shuffle=False))
    return {"losses": np.concatenate(losses), **model.state_dict()}


def test_a_schedule_reaches_recorded_launches() -> None:
    agree(_scheduled(backend()), _scheduled("numpy"), "float64")


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (8 * (2 * STEPS_A_GRAPH + 5), {"epochs": 2}),
        (8 * 4 + 3, {"epochs": 9}),  # epochs as one, with their short batch, and several together
        (8 * 9 + 3, {"epochs": 3, "accumulate": 4}),
    ],
)
def test_replays_are_launches_bit_for_bit(
    samples: int, options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits(samples=samples)
    accumulate = options.pop("accumulate", 1)

    def losses() -> Any:
        step = classifier_step(OPTIMIZERS["adam"], mlp(), backend=backend(), accumulate=accumulate)
        runs = [step.run(x, y, batch_size=8, seed=i, **options) for i in range(2)]
        return np.concatenate([*runs, [step(x[:8], y[:8]) for _ in range(4)]])

    replayed = losses()
    monkeypatch.setattr(stepping, "WARM", 10**9)
    np.testing.assert_array_equal(losses(), replayed)


def test_parameters_are_shared_with_the_host_and_with_other_backends() -> None:
    """Weights that the host changes, and ones that another backend's program trained."""
    x, y = digits(samples=64)

    def losses(*targets: Any) -> Any:
        model = mlp()
        steps = [classifier_step(OPTIMIZERS["sgd"], model, backend=t) for t in targets]
        found = []
        for _ in range(2):
            for step in steps:
                found.append(float(step(x, y)))
            first = model[0].weight
            first.value = first.value * np.float32(0.9)
        return found

    device = backend()
    np.testing.assert_allclose(losses(device, "numpy", device), losses(*["numpy"] * 3), rtol=1e-5)


def test_bad_labels_and_indices_are_errors() -> None:
    x, y = digits()
    step = classifier_step(OPTIMIZERS["sgd"], backend=backend())
    step(x, y)

    inside = gp.compile(
        lambda table, i: gp.ops.gather(table, i + 1), backend=backend(), options=gp.Options()
    )
    table = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(inside(table, np.array([2, 0])), table[[3, 1]])
    with pytest.raises(DataError, match="index is out of range"):
        inside(table, np.array([3, 0]))


def test_every_launch_is_counted() -> None:
    """The launches of a run are those of one step, once for each step."""
    driver = ShimDriver()
    step = classifier_step(OPTIMIZERS["sgd"], backend=CupyBackend(driver=driver))
    x, y = digits(samples=32 * STEPS)
    step(x[:32], y[:32])
    one = dict(driver.launched)
    step.run(x, y, batch_size=32)
    batched = {k: (driver.launched[k] - n) for k, n in one.items()}
    assert batched["begin_step"] == STEPS
    assert batched["kernel"] % STEPS == 0
    assert batched["kernel"] > one["kernel"], "and batches are gathered"


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_search_around_programs_of_the_device(search: str | None) -> None:
    """L-BFGS fetches losses and gradients; the data are the host's, or the device's own."""

    def found(target: Any, there: Any) -> dict[str, Any]:
        def make(parameters: Any) -> Any:
            return optim.LBFGS(parameters, max_iter=3, line_search_fn=search)

        step = classifier_step(make, model := mlp(dtype="float64"), backend=target)
        data = [there(a) for a in digits("float64", 64)]
        losses = step.run(*data, batch_size=32, epochs=2, seed=1)
        losses = losses if isinstance(losses, np.ndarray) else losses.get()
        single = np.array(step(*digits("float64", 20)))
        return {"losses": losses, "single": single, **model.state_dict()}

    target = backend()
    expected = found("numpy", lambda a: a)
    for there in (lambda a: a, target.to_user_array):
        for name, value in found(target, there).items():
            np.testing.assert_allclose(value, expected[name], 1e-7, 1e-9, err_msg=name)
