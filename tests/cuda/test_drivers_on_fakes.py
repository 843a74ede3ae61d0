"""The drivers for real GPUs, each on a library that is none; and what is said when a piece is
missing.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path
from typing import Any

import fake_cuda_core
import fake_cupy
import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from counting_driver import CountingDriver, Sources
from fake_cupy import Contexts
from fake_drivers import FAKES, Fake, failing, made_up, raises
from shim_driver import ShimDriver
from tolerances import assert_same

import gpubp as gp
from gpubp.backends.cuda import CudaBackend, CupyBackend, drivers, stepping
from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.drivers.base import SHARED_BYTES, SMALL, DeviceMemoryError
from gpubp.backends.cuda.sources import Kernels
from gpubp.errors import BackendError

shim = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    return installed(request.param, monkeypatch, tmp_path)


def installed(name: str, patch: pytest.MonkeyPatch, tmp_path: Path, gpus: int = 1) -> Fake:
    Contexts.reset()
    made = made_up(name, ShimDriver(memory=1 << 28, number=gpus - 1), gpus)
    for module, content in made.modules.items():
        patch.setitem(sys.modules, module, content)
    patch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    return made


def test_each_driver_has_a_fake_and_a_backend() -> None:
    assert drivers.DRIVERS.keys() == FAKES.keys()
    assert set(FAKES) <= set(sys.modules["gpubp.backends"].names("cuda"))


def trained(backend: CudaBackend) -> list[Any]:
    model = mlp()
    step = classifier_step(OPTIMIZERS["adam"], model, backend=backend)
    x, y = digits(samples=100)
    return [step.run(x, y, batch_size=5, seed=1), step(x, y), *model.state_dict().values()]


@shim
@pytest.mark.parametrize("resident_bytes", [None, 5_000])
def test_training_is_that_of_the_shim(fake: Fake, resident_bytes: int | None) -> None:
    expected = trained(CupyBackend(driver=ShimDriver()))
    found = trained(fake.backend(resident_bytes=resident_bytes))
    for a, b in zip(found, expected, strict=True):
        assert_same(np.asarray(a), np.asarray(b))
    own, copies = fake.own()
    chunked = resident_bytes is not None
    assert (copies in fake.streams[own].waited) == chunked
    assert (own in fake.streams[copies].waited) == chunked


@shim
def test_every_driver_is_asked_for_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As many launches, recordings, copies and waits."""
    monkeypatch.setattr(stepping, "LOOK_SECONDS", 1e9)
    found = []
    for name in FAKES:
        fake = installed(name, monkeypatch, tmp_path)
        trained(fake.backend())
        found.append((dict(fake.calls), fake.device.launched))
    assert found[0][0]["graph"] > 2 and found[0][0]["launch"] > 20
    assert all(one == found[0] for one in found[1:])


@shim
def test_results_are_the_librarys_arrays_in_the_order_of_its_stream(fake: Fake) -> None:
    backend = fake.backend()
    driver: Any = backend.driver
    x, _ = digits()
    there = driver.to_user_array(x)
    double = gp.compile(lambda a: a * 2.0, backend=backend)
    out = double(there)
    assert type(out) is type(there)
    assert_same(copied(out), 2 * x)
    own, _ = fake.own()
    assert fake.streams[own].waited == [fake.default]
    assert fake.streams[fake.default].waited == [own]
    assert driver.device_of(there.address) == 0 and driver.to_user_array(there) is there
    assert driver.current_stream() == 1 == out.__cuda_array_interface__["stream"]
    waits = fake.calls["sync"]
    double(out)
    assert fake.calls["sync"] == waits, "the host does not wait for what names its stream"


def copied(array: Any) -> Any:
    """On the host."""
    return array.copy_to_host() if hasattr(array, "copy_to_host") else array.get()


@shim
def test_cupys_current_stream_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = installed("cupy", monkeypatch, tmp_path)
    backend = fake.backend()
    driver = backend.driver
    there = driver.to_user_array(digits()[0])
    own, _ = fake.own()
    with fake_cupy.Stream(non_blocking=True) as mine:
        fake.streams[mine.ptr] = mine
        assert driver.current_stream() == mine.ptr
        gp.compile(lambda a: a * 2.0, backend=backend)(there)
        assert mine.ptr in fake.streams[own].waited and mine.waited == [own]
    assert driver.current_stream() == 1


