"""A GPU backend for each test; without a GPU they are skipped with what is missing."""

from __future__ import annotations

import pytest

from gpubp.backends.cuda import CupyBackend


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def backend() -> CupyBackend:
    probe = CupyBackend.probe()
    if not probe.available:
        pytest.skip(f"needs a GPU: {probe.reason}")
    return CupyBackend()
