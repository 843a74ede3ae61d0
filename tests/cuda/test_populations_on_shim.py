"""Members of populations with a device: one after the other, each as the model alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from shim_driver import ShimDriver

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 6)).astype(np.float32), RNG.integers(0, 3, 60)
RATES = [0.01, 1e30, 0.03]


def _make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def _loss(model: nn.Module) -> Any:
    loss = nn.CrossEntropyLoss()
    return lambda x, y: loss(model(x), y)


def test_members_are_the_models_alone_on_the_device() -> None:
    backend = CupyBackend(driver=ShimDriver())
    model = _make()
    before = model.state_dict()
    made = gp.compile_population(
        _loss(model),
        optim.Adam(model.parameters()),
        n=3,
        model=model,
        initial=_make,
        lr=RATES,
        backend=backend,
    )
    losses = [made.run(X, Y, batch_size=20) for _ in range(2)]
    for i, rate in enumerate(RATES):
        gp.manual_seed(i)
        alone = _make()
        optimizer = optim.Adam(alone.parameters(), lr=rate)
        step = gp.compile_step(_loss(alone), optimizer, seed=i, backend=backend)
        for found in losses:
            assert np.array_equal(found[i], step.run(X, Y, batch_size=20), equal_nan=True)
        mine, state = made.state_dict(i), alone.state_dict()
        assert all(np.array_equal(mine[name], state[name], equal_nan=True) for name in state)
    outputs = made.predict(X)
    assert np.isfinite(outputs[[0, 2]]).all()
    assert all(np.array_equal(value, model.state_dict()[name]) for name, value in before.items())