@shim
def test_other_libraries_arrays_become_numbas(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By DLPack, or by the array interface after the stream that it names; without copies."""
    fake = installed("numba_cuda", monkeypatch, tmp_path)
    driver: Any = fake.driver()
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    theirs = fake.device.to_user_array(x)
    fake.device.stream = 1
    named = driver.to_user_array(theirs)
    assert named.__cuda_array_interface__["stream"] == 1 and named.address == theirs.address
    other = fake.modules["cuda.core"].Stream(77)
    fake.device.stream = 77
    assert driver.to_user_array(theirs).stream == 77
    assert fake.streams[1].waited[-1] == other.handle
    fake.device.stream = None  # type: ignore[assignment]
    unnamed = driver.to_user_array(theirs)
    assert unnamed.address == theirs.address and unnamed.shape == (3, 4)
    assert ("dlpack", 1) in fake.device.log
    assert unnamed.__cuda_array_interface__["stream"] is None, "the host waits for such"
    assert_same(copied(unnamed), x)
    for array in (np.float32(3), np.zeros((0, 2)), np.arange(3)):
        assert_same(copied(driver.to_user_array(array)), np.asarray(array))


@shim
def test_uploads_small_and_large(fake: Fake) -> None:
    driver = fake.driver()
    for size in (0, 1, SMALL, SMALL + 1):
        sent, back = np.arange(size, dtype=np.uint8), np.zeros(size, np.uint8)
        memory = driver.allocate(size)
        driver.upload(memory.address, sent)
        sent[:] = 7
        driver.download(memory.address, back)
        assert_same(back, np.arange(size, dtype=np.uint8))


@shim
def test_memory_that_runs_out(fake: Fake) -> None:
    driver = fake.driver()
    with pytest.raises(DeviceMemoryError, match=r"a fake has not enough memory: 1,073,741,824"):
        driver.allocate(1 << 30)
    with pytest.raises(DeviceMemoryError, match="were asked for"):
        driver.empty((1 << 28,), np.dtype(np.float32))


@shim
def test_kernels_are_compiled_once_and_kept(fake: Fake) -> None:
    compiler = fake.compiler()
    assert nvrtc.compiled(compiler, "source", "sm_80").endswith(b"source")
    assert fake.compiled == ["sm_80"]
    nvrtc.compiled(compiler, "source", "sm_80")
    assert len(fake.compiled) == 1
    nvrtc.compiled(compiler, "source", "sm_90")
    nvrtc.compiled(compiler, "another", "sm_80")
    assert len(fake.compiled) == 3
    fake.version(13, 1)
    nvrtc.compiled(compiler, "source", "sm_80")
    assert len(fake.compiled) == 4


def test_the_options_are_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So the drivers share what is kept on disk."""
    for name in FAKES:
        fake = installed(name, monkeypatch, tmp_path / name)
        nvrtc.compiled(fake.compiler(), "source", "sm_80")
        if name == "cupy":
            given = fake.modules["cupy"].cuda.nvrtc.compiled
            assert given == [("-std=c++17", "-default-device", "-arch=sm_80")]
        else:
            (options,) = fake.modules["cuda.core"].Program.compiled
            assert vars(options) == {
                "name": "gpubp.cu",
                "arch": "sm_80",
                "std": "c++17",
                "device_as_default_execution_space": True,
            }


def test_a_gpu_that_is_newer_than_nvrtc(fake: Fake) -> None:
    fake.unknown("sm_120", "compute_90")
    compiler = fake.compiler()
    assert nvrtc.compiled(compiler, "source", "sm_120") == b"// PTX\nsource"
    fake.unknown("sm_120", "compute_90", "compute_80")
    with pytest.raises(BackendError, match=r"NVRTC 13.0 does not know sm_120: pip install"):
        nvrtc.compiled(compiler, "another", "sm_120")


@shim
def test_translated_code_is_loaded_too(fake: Fake) -> None:
    fake.unknown("sm_80")
    driver = fake.driver()
    if fake.name == "cupy":  # whose fake would have to take the comment for a source
        pytest.skip("CuPy loads both by one function")
    memory, launch = _kernel(driver)
    launch()
    assert fake.compiled == ["sm_80", "compute_90"] and memory.nbytes == 4


def test_a_source_that_does_not_compile(fake: Fake) -> None:
    with pytest.raises(BackendError, match=r"did not compile.*\n.*what is this"):
        nvrtc.compiled(fake.compiler(), "syntax error", "sm_80")


def test_a_cache_that_cannot_be_written(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path / "file"))
    assert nvrtc.compiled(fake.compiler(), "source", "sm_80").endswith(b"source")


def test_a_missing_piece_is_named_with_the_pip_line(fake: Fake) -> None:
    assert len(fake.missing) >= 4
    for said, take_away in fake.missing.items():
        with pytest.MonkeyPatch.context() as patch:
            take_away(patch)
            probe = type_of(fake).probe()
            assert not probe.available
            with pytest.raises(BackendError, match=said):
                raise BackendError(probe.reason)
            with pytest.raises(BackendError, match=said):
                fake.backend()


