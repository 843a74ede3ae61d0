"""Which tests of the CUDA backend run without being asked for: those that need few or no builds.

Each kernel is built by g++ before it runs on the test device; that takes long where nothing is
cached. `pytest -m full tests/cuda` runs the rest.

With GPUBP_TEST_DRIVER=cupy or numba_cuda, every backend that a test makes over the tests' device
goes through that driver, on its made-up library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_drivers
import pytest
from shim_driver import ShimDriver

from gpubp.backends.cuda import CudaBackend
from gpubp.backends.cuda.drivers import nvrtc

HERE = Path(__file__).parent
QUICK = {
    "test_branches.py",
    "test_counts.py",
    "test_cupy_names.py",
    "test_drivers_on_fakes.py",
    "test_check_cuda.py",
    "test_elementwise_on_shim.py",
    "test_emulated_copies.py",
    "test_emulated_instructions.py",
    "test_emulated_memory.py",
    "test_emulated_ptx.py",
    "test_lt_names.py",
    "test_numba_cuda_names.py",
    "test_numba_kernels.py",
    "test_nvrtc.py",
    "test_ops_on_emulator.py",
    "test_kept.py",
    "test_overlap.py",
    "test_persistent.py",
    "test_repeats.py",
    "test_staged_counts.py",
}

DRIVER = os.environ.get("GPUBP_TEST_DRIVER")
# They look at the plain device itself, or set its current stream; drivers have tests of their own.
OF_THE_DEVICE = {
    "test_the_users_stream_comes_before_and_after",
    "test_the_host_waits_for_a_library_without_streams",
    "test_at_once_the_host_waits_for_other_libraries",
    "test_another_device_is_refused",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if DRIVER and item.name.partition("[")[0] in OF_THE_DEVICE:
            item.add_marker(pytest.mark.skip(reason="looks at the plain test device"))
        if item.path.parent == HERE and item.path.name not in QUICK:
            item.add_marker(pytest.mark.full)


@pytest.fixture(autouse=True, scope="module")
def _launched_and_recorded() -> Iterator[None]:
    """Steps in a kernel that stays are asked for where they are tested, in test_persistent*.py, or
    everywhere, by GPUBP_TEST_EXECUTION=persistent (tests that count launches then fail).
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUBP_EXECUTION", os.environ.get("GPUBP_TEST_EXECUTION", "graph"))
        yield


@pytest.fixture(autouse=True)
def _through_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """See above. Devices that are not the plain one, or whose copies come late, stay: they are for
    what stands on the drivers.
    """
    if not DRIVER:
        return
    name = DRIVER
    # What a made-up compiler makes is not kept: a real one would find it there.
    monkeypatch.setattr(nvrtc, "read_object", lambda *_: None)
    monkeypatch.setattr(nvrtc, "write_object", lambda *_: None)
    plain = CudaBackend.__init__

    def init(
        self: CudaBackend, device: int = 0, driver: Any = None, *args: Any, **named: Any
    ) -> None:
        if type(driver) is ShimDriver and driver.streams.way == "now":
            driver = fake_drivers.through(name, driver)
        plain(self, device, driver, *args, **named)

    monkeypatch.setattr(CudaBackend, "__init__", init)
