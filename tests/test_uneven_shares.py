"""Workers of different speed: shares follow, results stay."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.numba_cpu import NumbaBackend, words
from gpubp.backends.numba_cpu.job import Job
from gpubp.backends.numba_cpu.kernels import sharing
from gpubp.backends.numba_cpu.native_call import native_call
from gpubp.backends.numba_cpu.pace import SHARES_SECONDS, Pace
from gpubp.compiler.parts import WHOLE_LINES
from gpubp.compiler.shares import WHOLE, share_of
from gpubp.core.store import address_of

change_shares = native_call(sharing.change_shares)


def _shared(workers: int) -> np.ndarray:
    job = Job([[0] * 9], np.zeros((1, 2), np.int64), (), workers)
    return job.shared


def _bounds(shared: np.ndarray, workers: int) -> list[int]:
    at = words.SHARED_BOUNDS
    found: list[int] = shared[at : at + workers + 1].tolist()
    return found


def _work(shared: np.ndarray, speeds: list[float]) -> None:
    """What workers of such speeds note when each has done its share."""
    lines = shared[int(shared[words.SHARED_WORKED]) // 8 :].reshape(-1, 8)
    for line, speed, (low, high) in zip(
        lines, speeds, itertools.pairwise(_bounds(shared, len(speeds)))
    ):
        line[:2] = int((high - low) * 1e3 / speed), (high - low) * 7


def _change(shared: np.ndarray, speeds: list[float]) -> list[int]:
    _work(shared, speeds)
    change_shares(address_of(shared), len(speeds))
    lines = shared[int(shared[words.SHARED_WORKED]) // 8 :].reshape(-1, 8)
    assert not lines[:, :2].any(), "what was noted counts once"
    return _bounds(shared, len(speeds))


def test_shares_follow_the_speeds() -> None:
    shared = _shared(2)
    assert _bounds(shared, 2) == [0, WHOLE // 2, WHOLE]
    assert _change(shared, [2.0, 1.0])[1] == pytest.approx(WHOLE * 2 / 3, abs=100)
    assert _change(shared, [1.0, 1.0])[1] == WHOLE // 2
    assert _change(shared, [1.0, 3.0])[1] == pytest.approx(WHOLE / 4, abs=100)
    three = _change(_shared(3), [1.0, 2.0, 1.0])
    np.testing.assert_allclose(three, [0, WHOLE / 4, WHOLE * 3 / 4, WHOLE], atol=100)


def test_small_differences_change_nothing() -> None:
    shared = _shared(2)
    assert _change(shared, [1.03, 1.0])[1] == WHOLE // 2
    skewed = _change(shared, [1.5, 1.0])[1]
    assert skewed > WHOLE // 2
    assert _change(shared, [1.52, 1.0])[1] == skewed
    assert _change(shared, [1.01, 1.0])[1] == WHOLE // 2, "back to equal shares"


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_worker_that_stood_still_keeps_a_share(workers: int) -> None:
    """It was put aside by the system; the next time it may be as fast as the others."""
    for slow in range(workers):
        shared = _shared(workers)
        speeds = [1.0] * workers
        speeds[slow] = 1e-4
        sizes = np.diff(_change(shared, speeds))
        assert sizes.min() == sizes[slow] >= WHOLE // (4 * workers) - workers
        assert sizes.sum() == WHOLE
        np.testing.assert_allclose(
            np.diff(_change(shared, [1.0] * workers)), WHOLE / workers, atol=1
        )


@pytest.mark.parametrize(("workers", "rows"), [(2, 32), (2, 64), (2, 4), (4, 128), (4, 8)])
def test_a_share_that_was_rounded_to_nothing_comes_back(workers: int, rows: int) -> None:
    for slow in range(workers):
        shared = _shared(workers)
        lines = shared[int(shared[words.SHARED_WORKED]) // 8 :].reshape(-1, 8)
        for turn in range(4):
            bounds = _bounds(shared, workers)
            for w, line in enumerate(lines):
                start, stop = share_of(rows, w, bounds, WHOLE_LINES)
                time = 10_000 if w == slow and turn == 0 else 1
                line[:2] = ((stop - start) * time, stop - start) if start < stop else (1, 0)
            change_shares(address_of(shared), workers)
        found = [share_of(rows, w, _bounds(shared, workers), WHOLE_LINES) for w in range(workers)]
        assert min(b - a for a, b in found) >= rows // workers // 2, (slow, found)


def test_without_a_clock_shares_stay() -> None:
    shared = _shared(2)
    lines = shared[int(shared[words.SHARED_WORKED]) // 8 :].reshape(-1, 8)
    lines[:, 1] = 500, 100
    change_shares(address_of(shared), 2)
    assert _bounds(shared, 2) == _bounds(_shared(2), 2)


def test_nothing_noted_changes_nothing() -> None:
    shared = _shared(3)
    before = _bounds(shared, 3)
    change_shares(address_of(shared), 3)
    assert _bounds(shared, 3) == before


def test_shares_move_after_enough_work() -> None:
    pace = Pace(1e6)
    pace.note(2, 10, 10 * 0.25 * SHARES_SECONDS)
    assert pace.work_between_shares(1, 1000) == 0
    work = pace.work_between_shares(2, 1000)
    assert 2 * work == pytest.approx(4 * 1000, rel=0.1)  # four steps of both workers
    assert pace.work_between_shares(2, 0) == 1
    assert Pace(0.0).work_between_shares(2, 100) > 0  # a program that only copies


def _train(backend: NumbaBackend, sizes: tuple[int, ...], epochs: int) -> dict[str, Any]:
    gp.manual_seed(3)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], 400)
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())]
    model, loss = nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    step = gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend)
    losses = step.run(x, y, batch_size=80, epochs=epochs)
    return {"losses": losses, **model.state_dict()}


@pytest.mark.parametrize("sizes", [(37, 53, 29, 7), (192, 128, 10)])
def test_changing_shares_give_the_same_bits(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares change at every meeting, by what clocks that cannot be foreseen have measured."""
    wanted = _train(NumbaBackend(workers=1), sizes, 6)
    jobs: list[Job] = []
    cut = Job.cut

    def noted(self: Job, first: int, stop: int, workers: int, every: int) -> None:
        assert every == 1
        jobs.append(self)
        cut(self, first, stop, workers, every)

    monkeypatch.setattr(Job, "cut", noted)
    monkeypatch.setattr(Pace, "work_between_shares", lambda *_: 1)
    skewed = 0
    for workers in (2, 3, 5) * 5:
        if skewed and workers == 2:
            break  # on an even machine it may take a few runs
        found = _train(NumbaBackend(workers=workers), sizes, 6)
        for name in wanted:
            assert_same(found[name], wanted[name], f"{workers} workers: {name}")
        skewed += _bounds(jobs[-1].shared, workers) != _bounds(_shared(workers), workers)
    assert skewed, "no share has ever changed: this test proves nothing"
