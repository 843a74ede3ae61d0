"""Recurrent layers on the CUDA backend: in programs, and at once on arrays of the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from shim_backend import as_cuda
from shim_driver import ShimDriver
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.cuda import CupyBackend

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

X = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
LENGTHS = np.array([2, 4, 1])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_values_and_gradients_on_the_device(kind: str) -> None:
    model = getattr(nn, kind)(2, 3, bidirectional=True)

    def loss(x: Any, lengths: Any) -> Any:
        outputs, state = model(x, None, lengths)
        return ops.sum(outputs * outputs) + ops.sum(state[0])

    fn = gp.value_and_grad(loss)
    found = gp.compile(fn, backend=CupyBackend(driver=ShimDriver()))(X, LENGTHS)
    for a, b in zip(found, fn(X, LENGTHS), strict=True):
        assert_close(a, b)


def test_layers_and_cells_at_once_on_arrays_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    x, lengths = gpu.to_user_array(X), gpu.to_user_array(LENGTHS)
    model, cell = nn.GRU(2, 3), nn.LSTMCell(2, 3)
    pairs = [
        *zip(model(x, lengths=lengths), model(X, lengths=LENGTHS), strict=True),
        *zip(model(x), model(X), strict=True),
        *zip(cell(x[0]), cell(X[0]), strict=True),
    ]
    for found, wanted in pairs:
        assert_close(found.get(), wanted)
