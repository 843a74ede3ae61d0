"""Loops on the CUDA backend: programs have them written out, at once their rounds are ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from shim_backend import as_cuda
from shim_driver import ShimDriver
from tolerances import assert_close

import gpubp as gp
from gpubp import ops
from gpubp.backends.cuda import CupyBackend
from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


def loss(x: Any, w: Any, h: Any) -> Any:
    def body(h: Any, x: Any) -> Any:
        h = ops.tanh(h @ w + x)
        return h, h * x

    last, ys = gp.scan(body, h, x, reverse=True)
    return ops.sum(last) + ops.sum(ys * ys)


def arrays() -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = (40, 5, 4), (4, 4), (5, 4)
    return [(rng.standard_normal(s) / 2).astype(np.float32) for s in shapes]


def both(*args: Any) -> Any:
    return gp.value_and_grad(loss, argnums=(0, 1, 2))(*args)


def test_a_loop_and_its_gradient_on_the_device() -> None:
    fn = gp.compile(both, backend=CupyBackend(driver=ShimDriver()))
    value, found = fn(*arrays())
    wanted, slopes = both(*arrays())
    assert_close(value, wanted)
    for a, b in zip(found, slopes, strict=True):
        assert_close(a, b)


def test_a_loop_at_once_on_arrays_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    x, *rest = (gpu.to_user_array(a) for a in arrays())
    value, found = both(x[:6], *rest)
    wanted, slopes = both(arrays()[0][:6], *arrays()[1:])
    assert_close(value.get(), wanted)
    for a, b in zip(found, slopes, strict=True):
        assert_close(a.get(), b)


def test_one_of_two_functions_on_the_device() -> None:
    def choose(x: Any) -> Any:
        return gp.cond(ops.sum(x) > 0, lambda v: v * 2.0, lambda v: v - 1.0, x)

    fn = gp.compile(choose, backend=CupyBackend(driver=ShimDriver()))
    assert fn(np.ones(2, np.float32)).tolist() == [2.0, 2.0]
    assert fn(-np.ones(2, np.float32)).tolist() == [-2.0, -2.0]


def test_loops_of_unknown_length_are_refused_on_the_device() -> None:
    def halve(x: Any) -> Any:
        return gp.while_loop(lambda c: ops.sum(c) > 1.0, lambda c: c * 0.5, x)

    fn = gp.compile(halve, backend=CupyBackend(driver=ShimDriver()))
    with pytest.raises(BackendError, match=r"gp\.scan"):
        fn(np.ones(2, np.float32))
