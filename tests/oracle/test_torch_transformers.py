"""Fifty steps of a causal transformer beside PyTorch, and states that go from one to the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from registered import BACKENDS
from shim_backend import shim_backend
from tolerances import ORACLE

from gpubp import nn, ops, optim
from gpubp.runtime.function import compile_function
from gpubp.runtime.step import compile_step

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
import transformers  # noqa: E402 - beside this file

torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

STEPS, BATCH, SAMPLES, LENGTH, SYMBOLS = 50, 2, 12, transformers.LENGTH, transformers.SYMBOLS
# eps as for networks of images: gradients that are 0 but for rounding (the keys' bias has no other)
# would be scaled up to numbers that no two libraries share.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 1e-3, "eps": 1e-4},
    "SGD": {"lr": 0.05, "momentum": 0.9},
}
# The same layers otherwise arranged: PyTorch's defaults.
MODELS: dict[str, dict[str, Any]] = {
    "norm first": {},
    "norm last": {"norm_first": False, "activation": "relu"},
}
# In float32 a ReLU whose input is 0 but for rounding takes another side of it than PyTorch's: there
# it bends smoothly.
SMOOTH = {("norm last", "float32"): {"activation": "gelu"}}
# The reference takes ten times as long.
SLOW = {"numpy": pytest.mark.full}


def _models(dtype: str, **options: Any) -> tuple[nn.Module, Any]:
    """Ours and torch's with the same weights."""
    ops.manual_seed(5)
    mine = transformers.char(nn, dtype=dtype, **options)
    theirs = transformers.char(torch.nn, dtype=getattr(torch, dtype), **options)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in mine.state_dict().items()})
    return mine, theirs


def _texts() -> tuple[Any, Any]:
    """Sequences that walk round the symbols, and their continuations by one."""
    rng = np.random.default_rng(6)
    walks = np.cumsum(rng.integers(1, 4, (SAMPLES, LENGTH + 1)), 1) % SYMBOLS
    return walks[:, :-1].copy(), walks[:, 1:].copy()


WITHOUT_COMPILER = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


@pytest.mark.full
@WITHOUT_COMPILER
@pytest.mark.parametrize("dtype", list(ORACLE))
def test_steps_on_the_cuda_test_device_equal_torchs(dtype: str) -> None:
    """A few steps of both: the device is a C++ compiler's code, one thread after the other."""
    mine, theirs = _models(dtype)
    x, y = _texts()
    x, y = x[:, :8].copy(), y[:, :8].copy()
    losses = _losses(mine, "Adam", x, y, np.arange(6), shim_backend())
    expected = _losses_of_torch(theirs, "Adam", x, y, np.arange(6))
    np.testing.assert_allclose(losses, expected, rtol=ORACLE[dtype])


def _losses(mine: nn.Module, optimizer: str, x: Any, y: Any, order: Any, backend: Any) -> Any:
    loss_fn = nn.CrossEntropyLoss()
    step = compile_step(
        lambda x, y: loss_fn(mine(x).reshape(-1, SYMBOLS), y.reshape(-1)),
        getattr(optim, optimizer)(mine.parameters(), **OPTIMIZERS[optimizer]),
        backend=backend,
    )
    return step.run(x, y, batch_size=BATCH, order=order)


def _losses_of_torch(theirs: Any, optimizer: str, x: Any, y: Any, order: Any) -> list[float]:
    other = getattr(torch.optim, optimizer)(theirs.parameters(), **OPTIMIZERS[optimizer])
    found = []
    for rows in order.reshape(-1, BATCH):
        other.zero_grad()
        outputs = theirs(torch.from_numpy(x[rows])).reshape(-1, SYMBOLS)
        loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(y[rows]).reshape(-1))
        loss.backward()
        other.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("backend", [pytest.param(b, marks=SLOW.get(b, ())) for b in BACKENDS])
@pytest.mark.parametrize("dtype", list(ORACLE))
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_fifty_steps_equal_torchs(name: str, optimizer: str, dtype: str, backend: str) -> None:
    """Losses of all steps, then weights, and predictions in eval mode."""
    mine, theirs = _models(dtype, **{**MODELS[name], **SMOOTH.get((name, dtype), {})})
    x, y = _texts()
    order = np.random.default_rng(7).integers(0, SAMPLES, STEPS * BATCH)
    losses = _losses(mine, optimizer, x, y, order, backend)
    expected = _losses_of_torch(theirs, optimizer, x, y, order)
    np.testing.assert_allclose(losses, expected, rtol=ORACLE[dtype])
    assert expected[-1] < 0.9 * expected[0], "nothing was learnt"
    state, reference = mine.state_dict(), theirs.state_dict()
    assert list(state) == list(reference)
    for key, value in state.items():
        wanted = reference[key].numpy()
        assert np.abs(value - wanted).max() <= ORACLE[dtype] * np.abs(wanted).max(), key

    found = compile_function(mine.eval(), backend=backend)(x)
    wanted = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    assert np.abs(found - wanted).max() <= ORACLE[dtype] * np.abs(wanted).max()
