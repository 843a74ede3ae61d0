"""A GPU backend for each test; without a GPU none is run, and one line says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpubp.backends.cuda import CupyBackend

HERE = Path(__file__).parent
_left_out: list[pytest.Item] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if item.path.parent == HERE]
    for item in mine:
        item.add_marker(pytest.mark.gpu)
    if mine and not CupyBackend.probe().available:
        _left_out.extend(mine)
        items[:] = [item for item in items if item.path.parent != HERE]
        config.hook.pytest_deselected(items=mine)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        reason = CupyBackend.probe().reason
        terminalreporter.write_line(f"NOT RUN: {len(_left_out)} tests need a GPU ({reason})")


@pytest.fixture(scope="session")
def backend() -> CupyBackend:
    return CupyBackend()
