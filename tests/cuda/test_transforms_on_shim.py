"""Transforms on the CUDA backend: programs, and at once on arrays of the device."""

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
RNG = np.random.default_rng(0)
X, W = (RNG.normal(size=s).astype(np.float32) for s in ((5, 4), (4, 3)))
MODEL = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.Flatten())


def _one(x: Any, w: Any) -> Any:
    return ops.softmax(ops.tanh(x @ w) * 3.0)


def _sample(state: Any, x: Any) -> Any:
    return ops.square(nn.functional_call(MODEL, state, (x[None],))).sum()


CASES: dict[str, tuple[Any, list[Any]]] = {
    "jvp": (lambda x, w: gp.jvp(_one, (x, w), (x, w))[1], [X, W]),
    "jacrev": (lambda x, w: gp.jacrev(_one, 1)(x, w), [X, W]),
    "hessian": (lambda x, w: gp.hessian(lambda x: _one(x, w).max())(x[0]), [X, W]),
    "vmap": (lambda x, w: gp.vmap(_one, (0, None))(x, w), [X, W]),
    "checkpoint": (
        lambda x, w: gp.grad(lambda *a: ops.square(gp.checkpoint(_one)(*a)).sum())(x, w),
        [X, W],
    ),
    "samples": (
        lambda x, state: gp.vmap(gp.grad(_sample), (None, 0))(state, x)["1.weight"],
        [X, MODEL.state_dict()],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_as_a_program(name: str) -> None:
    fn, args = CASES[name]
    found = gp.compile(fn, backend=CupyBackend(driver=ShimDriver()))(*args)
    assert_close(found, fn(*args))


@pytest.mark.parametrize("name", ["jvp", "vmap", "checkpoint"])
def test_at_once_on_arrays_of_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fn, args = CASES[name]
    gpu = as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    found = fn(*[gpu.to_user_array(a) for a in args])
    assert_close(found.get(), fn(*args))
