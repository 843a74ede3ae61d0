"""Which tests of the CUDA backend run without being asked for: those that need few or no builds.

Each kernel is built by g++ before it runs on the test device; that takes long where nothing is
cached. `pytest -m full tests/cuda` runs the rest.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK = {
    "test_counts.py",
    "test_cupy_names.py",
    "test_driver_on_fake_cupy.py",
    "test_check_cuda.py",
    "test_elementwise_on_shim.py",
    "test_emulated_instructions.py",
    "test_emulated_memory.py",
    "test_emulated_ptx.py",
    "test_lt_names.py",
    "test_nvrtc.py",
    "test_ops_on_emulator.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE and item.path.name not in QUICK:
            item.add_marker(pytest.mark.full)
