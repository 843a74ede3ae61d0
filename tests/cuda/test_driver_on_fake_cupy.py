"""The driver for real GPUs on a CuPy that is none; and what it says when a piece is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from fake_cupy import CUDARuntimeError, Stream, fake_cupy
from shim_driver import ShimDriver
from tolerances import assert_same

import gpubp as gp
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.drivers.base import DeviceMemoryError
from gpubp.backends.cuda.drivers.cupy import SMALL, CupyDriver
from gpubp.errors import BackendError

shim = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    fake = fake_cupy(ShimDriver(memory=1 << 28))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    return fake


def trained(backend: CupyBackend) -> list[Any]:
    model = mlp()
    step = classifier_step(OPTIMIZERS["adam"], model, backend=backend)
    x, y = digits(samples=100)
    return [step.run(x, y, batch_size=5, seed=1), step(x, y), *model.state_dict().values()]


@shim
@pytest.mark.parametrize("resident_bytes", [None, 5_000])
def test_training_is_that_of_the_shim(cupy: Any, resident_bytes: int | None) -> None:
    expected = trained(CupyBackend(driver=ShimDriver()))
    found = trained(CupyBackend(resident_bytes=resident_bytes))
    for a, b in zip(found, expected, strict=True):
        assert_same(np.asarray(a), np.asarray(b))
    own, copies = sorted(s for s in cupy.streams if s >= 100)
    chunked = resident_bytes is not None
    assert (copies in cupy.streams[own].waited) == chunked
    assert (own in cupy.streams[copies].waited) == chunked


@shim
def test_results_are_cupy_arrays_in_the_order_of_its_stream(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = CupyBackend()
    driver = backend.driver
    x, _ = digits()
    there = driver.to_user_array(x)
    double = gp.compile(lambda a: a * 2.0, backend=backend)
    assert_same(double(there).get(), 2 * x)
    (own,) = [s for s in cupy.streams if s >= 100 and cupy.streams[s].waited]
    assert cupy.streams[own].waited == [0] and cupy.streams[0].waited == [own]
    with Stream(non_blocking=True) as mine:
        cupy.streams[mine.ptr] = mine
        assert driver.current_stream() == mine.ptr
        double(there)
        assert mine.ptr in cupy.streams[own].waited and mine.waited == [own]
    assert driver.current_stream() == 1
    assert driver.device_of(there.address) == 0 and driver.to_user_array(there) is there


@shim
def test_uploads_small_and_large(cupy: Any) -> None:
    driver = CupyDriver()
    for size in (1, SMALL, SMALL + 1):
        sent, back = np.arange(size, dtype=np.uint8), np.zeros(size, np.uint8)
        memory = driver.allocate(size)
        driver.upload(memory.address, sent)
        sent[:] = 7
        driver.download(memory.address, back)
        assert_same(back, np.arange(size, dtype=np.uint8))
    assert not driver._in_flight


@shim
def test_memory_that_runs_out(cupy: Any) -> None:
    driver = CupyDriver()
    with pytest.raises(DeviceMemoryError, match=r"a fake has not enough memory: 1,073,741,824"):
        driver.allocate(1 << 30)
    with pytest.raises(DeviceMemoryError, match="were asked for"):
        driver.empty((1 << 28,), np.dtype(np.float32))


@shim
def test_kernels_are_compiled_once_and_kept(cupy: Any) -> None:
    binding = cupy.cuda.nvrtc
    assert nvrtc.compiled(binding, "source", "sm_80") == b"source"
    assert binding.compiled == [("-std=c++17", "-default-device", "-arch=sm_80")]
    nvrtc.compiled(binding, "source", "sm_80")
    assert len(binding.compiled) == 1
    nvrtc.compiled(binding, "source", "sm_90")
    nvrtc.compiled(binding, "another", "sm_80")
    assert len(binding.compiled) == 3
    binding.getVersion = lambda: (13, 1)
    nvrtc.compiled(binding, "source", "sm_80")
    assert len(binding.compiled) == 4


def test_a_gpu_that_is_newer_than_nvrtc(cupy: Any) -> None:
    binding = cupy.cuda.nvrtc
    binding.unknown = ("-arch=sm_120", "-arch=compute_90")
    assert nvrtc.compiled(binding, "source", "sm_120") == b"// PTX\nsource"
    binding.unknown = (*binding.unknown, "-arch=compute_80")
    with pytest.raises(BackendError, match=r"NVRTC 13.0 does not know sm_120: pip install"):
        nvrtc.compiled(binding, "another", "sm_120")


def test_a_source_that_does_not_compile(cupy: Any) -> None:
    with pytest.raises(BackendError, match=r"did not compile.*\n.*what is this"):
        nvrtc.compiled(cupy.cuda.nvrtc, "syntax error", "sm_80")


def test_a_cache_that_cannot_be_written(
    cupy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path / "file"))
    assert nvrtc.compiled(cupy.cuda.nvrtc, "source", "sm_80") == b"source"


def _raises(error: Exception) -> Any:
    def raising(*_: Any) -> Any:
        raise error

    return raising


def _no_cupy(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)


def _no_driver(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = CUDARuntimeError("cudaErrorInsufficientDriver")
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", _raises(error))


def _no_nvrtc(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("CuPy failed to load libnvrtc.so.13")
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", _raises(error))


def _no_gpu(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)


@pytest.mark.parametrize(
    ("missing", "probed", "raised"),
    [
        (_no_cupy, r"CuPy is not installed: pip install", r"CuPy is not installed: pip install"),
        (_no_driver, r"no driver.*Insufficient.*pip install", r"no driver.*pip install"),
        (_no_nvrtc, r"does not find NVRTC: pip install", r"does not find NVRTC: pip install"),
        (_no_gpu, r"there is no GPU", r"cuda:0 was asked for, but there are 0"),
    ],
)
def test_a_missing_piece_is_named_with_the_pip_line(
    missing: Any, probed: str, raised: str, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(cupy, monkeypatch)
    probe = CupyBackend.probe()
    assert not probe.available
    with pytest.raises(BackendError, match=probed):
        raise BackendError(probe.reason)
    with pytest.raises(BackendError, match=raised):
        CupyBackend()


def test_a_gpu_that_is_there_is_told_of(cupy: Any) -> None:
    probe = CupyBackend.probe()
    assert probe.available
    assert probe.details == {
        "cupy": "0 (fake)", "gpu": "a fake", "gpus": "1", "driver": "13000", "runtime": "13000",
        "nvrtc": "13.0",
    }  # fmt: skip
