"""Reports with a profile: measured times, the peaks that bound them, and nothing changed by it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends import get_backend
from gpubp.backends.base import Peak
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.errors import BackendError, GpubpError
from gpubp.runtime.report import Timing

X, Y = np.ones((64, 48), np.float32), np.arange(64) % 3
COLUMNS = ["us", "GFLOP/s", "GB/s", "bound", "of peak", "shared by"]
PART = re.compile(
    r"^ *(\d+|&) .* (\d+\.\d+) +(-|\d+%)  (\d+ (?:rows|columns)|one worker)$"
)  # bound, share


def _step(backend: Any) -> tuple[Any, Any, Any]:
    """A step that has run once, and all that it updates."""
    model = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
    optimizer = optim.Adam(model.parameters())
    loss_fn = nn.CrossEntropyLoss()
    step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer, backend=backend)
    step(X, Y)
    return step, model, optimizer


def _state(model: Any, optimizer: Any) -> list[np.ndarray]:
    found = [slot.value.copy() for slot in optimizer.parameters()]
    found += [a.copy() for a in model.state_dict().values()]
    for moments in optimizer.state_dict()["state"].values():
        found += [np.array(a) for a in moments.values()]
    return [*found, np.array(optimizer.step_count.value)]


def _assert_sane(text: str, parts: int) -> None:
    """Every part has a time, a bound and a share; the sums are stated; lines stay readable."""
    lines = text.splitlines()
    assert [name for name in COLUMNS if name not in lines[1]] == []
    assert max(map(len, lines)) <= 130
    found = [match for match in map(PART.match, lines) if match]
    assert len(found) == parts
    for match in found:
        idle = match[3] == "-"  # a batch that is read in place
        assert float(match[2]) == 0 if idle else 0 <= int(match[3].rstrip("%")) <= 150
    assert sum(match[3] == "-" for match in found) <= 1
    total = re.search(r"measured ([\d.]+) us a step.*bound ([\d.]+) us, share (\d+)%", text)
    assert total is not None
    measured, bound = float(total[1]), float(total[2])
    assert 0 < bound <= 1.5 * measured
    assert abs(bound / measured - int(total[3]) / 100) < 0.1  # of rounded numbers
    assert abs(sum(float(match[2]) for match in found) - bound) < 0.06 + 0.006 * parts
    assert re.search(r"peak [\d.]+ GFLOP/s and [\d.]+ GB/s", text)


def test_profile_of_a_step_shows_bounds_and_changes_nothing() -> None:
    step, model, optimizer = _step(NumbaBackend(workers=1))
    before = _state(model, optimizer)
    plain = step.report()
    _assert_sane(step.report(profile=True), len(step.program.parts))
    after = _state(model, optimizer)
    for found, kept in zip(after, before, strict=True):
        np.testing.assert_array_equal(found, kept)
    assert step.report() == plain
    assert "peak" not in plain


def test_a_step_goes_on_after_a_profile_as_if_there_had_been_none() -> None:
    losses = []
    for profile in (False, True):
        gp.manual_seed(3)
        step, _, _ = _step(NumbaBackend(workers=1))
        step.report(profile=profile)
        losses.append([step(X, Y) for _ in range(3)])
    assert losses[0] == losses[1]


def test_profile_of_a_function_works_as_that_of_a_step() -> None:
    a = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    loaded = gp.compile(lambda x: (x @ x.T, ops.exp(x) + 1), backend="numba")
    with pytest.raises(GpubpError, match="nothing is compiled"):
        loaded.report(profile=True)
    wanted = loaded(a)
    ready = loaded._runner.last
    assert ready is not None
    _assert_sane(loaded.report(profile=True), len(ready.program.parts))
    for found, kept in zip(loaded(a), wanted, strict=True):
        np.testing.assert_array_equal(found, kept)


def test_a_part_without_work_has_no_share() -> None:
    loaded = gp.compile(lambda e: e + 1, backend="numba")
    loaded(np.ones((0, 3), np.float32))
    parts = [m for m in map(PART.match, loaded.report(profile=True).splitlines()) if m]
    assert [m[3] for m in parts] == ["-"]
    assert Timing(0.0, 0.0).share == "-"
    assert Timing(1e-6, 0.0).share == "-"
    assert Timing(4e-6, 1e-6).share == "25%"


def test_the_bound_is_the_longer_of_arithmetic_and_bytes() -> None:
    peak = Peak(flops=100.0, bytes=10.0)
    assert peak.bound(200.0, 5.0) == 2.0
    assert peak.bound(200.0, 50.0) == 5.0
    assert peak.bound(0.0, 0.0) == 0.0


def test_the_roof_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumbaBackend, "_peak", None)
    first = NumbaBackend(workers=2).peak()
    assert first.flops > 0
    assert first.bytes > 0
    monkeypatch.setattr(NumbaBackend, "profile", None)  # what measuring again would call
    assert get_backend("numba").peak() is first


def test_an_error_of_a_users_op_does_not_wait_for_the_next_run() -> None:
    def forward(x: Any) -> Any:
        if not x.any():
            raise ValueError("only zeros")
        return x * 2

    double = ops.custom_op("double_of_something", forward)
    loaded = gp.compile(lambda x: double(x) + 1, backend="numba")
    ones = np.ones(3, np.float32)
    loaded(ones)
    with pytest.raises(ValueError, match="only zeros"):
        loaded.report(profile=True)
    np.testing.assert_array_equal(loaded(ones), [3, 3, 3])


def test_a_backend_that_cannot_measure_says_so() -> None:
    step, _, _ = _step("numpy")
    loaded = gp.compile(lambda x: x + 1, backend="numpy")
    loaded(np.ones(3))
    for compiled in (step, loaded):
        with pytest.raises(BackendError, match="'numpy' does not measure its instructions"):
            compiled.report(profile=True)
    with pytest.raises(BackendError, match="'numpy' does not measure its peak"):
        get_backend("numpy").peak()
