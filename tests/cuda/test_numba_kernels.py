"""Kernels of `numba.cuda` as custom ops: what they are given, when they are launched and recorded.

Over the made-up Numba, whose kernels are functions of NumPy arrays.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fake_drivers
import numpy as np
import pytest
import shim_build
from fake_cupy import Contexts
from fake_numba_cuda import Kernel
from numpy.typing import NDArray
from shim_driver import ShimDriver
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import ops, optim
from gpubp.errors import ArgumentError
from gpubp.nn import Parameter

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

Op = tuple[Kernel, Any, list[str]]


@pytest.fixture(params=fake_drivers.FAKES)
def fake(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> fake_drivers.Fake:
    """Each driver; kernels of Numba are launched on CuPy's stream, too."""
    Contexts.reset()
    device = ShimDriver()
    made = fake_drivers.made_up(request.param, device)
    content = dict(made.modules)
    if request.param == "cupy":
        streams = made.streams

        class OnStream:
            def __init__(self, handle: int) -> None:
                self.handle = handle

            def do(self, work: Any) -> None:
                streams[self.handle].captured.do(work)

        content |= fake_drivers.fake_cuda_core.fake_numba(device, 1, True, OnStream)
    for name, module in content.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    return made


def scaled() -> Op:
    """y = scale * x + z by a kernel, and where it ran: on the host, or on the device."""
    ran: list[str] = []

    def on_device(x: Any, z: Any, y: NDArray[Any], scale: Any) -> None:
        assert isinstance(scale, np.float64)
        ran.append("device")
        y[...] = scale * x + z

    def on_host(x: Any, z: Any, scale: float) -> Any:
        ran.append("host")
        return (scale * x + z).astype(x.dtype)

    kernel = Kernel(on_device)
    op = gp.custom_op("scaled", on_host, vjp=lambda g, y, x, z, scale: [g * scale, g], cuda=kernel)
    return kernel, op, ran


def test_a_kernel_runs_on_the_drivers_stream(fake: fake_drivers.Fake) -> None:
    kernel, op, ran = scaled()
    x = np.linspace(-1, 1, 600).astype(np.float32).reshape(30, 20)
    backend = fake.backend()
    double = gp.compile(lambda a, b: op(a * 2.0, b, scale=3.0) + 1.0, backend=backend)
    assert_close(double(x, x), 7 * x + 1)
    assert ran == ["device"] and kernel.launches == [(3, 256, fake.own()[0])]
    grad = gp.compile(gp.grad(lambda a: ops.sum(op(a, a, scale=3.0))), backend=backend)
    assert_close(grad(x), np.full_like(x, 4))


def test_arrays_of_the_caller_are_read_and_written(fake: fake_drivers.Fake) -> None:
    """Inputs that move from run to run, and a result that goes to the caller."""
    _, op, ran = scaled()
    direct = gp.compile(lambda a, b: op(a, b, scale=2.0), backend=fake.backend())
    for size in (1, 5, 257):
        x = np.arange(size, dtype=np.float64)
        assert_same(direct(x, x), 3 * x)
    assert set(ran) == {"device"}


def test_kernels_are_recorded(fake: fake_drivers.Fake) -> None:
    """A step with a user's kernel in it is a recording like any other."""
    _, op, ran = scaled()

    def trained(backend: Any) -> tuple[NDArray[Any], Any]:
        w = Parameter(np.ones(4, np.float32))
        step = gp.compile_step(
            lambda x: ops.mean(ops.square(op(w * x, x, scale=0.5))),
            optim.SGD([w], lr=0.1),
            backend=backend,
        )
        x = np.linspace(0, 1, 4 * 60).astype(np.float32).reshape(60, 4)
        losses = step.run(x, batch_size=3, epochs=2, seed=1)
        return w.numpy(), losses

    expected = trained("numpy")
    assert set(ran) == {"host"}
    ran.clear()
    found = trained(fake.backend())
    assert set(ran) == {"device"} and len(ran) >= 40
    assert fake.calls["graph"] >= 2
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])


def test_rounds_of_a_loop_launch_kernels(fake: fake_drivers.Fake) -> None:
    """Its arrays move from round to round: they are copied to where the kernel looks for them."""
    _, op, ran = scaled()

    def summed(x: Any) -> Any:
        return gp.scan(lambda c, row: (op(c, row, scale=0.5), c * 2.0), x[0], x)

    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    expected = gp.compile(summed, backend="numpy")(x)
    ran.clear()
    found = gp.compile(summed, backend=fake.backend(), options=gp.Options(verify=False))(x)
    assert ran == ["device"] * 5
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted)


def test_a_device_that_launches_no_kernels_calls_the_host() -> None:
    from gpubp.backends.cuda import CupyBackend

    _, op, ran = scaled()
    x = np.ones(5, np.float32)
    call = gp.compile(lambda a: op(a, a, scale=1.0), backend=CupyBackend(driver=ShimDriver()))
    assert_same(call(x), x + x)
    assert ran == ["host"]


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"cuda is .*expected CUDA C\+\+.*numba.cuda.jit"):
        gp.custom_op("three", lambda x: x, cuda=lambda x, y: None)
