"""Files of populations: what is resumed ends as what was never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import populations as pop
import pytest

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.errors import CheckpointError
from gpubp.optim import lr_scheduler
from gpubp.train import load_population, save_model, save_population

X, Y = pop.data()
TESTS = Path(__file__).resolve().parent


def _made(**options: Any) -> gp.Population:
    return pop.population(
        3,
        backend=options.pop("backend", None),
        lr=options.pop("lr", [0.01, 0.02, 0.03]),
        scheduler=lambda o: lr_scheduler.OneCycleLR(o, 0.1, 40),
        **options,
    )


def _states(made: gp.Population) -> list[dict[str, Any]]:
    return [made.state_dict(i) for i in range(made.n)]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "used"])
def test_a_resumed_population_ends_as_one_never_stopped(
    tmp_path: Path, backend: str, ran: bool
) -> None:
    made = _made(backend=backend)
    made.run(X, Y, batch_size=40, epochs=2)
    made.stop(1)
    save_population(tmp_path / "p.safetensors", made, {"note": 3})
    expected = made.run(X, Y, batch_size=40, epochs=2)
    again = _made(backend=backend, seeds=[7, 8, 9])
    if ran:
        again.run(X, Y, batch_size=40)
    assert load_population(tmp_path / "p.safetensors", again) == {"note": 3}
    assert again.active == [0, 2] and again.steps == [8, 8, 8]
    assert pop.as_bits(again.run(X, Y, batch_size=40, epochs=2)) == pop.as_bits(expected)
    assert all(map(pop.same, _states(again), _states(made)))
    assert again.histories == made.histories
    assert again.hyper("lr").tolist() == made.hyper("lr").tolist()


def test_a_population_saved_again_before_it_runs_is_the_same_file(tmp_path: Path) -> None:
    made = _made()
    made.run(X, Y, batch_size=40)
    save_population(tmp_path / "a", made)
    again = _made()
    load_population(tmp_path / "a", again)
    save_population(tmp_path / "b", again)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again.copy(0, 1)
    again.run(X, Y, batch_size=40)
    made.copy(0, 1)
    made.run(X, Y, batch_size=40)
    assert all(map(pop.same, _states(again), _states(made)))


def test_other_files_and_populations_are_refused_and_change_nothing(tmp_path: Path) -> None:
    made = _made()
    made.run(X, Y, batch_size=40)
    save_population(tmp_path / "p", made)
    other = pop.population(3, lr=0.1)
    before = _states(other)
    with pytest.raises(CheckpointError, match="does not fit the population"):
        load_population(tmp_path / "p", other)
    fewer = pop.population(2, scheduler=lambda o: lr_scheduler.StepLR(o, 3), lr=0.1)
    with pytest.raises(CheckpointError, match="of 3 members, this has 2"):
        load_population(tmp_path / "p", fewer)
    model = nn.Sequential(nn.Linear(2, 2))
    save_model(tmp_path / "m", model)
    with pytest.raises(CheckpointError, match="no file of a population"):
        load_population(tmp_path / "m", other)
    raw = bytearray((tmp_path / "p").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "p").write_bytes(raw)
    with pytest.raises(CheckpointError):
        load_population(tmp_path / "p", other)
    assert all(map(pop.same, _states(other), before))


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_every_member_between_two_steps(workers: int) -> None:
    backend = NumbaBackend(workers)
    made = pop.population(3, optim.SGD, backend, drop=0.0)
    main = threading.main_thread().ident
    assert main is not None
    made.run(X, Y, batch_size=2)  # compiles
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        made.run(X, Y, batch_size=2, epochs=10_000)
    timer.join()
    steps = [n - len(X) // 2 for n in made.steps]
    assert any(steps) and len(made.losses[0]) == steps[0]
    made.run(X, Y, batch_size=50)
    for i, n in enumerate(steps):
        if n > 20_000:
            continue  # so many steps take too long to be made again
        alone = pop.Alone(i, optim.SGD, NumbaBackend(1), drop=0.0)
        alone.run(X, Y, batch_size=2)
        rng = alone.step._orders
        begun = -(-n // (len(X) // 2))
        orders = rng.draw(len(X), begun, True, None, None).orders if begun else []
        if n:
            alone.run(X, Y, batch_size=2, order=np.concatenate(orders)[: 2 * n])
        alone.run(X, Y, batch_size=50)
        assert pop.same(made.state_dict(i), alone.state())


@pytest.mark.full
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this platform has no SIGKILL")
def test_killed_populations_end_as_one_never_stopped(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    environment.pop("GPUBP_VERIFY", None)

    def start(checkpoint: str, result: str) -> subprocess.Popen[str]:
        work = [str(TESTS / "population_kill_work.py"), str(tmp_path / checkpoint)]
        command = [sys.executable, *work, str(tmp_path / result), "300"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    assert start("whole.ckpt", "whole").wait(120) == 0
    rng = np.random.default_rng()
    for kill in range(3):
        child = start("killed.ckpt", "killed")
        assert child.stdout is not None
        if child.stdout.readline() != "saved\n":  # fast, and at its end before
            assert kill > 0 and child.wait() == 0
            break
        time.sleep(rng.uniform(0.0, 0.05))
        child.kill()
        child.wait()
    assert start("killed.ckpt", "killed").wait(120) == 0
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
