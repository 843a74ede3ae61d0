"""Training on a GPU: trajectories against NumPy and PyTorch, replays, determinism, memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from tolerances import ORACLE, assert_same

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend, stepping

STEPS = 100
MILLION = int(os.environ.get("GPUBP_TEST_STEPS", "20000"))  # 1000000 for the full proof


def _trained(make: Any, target: Any, dtype: str = "float32", steps: int = STEPS) -> dict[str, Any]:
    model = mlp(dtype=dtype)
    step = classifier_step(make, model, backend=target)
    x, y = digits(dtype, 32 * steps)
    return {"losses": step.run(x, y, batch_size=32, shuffle=False), **model.state_dict()}


def _agree(actual: dict[str, Any], expected: dict[str, Any], dtype: str) -> None:
    for name, value in expected.items():
        bound = ORACLE[dtype] * np.abs(value).max()
        np.testing.assert_allclose(actual[name], value, 0, bound, err_msg=name, strict=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_against_numpy(name: str, backend: CupyBackend) -> None:
    _agree(
        _trained(OPTIMIZERS[name], backend, "float64"),
        _trained(OPTIMIZERS[name], "numpy", "float64"),
        "float64",
    )


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_hundred_steps_against_torch(name: str, precision: str, backend: CupyBackend) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    model = mlp()
    layers = [torch.nn.Linear(*m.weight.shape[::-1]) if hasattr(m, "weight") else torch.nn.ReLU()
              for m in model]  # fmt: skip
    theirs = torch.nn.Sequential(*layers)
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in model.state_dict().items()})
    made = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    }[name](theirs.parameters())
    x, y = digits(samples=32 * STEPS)
    expected = []
    for i in range(0, len(x), 32):
        made.zero_grad()
        out = theirs(torch.from_numpy(x[i : i + 32]))
        loss = torch.nn.functional.cross_entropy(out, torch.from_numpy(y[i : i + 32]))
        loss.backward()
        made.step()
        expected.append(loss.item())
    target = CupyBackend(precision=precision)
    found = classifier_step(OPTIMIZERS[name], model, backend=target).run(
        x, y, batch_size=32, shuffle=False
    )
    bound = {"float32": 1e-4, "tf32": 2.0**-9, "bf16": 2.0**-6}[precision]
    np.testing.assert_allclose(found, expected, rtol=bound)


def test_replays_are_launches_bit_for_bit(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses() -> Any:
        model = mlp()
        optimizer = optim.Adam(model.parameters(), lr=1e-2)
        scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
        loss_fn = nn.CrossEntropyLoss()
        step = gp.compile_step(
            lambda x, y: loss_fn(model(x), y), optimizer, backend=backend, scheduler=scheduler
        )
        x, y = digits(samples=32 * STEPS)
        return step.run(x, y, batch_size=32, epochs=3, seed=1)

    replayed = losses()
    monkeypatch.setattr(stepping, "WARM", 10**9)
    assert_same(losses(), replayed)


def test_ten_runs_agree_bit_for_bit(backend: CupyBackend) -> None:
    runs = [_trained(OPTIMIZERS["adam"], backend) for _ in range(10)]
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert_same(other[name], value, name)


def test_memory_does_not_grow(backend: CupyBackend) -> None:
    step = classifier_step(OPTIMIZERS["adam"], backend=backend)
    x, y = digits(samples=32)
    orders = np.tile(np.arange(32), 100)
    step.run(x, y, batch_size=32, order=orders, shuffle=False)
    free = backend.driver.free_bytes()
    for _ in range(MILLION // 100):
        step.run(x, y, batch_size=32, order=orders, shuffle=False)
    assert backend.driver.free_bytes() >= free - (1 << 20)


def test_a_device_is_chosen_by_number(backend: CupyBackend) -> None:
    step = classifier_step(OPTIMIZERS["sgd"], backend=None, device="cuda:0")
    assert step.backend.name == "cupy"
    assert np.isfinite(step(*digits()))
