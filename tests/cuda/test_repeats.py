"""Whole runs in one launch: a graph that repeats steps while a word on the device says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from counting_driver import CountingDriver
from emulated_backend import emulated_backend
from shim_driver import ShimDriver
from test_branches import emulated, small_data, small_step
from test_counts import BATCH, EPOCHS, SAMPLES, STEP, data, run_once, step_on
from test_drivers_on_fakes import installed

from gpubp.backends.cuda import CupyBackend, stepping
from gpubp.backends.cuda.drivers.bare_nvrtc import built
from gpubp.backends.cuda.drivers.cupy import CupyDriver
from gpubp.backends.cuda.emulator.driver import EmulatedDriver
from gpubp.backends.cuda.emulator.faults import KernelError
from gpubp.backends.cuda.repeats import repeatable
from gpubp.backends.cuda.sources import expand, read
from gpubp.errors import BackendError, UnknownNameError


@pytest.fixture(autouse=True)
def _asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "LOOK_SECONDS", 1e9)
    monkeypatch.setenv("GPUBP_VERIFY", "0")
    monkeypatch.setenv("GPUBP_LOOP", "1")


def test_a_run_is_one_launch() -> None:
    """Of ten epochs, each with its shorter last batch: one upload, one launch, one wait. A round
    has one kernel more, which counts it.
    """
    device = CountingDriver()
    step, arrays = step_on(device), data()
    steps = -(-SAMPLES // BATCH)
    run_once(device, step, arrays, epochs=EPOCHS)
    run_once(device, step, arrays, epochs=EPOCHS, checked=True)
    found = run_once(device, step, arrays, epochs=EPOCHS, checked=True)
    assert (found.graphs, found.loops, found.kernels, found.recorded) == (1, 1, 0, [])
    assert (found.uploads, found.downloads, found.waits) == (1, 1, 1)
    assert found.nodes == EPOCHS * (steps * STEP + 1)


@pytest.mark.parametrize(("samples", "round_"), [(48, 16), (40, 8), (47, 1)])
def test_equal_steps_are_one_launch(samples: int, round_: int) -> None:
    """In rounds of as many as divide them."""
    device = CountingDriver()
    step, (x, y) = step_on(device), data(samples * 8)
    for _ in range(3):  # until it is known how long a step takes
        device.counts.take()
        step.run(x, y, batch_size=8)
    found = device.counts.take()
    assert (found.graphs, found.loops, found.kernels) == (1, 1, 0)
    assert found.nodes == samples * STEP + samples // round_


def test_it_is_asked_for_and_needs_a_driver_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not CupyDriver.loops
    device = CountingDriver()
    device.loops = False
    with pytest.raises(BackendError, match=r"GPUBP_LOOP=1, but counter has no loops .*12\.4"):
        CupyBackend(driver=device)
    monkeypatch.setenv("GPUBP_LOOP", "yes")
    with pytest.raises(UnknownNameError, match="GPUBP_LOOP"):
        CupyBackend(driver=CountingDriver())
    monkeypatch.delenv("GPUBP_LOOP")
    other = CountingDriver()
    step, arrays = step_on(other), data()
    for _ in range(2):
        found = run_once(other, step, arrays, epochs=EPOCHS)
    assert found.loops == 0 and found.graphs > 0


def test_what_is_bound_to_a_stream_is_not_repeated() -> None:
    device = CountingDriver()
    step, (x, y) = step_on(device), data(BATCH)
    step(x, y)
    (loaded,) = [ready.loaded for ready in step._runner.readies()]
    assert repeatable(loaded.tasks)
    pinned = [*loaded.tasks[:1], loaded.tasks[1].__class__(lambda: None, 1, (), pinned=True)]
    assert not repeatable(pinned)


@emulated
def test_the_kernel_that_counts_is_compiled_for_every_architecture() -> None:
    for architecture in ("sm_75", "sm_80", "sm_90", "sm_100"):
        options = ("-std=c++17", "-default-device", f"--gpu-architecture={architecture}")
        code = built(expand(read("repeat.cu")), options).code
        assert b"cudaGraphSetConditional" in code, "the driver has it: no library is linked"


def few(backend: Any, times: int = 2) -> Any:
    """Runs of three epochs of two whole batches and a short one."""
    step, model = small_step(backend)
    losses = [step.run(*small_data(13), batch_size=5, epochs=3, seed=i) for i in range(times)]
    return [*losses, *model.state_dict().values()]


def assert_alike(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@emulated
def test_loops_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    device = EmulatedDriver(races="first", shuffle=3)
    found = few(emulated_backend(device, races="first"))
    assert device.looped == 2, "in the first run after an epoch, in the second as a whole"
    monkeypatch.setenv("GPUBP_LOOP", "0")
    assert_alike(found, few(emulated_backend(EmulatedDriver(races="off"))))


@emulated
def test_a_handle_that_is_none_is_reported() -> None:
    device = EmulatedDriver()
    word = device.allocate(8)
    kernel = device.compile(expand(read("repeat.cu"))).get("repeat_steps")
    params = np.array([word.address, 1, 99], np.int64).tobytes()
    with pytest.raises(KernelError, match="0x63 is no handle"):
        device.launch(kernel, (1, 1, 1), (1, 1, 1), 0, params)


@pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
def test_cuda_core_is_asked_for_a_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And so is the tests' device; both give what runs without loops give."""
    fake = installed("numba_cuda", monkeypatch, tmp_path)
    found = few(fake.backend())
    assert fake.calls["round"] == 2 + 3, "two epochs of the first run, all three of the second"
    assert_alike(found, few(CupyBackend(driver=ShimDriver())))
    monkeypatch.setenv("GPUBP_LOOP", "0")
    assert_alike(found, few(CupyBackend(driver=ShimDriver())))
