"""The drivers for real GPUs, each on a made-up library over the tests' device.

Comes in: a driver's name. Goes out: what the tests of all drivers need to know of its library:
where streams are, what raises which error, how a piece is missing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import fake_cuda_core
import fake_cupy
import pytest
from captures import Recording
from shim_driver import ShimDriver

from gpubp.backends import class_of
from gpubp.backends.cuda import CudaBackend, drivers
from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.drivers.core_calls import CoreNvrtc, modules

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Fake:
    """A made-up library.

    Attributes:
        name: of the driver, and of its backend.
        device: does the work.
        modules: what stands in `sys.modules`.
        streams: by handle; each knows which it `waited` for. The default one is 0 or 1.
        calls: what was asked of the library.
        graphs: what was recorded.
        error: a CUDA error as the library raises it.
        failing: (object, name, which call of the driver meets it).
        missing: of each piece, how it is taken away, and what is said then.
        details: of the probe.
        set_context: (object, name) of what makes a context current.
    """

    name: str
    device: ShimDriver
    modules: dict[str, ModuleType]
    streams: dict[int, Any]
    default: int
    calls: Counter[str]
    graphs: list[Recording]
    error: Callable[[str], Exception]
    failing: tuple[tuple[Any, str, str], ...]
    missing: dict[str, Patch]
    details: dict[str, str]
    set_context: tuple[Any, str]

    def backend(self, **options: Any) -> CudaBackend:
        """A backend on the first GPU."""
        found: Any = class_of(self.name)
        return found(**options)

    def driver(self, number: int = 0) -> Any:
        """The driver of a GPU."""
        return drivers.opened(self.name, number)

    def own(self) -> tuple[int, int]:
        """The handles of the driver's streams: of its work, and of copies beside it."""
        work, copies = sorted(s for s in self.streams if s >= 100)[:2]
        return work, copies

    def compiler(self) -> nvrtc.Compiler:
        """NVRTC."""
        if self.name == "cupy":
            return nvrtc.CupyNvrtc(self.modules["cupy"].cuda.nvrtc)
        return CoreNvrtc(modules())

    @property
    def compiled(self) -> list[str]:
        """The architectures that sources were compiled for."""
        if self.name == "cupy":
            options = self.modules["cupy"].cuda.nvrtc.compiled
            return [o[-1].removeprefix("-arch=") for o in options]
        return [o.arch for o in self.modules["cuda.core"].Program.compiled]

    def unknown(self, *architectures: str) -> None:
        """NVRTC does not know these."""
        if self.name == "cupy":
            binding = self.modules["cupy"].cuda.nvrtc
            binding.unknown = tuple(f"-arch={a}" for a in architectures)
        else:
            self.modules["cuda.core"].Program.unknown = architectures

    def version(self, major: int, minor: int) -> None:
        """NVRTC's from now on."""
        if self.name == "cupy":
            self.modules["cupy"].cuda.nvrtc.getVersion = lambda: (major, minor)
        else:
            self.modules["cuda.bindings.nvrtc"].nvrtcVersion = lambda: (0, major, minor)


def raises(error: Exception) -> Any:
    """A function that raises it."""

    def raising(*_: Any, **__: Any) -> Any:
        raise error

    return raising


def _absent(module: str) -> Patch:
    return lambda patch: patch.setitem(sys.modules, module, None)  # type: ignore[arg-type]


def _replaced(owner: Any, name: str, value: Any) -> Patch:
    return lambda patch: patch.setattr(owner, name, value)


