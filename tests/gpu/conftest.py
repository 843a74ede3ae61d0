"""A GPU backend for each test; without a GPU none is run, and one line says what is missing.

GPUBP_TEST_DRIVER=numba_cuda goes through numba-cuda and cuda.core instead of CuPy.
GPUBP_TEST_PART=2/4 runs the second quarter of them alone: every fourth, so that parts take about as
long. Each op's sources are compiled first, which is most of the time where no cache has them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpubp.backends import class_of
from gpubp.backends.cuda import CudaBackend

HERE = Path(__file__).parent
_left_out: list[pytest.Item] = []


def _backend() -> type[CudaBackend]:
    found = class_of(os.environ.get("GPUBP_TEST_DRIVER", "cupy"))
    assert issubclass(found, CudaBackend)
    return found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if item.path.parent == HERE]
    for item in mine:
        item.add_marker(pytest.mark.gpu)
    if mine and not _backend().probe().available:
        _left_out.extend(mine)
        items[:] = [item for item in items if item.path.parent != HERE]
        config.hook.pytest_deselected(items=mine)
    elif "GPUBP_TEST_PART" in os.environ:
        left = mine[:]
        del left[part(os.environ["GPUBP_TEST_PART"])]
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


def part(given: str) -> slice:
    """Which tests "2/4" means.

    Raises:
        UsageError: it is not so written.
    """
    number, _, count = given.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise pytest.UsageError(f"GPUBP_TEST_PART is {given!r}, expected such as 2/4")
    return slice(int(number) - 1, None, int(count))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        reason = _backend().probe().reason
        terminalreporter.write_line(f"NOT RUN: {len(_left_out)} tests need a GPU ({reason})")


@pytest.fixture(scope="session")
def backend() -> CudaBackend:
    """Whose steps are launched and recorded."""
    return _backend()(execution="graph")


@pytest.fixture(scope="session")
def staying() -> CudaBackend:
    """Whose steps are made by a kernel that stays, where programs allow it."""
    return _backend()(execution="persistent")
