"""Gradients of tables on the CUDA test device: sums at indices, and what follows them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from shim_backend import shim_backend
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

BACKEND = shim_backend()


@pytest.mark.parametrize("rule", [lambda p: optim.SGD(p, lr=0.5), optim.Adam])
def test_a_table_is_trained_as_the_reference_does(rule: Any) -> None:
    i = np.array([[3, 3, 9], [3, 0, 11]])
    found = []
    for backend in ("numpy", BACKEND):
        gp.manual_seed(0)
        table = nn.Embedding(12, 5)
        step = gp.compile_step(
            lambda i, t=table: ops.mean(t(i) ** 2.0), rule(table.parameters()), backend=backend
        )
        losses = [float(step(i)) for _ in range(3)]
        found.append((losses, table.weight.value.copy()))
    for a, b in zip(*found, strict=True):
        assert_close(np.asarray(b), np.asarray(a))


@pytest.mark.parametrize("axis", [0, 1])
def test_sums_that_are_kept_are_followed_too(axis: int) -> None:
    u = np.arange(24.0).reshape(4, 2, 3) if axis == 0 else np.arange(24.0).reshape(2, 4, 3)

    def fn(u: Any, i: Any) -> Any:
        total = ops.scatter_add(u, i, 6, axis)
        return total, total * 2.0 + 1.0

    i = np.array([1, 5, 1, 0])
    expected = gp.compile(fn, backend="numpy")(u, i)
    for a, b in zip(gp.compile(fn, backend=BACKEND)(u, i), expected, strict=True):
        assert_same(a, b)
