"""One worker or several: what is measured decides, and a bad moment is forgotten."""

from __future__ import annotations

import pytest

from gpubp.backends.numba_cpu import pace as module
from gpubp.backends.numba_cpu.pace import Pace


class Machine:
    """A clock, and seconds that a step takes by number of workers."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.now, self.seconds = 1.0, seconds
        self.steps = {1: 0, 2: 0}

    def run(self, pace: Pace, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            workers, steps = pace.plan(2)
            took = steps * self.seconds[workers] + (module.WAKE_SECONDS if workers > 1 else 0.0)
            self.now += took
            self.steps[workers] += steps
            pace.note(workers, steps, took)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine({1: 1e-4, 2: 6e-5})
    monkeypatch.setattr(module.time, "perf_counter", lambda: made.now)
    return made


@pytest.mark.parametrize("faster", [1, 2])
def test_the_faster_one_is_used(machine: Machine, faster: int) -> None:
    machine.seconds = {faster: 6e-5, 3 - faster: 1e-4}
    machine.run(Pace(1e6), seconds=2.0)
    total = sum(machine.steps.values())
    assert machine.steps[faster] > 0.97 * total
    assert machine.steps[3 - faster] > 0  # still measured at times


def test_a_bad_moment_is_soon_forgotten(machine: Machine) -> None:
    pace = Pace(1e6)
    machine.seconds[2] = 9e-3
    machine.run(pace, seconds=0.01)
    machine.seconds[2] = 6e-5
    machine.steps = {1: 0, 2: 0}
    machine.run(pace, seconds=0.2)
    assert machine.steps[2] > machine.steps[1]


def test_a_short_trial_does_not_count_the_waking(machine: Machine) -> None:
    machine.seconds = {1: 9e-4, 2: 8.8e-4}  # a step fills a trial: the difference is less than it
    machine.run(Pace(3e7), seconds=1.0)
    assert machine.steps[2] > machine.steps[1]


def test_a_new_run_asks_again(machine: Machine) -> None:
    pace = Pace(1e6)
    machine.seconds[2] = 3e-4
    machine.run(pace, seconds=3.0)
    machine.now += 1.0
    machine.seconds[2] = 6e-5
    machine.steps = {1: 0, 2: 0}
    machine.run(pace, seconds=0.1)
    assert machine.steps[2] > machine.steps[1]


def test_a_short_slice_is_no_marvel() -> None:
    pace = Pace(1e6)
    pace.note(1, 250, 2e-3)
    pace.note(2, 3, 4e-5)
    assert pace.seconds[2] >= 1e-5
    pace.note(2, 250, 2.55e-3)
    assert pace.seconds[2] > pace.seconds[1]


def test_it_follows_the_machine(machine: Machine) -> None:
    pace = Pace(1e6)
    machine.run(pace, seconds=1.0)
    machine.seconds[2] = 3e-4  # the other core is gone
    machine.run(pace, seconds=0.5)
    machine.steps = {1: 0, 2: 0}
    machine.run(pace, seconds=1.5)
    assert machine.steps[1] > 0.97 * sum(machine.steps.values())
