"""Every test compiles with verification on: graph and program are checked after the passes.

Skipped tests are listed with their reasons by the `-ra` in pyproject.toml.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test depends on a clock: other work may hold the processor at any time.
settings.register_profile("any-load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-load")

os.environ["GPUBP_VERIFY"] = "1"


@pytest.fixture(autouse=True)
def _verification_stays_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_VERIFY", "1")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """Shells let background jobs ignore it, and their children too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """A skip without a reason fails: nobody could tell later what was not tested."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ").strip()
        if reason in ("", "Skipped", "unconditional skip"):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped without a reason"
