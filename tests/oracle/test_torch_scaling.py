"""The loss scale moves as torch.amp.GradScaler's does."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops, optim
from gpubp.nn import Parameter

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
pytestmark = pytest.mark.oracle


def test_scales_and_weights_follow_torch() -> None:
    """Some batches overflow float32 after scaling, in a row and alone."""
    sizes = [1.0, 1e30, 1e34, 1.0, 2.0, 1e36, 1.0, 1.0, 3.0, 1.0, 1e33, 1.0]
    options = {"growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 2}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, **options)
    weight = torch.ones(3, requires_grad=True)
    theirs = torch.optim.SGD([weight], lr=0.1)
    mine = gp.LossScale(2.0**14, **options)
    w = Parameter(np.ones(3, np.float32))
    step = gp.compile_step(
        lambda x: ops.sum(ops.square(w) * x), optim.SGD([w], lr=0.1), loss_scale=mine
    )
    for size in sizes:
        x = np.full((1, 3), size if size > 1e9 else size * 0.01, np.float32)
        theirs.zero_grad()
        scaler.scale((weight.square() * torch.from_numpy(x)).sum()).backward()
        scaler.step(theirs)
        scaler.update()
        step(x)
        assert float(mine.scale.value) == scaler.get_scale()
        # A finite but huge gradient is applied by both, so compare where that has not happened.
        np.testing.assert_allclose(w.numpy(), weight.detach().numpy(), rtol=1e-5)
    assert int(mine.skipped.value) > 2
