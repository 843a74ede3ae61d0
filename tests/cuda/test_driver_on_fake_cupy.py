"""The driver for real GPUs on a CuPy that is none; and what it says when a piece is missing."""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from counting_driver import CountingDriver, Sources
from fake_cupy import Contexts, CUDARuntimeError, Event, Graph, Stream, fake_cupy
from shim_driver import ShimDriver
from tolerances import assert_same

import gpubp as gp
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.drivers.base import SHARED_BYTES, DeviceMemoryError
from gpubp.backends.cuda.drivers.cupy import SMALL, CupyDriver
from gpubp.backends.cuda.sources import Kernels
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


SIMPLE = (
    "struct P { int* out; };\n"
    'extern "C" __global__ void k(const P p) { *p.out += 1; }\nGP_KERNEL(k, P)\n'
)


def _kernel(driver: CupyDriver) -> tuple[Any, Any]:
    memory = driver.allocate(4)
    kernel = driver.compile(SIMPLE).get("k")
    return memory, lambda: driver.launch(kernel, (1, 1, 1), (1, 1, 1), 0, _packed(memory))


def _packed(memory: Any) -> bytes:
    return int(memory.address).to_bytes(8, "little")


@shim
def test_errors_of_cuda_are_gpubps(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call meets them: after a kernel has failed, that may be any."""
    driver = CupyDriver()
    memory, launch = _kernel(driver)
    replay, event, runtime = driver.record(launch), driver.mark(), cupy.cuda.runtime
    raising = _raises(CUDARuntimeError("cudaErrorIllegalAddress"))
    stream = type(driver._stream)
    for owner, name, call in (
        (runtime, "memcpyAsync", lambda: driver.upload(memory.address, np.zeros(1, np.int32))),
        (runtime, "memcpyAsync", lambda: driver.download(memory.address, np.zeros(1, np.int32))),
        (runtime, "streamWaitEvent", lambda: driver.wait_for(1)),
        (runtime, "eventRecord", lambda: driver.make_wait(1)),
        (cupy.cuda.driver, "launchKernel", launch),
        (Graph, "launch", replay),
        (stream, "synchronize", driver.synchronize),
        (Event, "synchronize", event.wait),
        (Event, "record", driver.mark),
        (cupy.cuda, "alloc", lambda: driver.allocate(8)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, raising)
            with pytest.raises(BackendError, match=r"CUDA failed on a fake, .*IllegalAddress"):
                call()


@shim
def test_the_first_error_of_a_recording_is_the_one_that_is_raised(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = CupyDriver()
    ended = []
    monkeypatch.setattr(
        type(driver._stream),
        "end_capture",
        lambda self: ended.append(1) or _raises(CUDARuntimeError("capture invalidated"))(),
    )
    with pytest.raises(BackendError, match="the first"):
        driver.record(_raises(BackendError("the first")))
    assert ended == [1]
    with pytest.raises(BackendError, match="capture invalidated"):
        driver.record(lambda: None)


@shim
@pytest.mark.parametrize("before", [True, False])
def test_nothing_is_collected_while_launches_are_recorded(cupy: Any, before: bool) -> None:
    driver = CupyDriver()
    _, launch = _kernel(driver)
    seen = []
    try:
        gc.enable() if before else gc.disable()
        driver.record(lambda: seen.append(gc.isenabled()) or launch())
        assert seen == [False] and gc.isenabled() == before
    finally:
        gc.enable()


@shim
def test_threads_keep_the_context_that_they_came_with(cupy: Any) -> None:
    """A second GPU's driver makes no context on the first, and sets one where another is current
    alone.
    """
    cupy.cuda.runtime.getDeviceCount = lambda: 2
    driver = CupyDriver(1)
    assert Contexts.made == {1} and Contexts.mine.current == 0
    _, launch = _kernel(driver)
    seen: list[int] = []
    plain = cupy.cuda.driver.ctxSetCurrent
    cupy.cuda.driver.ctxSetCurrent = lambda context: seen.append(context) or plain(context)
    launch()
    assert seen == [Contexts.of(1), 0]
    Contexts.mine.current = Contexts.of(1)
    launch()
    driver.synchronize()
    assert len(seen) == 2, "nothing is set where it is current"
    other = threading.Thread(target=launch)
    other.start()
    other.join()
    assert seen[2:] == [Contexts.of(1), 0] and Contexts.mine.current == Contexts.of(1)
    assert Contexts.made == {1}


@shim
def test_shared_memory_beyond_48_kib_is_asked_for(cupy: Any) -> None:
    driver = CupyDriver()
    memory = driver.allocate(4)
    kernel = driver.compile(SIMPLE).get("k")
    ones = (1, 1, 1)
    with pytest.raises(BackendError, match="shared memory"):
        driver.launch(kernel, ones, ones, SHARED_BYTES + 1, _packed(memory))
    driver.allow_shared(kernel, 100 << 10)
    driver.launch(kernel, ones, ones, 100 << 10, _packed(memory))
    found = np.zeros(1, np.int32)
    driver.download(memory.address, found)
    assert found[0] == 1
    with pytest.raises(BackendError, match=r"sm_80 has 166912"):
        driver.allow_shared(kernel, 200 << 10)


def test_sources_are_compiled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """By threads: two that wait for each other come to an end; each source once."""
    device = CountingDriver()
    both = threading.Barrier(2, timeout=30)
    compiled: list[str] = []

    def compile_one(source: str) -> Any:
        compiled.append(source)
        both.wait()
        return Sources()

    monkeypatch.setattr(device, "compile", compile_one)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    kernels = Kernels(device)
    kernels.compile(["one", "two", "one"])
    kernels.compile(["two"])
    assert sorted(compiled) == ["one", "two"]
    assert kernels.get("one", "k") == "k" and len(compiled) == 2
