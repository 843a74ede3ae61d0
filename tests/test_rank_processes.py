"""Ranks that are processes: over gloo and MPI, killed and started anew."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parent
PROGRAM = TESTS / "rank_process.py"
SECONDS = 1200
BACKENDS = {"gloo": "torch", "mpi": "mpi4py"}

pytestmark = pytest.mark.full


def launch(ranks, backend, *arguments, restarts=0, timeout=60):
    """Run the program on so many ranks; what `subprocess.run` gives."""
    if backend != "local" and importlib.util.find_spec(BACKENDS[backend]) is None:
        pytest.skip(f"needs {BACKENDS[backend]}")
    command = [sys.executable, "-m", "gpubp.distributed", "run", "-n", str(ranks)]
    command += ["--backend", backend, "--timeout", str(timeout), "--restarts", str(restarts)]
    if backend == "local":
        command = [sys.executable]
    environment = {**os.environ, "GPUBP_BACKEND": "numba"}
    parts = [os.environ.get("PYTHONPATH", ""), str(TESTS), str(TESTS.parent)]
    environment["PYTHONPATH"] = os.pathsep.join(p for p in parts if p)
    return subprocess.run(
        [*command, str(PROGRAM), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def results(ranks, backend, folder, *arguments, **options):
    folder.mkdir()
    done = launch(ranks, backend, folder / "found.npz", *arguments, **options)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "found.npz") as found:
        return dict(found)


@pytest.mark.parametrize(("backend", "ranks"), [("gloo", 2), ("gloo", 4), ("mpi", 2), ("mpi", 3)])
def test_processes_give_what_one_gives(backend, ranks, tmp_path):
    expected = results(1, "local", tmp_path / "one")
    found = results(ranks, backend, tmp_path / "all")
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("backend", "ranks"), [("gloo", 3), ("mpi", 2)])
def test_deterministic_processes_give_the_bits_of_one(backend, ranks, tmp_path):
    expected = results(1, "local", tmp_path / "one", "--deterministic")
    found = results(ranks, backend, tmp_path / "all", "--deterministic")
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_killed_rank_is_an_error_on_the_others_in_time(tmp_path):
    done = launch(3, "gloo", tmp_path / "found.npz", "--kill", "1:6", timeout=20)
    assert done.returncode in (7, 128 + 9)  # whichever of them was seen first
    for rank in (0, 2):
        assert float((tmp_path / f"lost-{rank}-0").read_text()) < 60
    assert not (tmp_path / "found.npz").exists()


def test_mpi_ends_all_ranks_when_one_is_killed(tmp_path):
    done = launch(2, "mpi", tmp_path / "found.npz", "--kill", "1:6", timeout=20)
    assert done.returncode != 0
    assert not (tmp_path / "found.npz").exists()


@pytest.mark.parametrize(("backend", "kills"), [("gloo", 3), ("mpi", 20)])
def test_killed_again_and_again_a_job_ends_with_the_same_bits(backend, kills, tmp_path):
    expected = results(2, backend, tmp_path / "never", "--checkpoint", tmp_path / "never.ckpt")
    steps = np.sort(np.random.default_rng(0).integers(1, 24, kills))
    asked = ",".join(f"{i % 2}:{step}" for i, step in enumerate(steps))
    found = results(
        2, backend, tmp_path / "killed", "--checkpoint", tmp_path / "killed.ckpt", "--kill", asked,
        restarts=kills, timeout=20,
    )  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert len((tmp_path / "killed" / "starts-0").read_text()) == kills + 1
