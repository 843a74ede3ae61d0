"""Loss scaling: exact where nothing overflows, whole updates skipped where something does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import DataError


def _step(backend: Any, loss_scale: Any, **options: Any) -> tuple[Any, Any, Any]:
    gp.manual_seed(3)
    model = nn.Linear(4, 2)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    step = gp.compile_step(
        lambda x, y: nn.MSELoss()(model(x), y),
        optimizer,
        backend=backend,
        loss_scale=loss_scale,
        **options,
    )
    return step, model, optimizer


def _data(samples: int = 24) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((samples, n)).astype(np.float32) for n in (4, 2))  # type: ignore[return-value]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.1}, {"max_grad_value": 0.01}])
def test_a_scale_that_overflows_nothing_changes_nothing(backend: str, options: Any) -> None:
    results = []
    for scale in (None, 1024.0, "dynamic"):
        step, model, _ = _step(backend, scale, **options)
        losses = step.run(*_data(), batch_size=4, epochs=3, shuffle=False)
        results.append({"losses": losses, **model.state_dict()})
    for found in results[1:]:
        for name, value in results[0].items():
            assert_close(found[name], value, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_updates_that_overflow_are_skipped_as_a_whole(backend: str) -> None:
    """2^127 overflows until it has shrunk enough; what follows is training from the start."""
    x, y = _data()
    scale = gp.LossScale(2.0**127, backoff_factor=2.0**-20)
    step, model, optimizer = _step(backend, scale)
    start = {k: v.copy() for k, v in model.state_dict().items()}
    step.run(x[:4], y[:4] * 1e3, batch_size=4)
    assert (int(scale.skipped.value), float(scale.scale.value)) == (1, 2.0**107)
    assert int(optimizer.step_count.value) == 0
    for name, value in model.state_dict().items():
        assert_same(value, start[name], name)
    step.run(x, y, batch_size=4, shuffle=False)
    assert int(scale.skipped.value) == 1
    plain, expected, _ = _step(backend, None)
    plain.run(x, y, batch_size=4, shuffle=False)
    for name, value in expected.state_dict().items():
        assert_close(model.state_dict()[name], value, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_scale_grows_after_good_updates(backend: str) -> None:
    scale = gp.LossScale(8.0, growth_interval=3)
    step, _, _ = _step(backend, scale)
    step.run(*_data(28), batch_size=4)
    assert scale.state_dict() == {"scale": 32.0, "good": 1, "skipped": 0}
    other = gp.LossScale()
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == scale.state_dict()


def test_a_gradient_that_is_nan_is_skipped() -> None:
    w = nn.Parameter(np.ones(3, np.float32))
    step = gp.compile_step(
        lambda x: ops.sum(ops.sqrt(w * x)), optim.SGD([w], lr=0.1), loss_scale=1.0, backend="numba"
    )
    step(np.array([1, 0, 1], np.float32))  # the square root's slope at 0 is infinite
    assert_same(w.numpy(), np.ones(3, np.float32))
    step(np.array([1, 1, 1], np.float32))
    assert_close(w.numpy(), np.full(3, 0.95, np.float32))


@pytest.mark.parametrize(
    "make",
    [
        lambda: gp.LossScale(0.0),
        lambda: gp.LossScale(growth_factor=0.5),
        lambda: gp.LossScale(backoff_factor=1.0),
        lambda: gp.LossScale(growth_interval=0),
        lambda: _step("numpy", "static"),
        lambda: _step("numpy", "dynamic", accumulate=2),
    ],
)
def test_wrong_scales_are_refused(make: Any) -> None:
    with pytest.raises(DataError):
        make()
