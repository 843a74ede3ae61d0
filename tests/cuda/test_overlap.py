"""Kernels of recordings that begin before those before them have ended, and wait for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from counting_driver import CountingDriver
from emulated_backend import FaultyEmulator, emulated_backend
from shim_driver import ShimDriver
from test_branches import emulated, small_data, small_step, trained
from test_counts import data, step_on
from test_drivers_on_fakes import installed

from gpubp.backends.cuda import CupyBackend, stepping
from gpubp.backends.cuda.drivers.cupy import CupyDriver
from gpubp.backends.cuda.emulator.driver import EmulatedDriver
from gpubp.backends.cuda.emulator.faults import KernelError
from gpubp.backends.cuda.sources import begin_step, overlapped
from gpubp.errors import BackendError, UnknownNameError


@pytest.fixture(autouse=True)
def _asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "LOOK_SECONDS", 1e9)
    monkeypatch.setenv("GPUBP_VERIFY", "0")
    monkeypatch.setenv("GPUBP_OVERLAP", "1")


@pytest.mark.parametrize(("branches", "early"), [("", 4), ("0", 12)])
def test_kernels_behind_one_in_their_stream_begin_early(
    branches: str, early: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in no other case; every kernel waits, whether it was launched so or not."""
    monkeypatch.setenv("GPUBP_BRANCHES", branches)
    device = CountingDriver()
    step, (x, y) = step_on(device), data(200)
    for _ in range(3):
        step(x, y)
    assert (device.counts.early, device.counts.nodes) == (early, 26)
    kernels = sum(text.count('extern "C" __global__') for text in device.sources)
    assert sum(text.count("griddepcontrol.wait;") for text in device.sources) == kernels > 8


def test_it_is_asked_for_and_needs_a_device_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"GPUBP_OVERLAP=1, but CPU .*sm_80.* capability 9\.0"):
        CupyBackend(driver=ShimDriver())
    assert not CupyDriver.overlaps and not EmulatedDriver("sm_80").overlaps
    monkeypatch.setenv("GPUBP_OVERLAP", "2")
    with pytest.raises(UnknownNameError, match="GPUBP_OVERLAP"):
        CupyBackend(driver=CountingDriver())
    monkeypatch.delenv("GPUBP_OVERLAP")
    device = CountingDriver()
    step, (x, y) = step_on(device), data(200)
    for _ in range(3):
        step(x, y)
    assert device.counts.early == 0
    assert not any("griddepcontrol" in text for text in device.sources)


def test_the_wait_comes_first() -> None:
    text = overlapped(begin_step([0] * 5).source)
    head, _, body = text.partition('extern "C" __global__ void begin_step(const Params p) {')
    assert "griddepcontrol" not in head
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    assert lines[1].startswith('asm volatile("griddepcontrol.wait;"') and lines[3] == "#endif"


@pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
def test_the_bindings_are_asked_for_early_launches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As many as are counted, and the same results."""
    fake = installed("numba_cuda", monkeypatch, tmp_path)
    monkeypatch.setattr(sys.modules["cuda.core"].Device, "compute_capability", (9, 0))
    found = trained(fake.backend())
    assert fake.calls["early"] > 20
    monkeypatch.setenv("GPUBP_OVERLAP", "0")
    for a, b in zip(found, trained(CupyBackend(driver=ShimDriver())), strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)


def few(backend: Any) -> Any:
    step, model = small_step(backend)
    losses = step.run(*small_data(15), batch_size=5, epochs=2, seed=1)
    return [losses, *model.state_dict().values()]


@emulated
def test_kernels_wait_before_they_touch_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread, in each kernel: else that is a race, as it is where the wait is taken out."""
    device = EmulatedDriver(races="off")
    found = few(emulated_backend(device))
    assert device.early > 8
    wait = 'asm volatile("griddepcontrol.wait;" ::: "memory");'
    faulty = FaultyEmulator(wait, "")
    with pytest.raises(KernelError, match=r"before griddepcontrol\.wait") as caught:
        few(emulated_backend(faulty))
    assert caught.value.kind == "race" and faulty.changed > 5
    monkeypatch.setenv("GPUBP_OVERLAP", "0")
    for a, b in zip(found, few(emulated_backend(EmulatedDriver(races="off"))), strict=True):
        np.testing.assert_array_equal(a, b)