def _cupy(device: ShimDriver, gpus: int, strict: bool) -> Fake:
    cupy = fake_cupy.fake_cupy(device, gpus)
    runtime, error = cupy.cuda.runtime, fake_cupy.CUDARuntimeError
    return Fake(
        "cupy",
        device,
        {"cupy": cupy},
        cupy.streams,
        0,
        cupy.calls,
        cupy.graphs,
        error,
        (
            (runtime, "memcpyAsync", "upload"),
            (runtime, "memcpyAsync", "download"),
            (runtime, "streamWaitEvent", "wait_for"),
            (runtime, "eventRecord", "make_wait"),
            (cupy.cuda.driver, "launchKernel", "launch"),
            (fake_cupy.Graph, "launch", "replay"),
            (fake_cupy.Stream, "synchronize", "synchronize"),
            (fake_cupy.Event, "synchronize", "wait"),
            (fake_cupy.Event, "record", "mark"),
            (cupy.cuda, "alloc", "allocate"),
        ),
        {
            "CuPy is not installed: pip install": _absent("cupy"),
            "no driver.*Insufficient.*pip install": _replaced(
                runtime, "getDeviceCount", raises(error("cudaErrorInsufficientDriver"))
            ),
            "does not find NVRTC: pip install": _replaced(
                cupy.cuda.nvrtc, "getVersion", raises(RuntimeError("no libnvrtc.so.13"))
            ),
            "(there is no|are 0) GPU": _replaced(runtime, "getDeviceCount", lambda: 0),
        },
        {"cupy": "0 (fake)", "gpu": "a fake", "gpus": "1", "driver": "13000", "runtime": "13000",
         "nvrtc": "13.0"},
        (cupy.cuda.driver, "ctxSetCurrent"),
    )  # fmt: skip


def _numba_cuda(device: ShimDriver, gpus: int, strict: bool) -> Fake:
    found = fake_cuda_core.fake_modules(device, gpus, strict)
    core, driver, numba = (found[n] for n in ("cuda.core", "cuda.bindings.driver", "numba.cuda"))
    stream = core.Stream
    return Fake(
        "numba_cuda",
        device,
        found,
        stream.known,
        1,
        stream.calls,
        stream.graphs,
        fake_cuda_core.CUDAError,
        (
            (driver, "cuMemcpyHtoDAsync=", "upload"),
            (driver, "cuMemcpyDtoHAsync=", "download"),
            (stream, "wait", "wait_for"),
            (stream, "record", "make_wait"),
            (driver, "cuLaunchKernel=", "launch"),
            (fake_cuda_core.Graph, "launch", "replay"),
            (stream, "sync", "synchronize"),
            (fake_cuda_core.Event, "sync", "wait"),
            (stream, "record", "mark"),
            (core.Device, "allocate", "allocate"),
        ),
        {
            "numba-cuda is not installed: pip install": _absent("numba_cuda"),
            "cuda.core is not installed.*: pip install": _absent("cuda.core"),
            "no driver that it can use.*library cannot.*pip install": _replaced(
                numba, "cuda_error", lambda: "\nCUDA driver library cannot be found.\n"
            ),
            "does not find NVRTC: pip install": _replaced(
                found["cuda.bindings.nvrtc"], "nvrtcVersion", raises(RuntimeError("no library"))
            ),
            "(there is no|are 0) GPU": _replaced(numba, "gpus", range(0)),
        },
        {"numba-cuda": "0 (fake)", "cuda.core": "0 (fake)", "gpu": "a fake", "gpus": "1",
         "driver": "13000", "nvrtc": "13.0"},
        (driver, "cuCtxSetCurrent"),
    )  # fmt: skip


FAKES = {"cupy": _cupy, "numba_cuda": _numba_cuda}


def made_up(name: str, device: ShimDriver, gpus: int = 1, strict: bool = True) -> Fake:
    """A driver's library, over a device; not yet in `sys.modules`."""
    return FAKES[name](device, gpus, strict)


def failing(fake: Fake, name: str) -> tuple[str, Any]:
    """The function's name, and one that fails in its place; the bindings return their errors."""
    if name.endswith("="):
        status = fake_cuda_core.Status.CUDA_ERROR_ILLEGAL_ADDRESS
        return name[:-1], lambda *_: (status,)
    return name, raises(fake.error("ERROR_ILLEGAL_ADDRESS"))


def through(name: str, device: ShimDriver) -> Any:
    """A driver over a device that is there already, with the device's limits; what tests ask of the
    device besides, the driver knows too.
    """
    fake_cupy.Contexts.mine, fake_cupy.Contexts.made = fake_cupy.Contexts(), {0, 1, 2, 3}
    made = made_up(name, device, device.number + 1, strict=False)
    with mock.patch.dict(sys.modules, made.modules):
        driver = made.driver(device.number)
    cls = type(driver)
    members = {
        "__getattr__": lambda self, attribute: getattr(device, attribute),
        "products": property(lambda self: device.products),
    }
    driver.__class__ = type(cls.__name__, (cls,), members)
    driver.name, driver.architecture = device.name, device.architecture
    driver.processors, driver.fake = device.processors, made
    return driver
