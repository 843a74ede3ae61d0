"""Fifty steps of a LeNet and of a residual network with BatchNorm, beside PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import ORACLE

from gpubp import nn, ops, optim
from gpubp.nn import functional
from gpubp.runtime.function import compile_function
from gpubp.runtime.step import compile_step

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
convnets = pytest.importorskip("convnets")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

STEPS, BATCH, SAMPLES = 50, 8, 40
MODELS = {"lenet": (1, 16, 16), "resnet": (3, 8, 8)}
# In float32 every fifth run of the residual network comes upon a ReLU whose input is 0 but for
# rounding, and takes another side of it than PyTorch: there it bends smoothly.
SMOOTH = {("resnet", "float32"): {"bend": "silu"}}
# eps no smaller: elements whose gradient is 0 but for rounding would be scaled up to numbers that
# no two libraries share in float32.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 1e-3, "eps": 1e-4},
    "SGD": {"lr": 0.02, "momentum": 0.9},
}


def _models(name: str, dtype: str) -> tuple[nn.Module, Any]:
    """Ours and torch's with the same weights."""
    ops.manual_seed(5)
    make, bend = getattr(convnets, name), SMOOTH.get((name, dtype), {})
    mine = make(nn, functional, dtype=dtype, **bend)
    theirs = make(torch.nn, torch.nn.functional, dtype=getattr(torch, dtype), **bend)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in mine.state_dict().items()})
    return mine, theirs


def _assert_states_equal(mine: nn.Module, theirs: Any, dtype: str) -> None:
    expected = theirs.state_dict()
    state = mine.state_dict()
    assert list(state) == list(expected)
    for name, value in state.items():
        reference = expected[name].numpy()
        assert np.abs(value - reference).max() <= ORACLE[dtype] * np.abs(reference).max(), name


# The reference takes twenty times as long.
SLOW = {"numpy": pytest.mark.full}


@pytest.mark.parametrize("backend", [pytest.param(b, marks=SLOW.get(b, ())) for b in BACKENDS])
@pytest.mark.parametrize("dtype", list(ORACLE))
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_fifty_steps_equal_torchs(name: str, optimizer: str, dtype: str, backend: str) -> None:
    """Losses of all steps, then weights, running statistics, and predictions in eval mode."""
    mine, theirs = _models(name, dtype)
    rng = np.random.default_rng(6)
    images = rng.standard_normal((SAMPLES, *MODELS[name])).astype(dtype)
    labels = rng.integers(0, 10, SAMPLES)
    order = rng.integers(0, SAMPLES, STEPS * BATCH)
    loss_fn, options = nn.CrossEntropyLoss(), OPTIMIZERS[optimizer]
    step = compile_step(
        lambda x, y: loss_fn(mine(x), y),
        getattr(optim, optimizer)(mine.parameters(), **options),
        backend=backend,
    )
    losses = step.run(images, labels, batch_size=BATCH, order=order)

    other = getattr(torch.optim, optimizer)(theirs.parameters(), **options)
    expected = []
    for rows in order.reshape(STEPS, BATCH):
        other.zero_grad()
        outputs = theirs(torch.from_numpy(images[rows]))
        loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels[rows]))
        loss.backward()
        other.step()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected, rtol=ORACLE[dtype])
    _assert_states_equal(mine, theirs, dtype)
    assert min(expected[-5:]) < 0.9 * expected[0], "nothing was learnt"

    found = compile_function(mine.eval(), backend=backend)(images)
    reference = theirs.eval()(torch.from_numpy(images)).detach().numpy()
    assert np.abs(found - reference).max() <= ORACLE[dtype] * np.abs(reference).max()
