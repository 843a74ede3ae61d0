"""A pytest plugin: scikit-learn's own test files, unchanged, on gpubp's classes.

    pytest -p swap_plugin --pyargs sklearn.neural_network.tests.test_mlp

It swaps the names before the files are imported, checks that the files got gpubp's classes, and
fails the session unless fits really ran on gpubp and none fell back to scikit-learn's code.
"""

from __future__ import annotations

from typing import Any

import pytest

import gpubp.sklearn
from gpubp.sklearn import log


def pytest_configure(config: pytest.Config) -> None:
    gpubp.sklearn.patch_sklearn()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for module in {item.module for item in items}:
        for name in ("MLPClassifier", "MLPRegressor"):
            found = getattr(module, name, None)
            assert found is None or found is getattr(gpubp.sklearn, name), f"{module}: {name}"


def _numbers() -> tuple[int, int]:
    """Fits on gpubp, and on scikit-learn's code."""
    counts = log.counts()
    stock = sum(c.times for k, c in counts.items() if k.where == log.STOCK)
    return sum(c.times for c in counts.values()) - stock, stock


def pytest_sessionfinish(session: pytest.Session) -> None:
    ours, stock = _numbers()
    if ours == 0 or stock:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    ours, stock = _numbers()
    terminalreporter.write_line(f"fits on gpubp: {ours}; on scikit-learn's code: {stock}")