def type_of(fake: Fake) -> type[CudaBackend]:
    """The backend's class."""
    found: Any = sys.modules["gpubp.backends"].class_of(fake.name)
    return found  # type: ignore[no-any-return]


def test_a_gpu_that_is_there_is_told_of(fake: Fake) -> None:
    probe = type_of(fake).probe()
    assert probe.available, probe.reason
    assert probe.details == fake.details


def test_a_gpu_of_another_number_is_told_of(fake: Fake) -> None:
    with pytest.raises(BackendError, match="cuda:3 was asked for, but there are 1 GPUs"):
        fake.backend(device=3)


SIMPLE = (
    "struct P { int* out; };\n"
    'extern "C" __global__ void k(const P p) { *p.out += 1; }\nGP_KERNEL(k, P)\n'
)


def _kernel(driver: Any) -> tuple[Any, Any]:
    memory = driver.allocate(4)
    kernel = driver.compile(SIMPLE).get("k")
    return memory, lambda: driver.launch(kernel, (1, 1, 1), (1, 1, 1), 0, _packed(memory))


def _packed(memory: Any) -> bytes:
    return int(memory.address).to_bytes(8, "little")


@shim
def test_errors_of_cuda_are_gpubps(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call meets them: after a kernel has failed, that may be any."""
    driver = fake.driver()
    memory, launch = _kernel(driver)
    one = np.zeros(1, np.int32)
    calls = {
        "upload": lambda: driver.upload(memory.address, one),
        "download": lambda: driver.download(memory.address, one),
        "wait_for": lambda: driver.wait_for(1),
        "make_wait": lambda: driver.make_wait(1),
        "launch": launch,
        "replay": driver.record(launch),
        "synchronize": driver.synchronize,
        "wait": driver.mark().wait,
        "mark": driver.mark,
        "allocate": lambda: driver.allocate(8),
    }
    assert {call for *_, call in fake.failing} == calls.keys()
    for owner, name, call in fake.failing:
        with monkeypatch.context() as patch:
            patch.setattr(owner, *failing(fake, name))
            with pytest.raises(BackendError, match=r"CUDA failed on a fake, .*ILLEGAL_ADDRESS"):
                calls[call]()


@shim
def test_the_first_error_of_a_recording_is_the_one_that_is_raised(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = fake.driver()
    ended = []

    def invalid(*_: Any) -> Any:
        ended.append(1)
        raise fake.error("capture invalidated")

    if fake.name == "cupy":
        monkeypatch.setattr(fake_cupy.Stream, "end_capture", invalid)
    else:
        monkeypatch.setattr(fake_cuda_core.GraphBuilder, "close", invalid)
        monkeypatch.setattr(fake_cuda_core.GraphBuilder, "end_building", invalid)
    with pytest.raises(BackendError, match="the first"):
        driver.record(raises(BackendError("the first")))
    assert ended == [1]
    fake.streams[fake.own()[0]].captured.recording = None
    with pytest.raises(BackendError, match="capture invalidated"):
        driver.record(lambda: None)


@shim
@pytest.mark.parametrize("before", [True, False])
def test_nothing_is_collected_while_launches_are_recorded(fake: Fake, before: bool) -> None:
    driver = fake.driver()
    _, launch = _kernel(driver)
    seen = []
    try:
        gc.enable() if before else gc.disable()
        driver.record(lambda: seen.append(gc.isenabled()) or launch())
        assert seen == [False] and gc.isenabled() == before
    finally:
        gc.enable()


@shim
@pytest.mark.parametrize("name", FAKES)
def test_threads_keep_the_context_that_they_came_with(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second GPU's driver makes no context on the first, and sets one where another is current
    alone.
    """
    fake = installed(name, monkeypatch, tmp_path, gpus=2)
    driver = fake.driver(1)
    assert Contexts.made == {1} and Contexts.mine.current == 0
    _, launch = _kernel(driver)
    seen: list[int] = []
    owner, called = fake.set_context
    plain = getattr(owner, called)
    monkeypatch.setattr(owner, called, lambda context: seen.append(context) or plain(context))
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
def test_shared_memory_beyond_48_kib_is_asked_for(fake: Fake) -> None:
    driver = fake.driver()
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
    with pytest.raises(BackendError, match=r"sm_80 has 166912|INVALID_VALUE"):
        driver.allow_shared(kernel, 200 << 10)


@shim
def test_work_is_timed_between_two_events(fake: Fake) -> None:
    driver = fake.driver()
    done: list[int] = []
    assert driver.seconds(lambda: done.append(1)) == pytest.approx(1.5e-3) and done == [1]


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
