"""Ranks that are processes: over gloo and MPI, killed and started anew."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
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
    """Run the program on so many ranks; what `subprocess.run` gives.

    A backend's name with "/sent" behind it: nothing goes through shared memory.
    """
    backend, _, way = backend.partition("/")
    if backend != "local" and importlib.util.find_spec(BACKENDS[backend]) is None:
        pytest.skip(f"needs {BACKENDS[backend]}")
    command = [sys.executable, "-m", "gpubp.distributed", "run", "-n", str(ranks)]
    command += ["--backend", backend, "--timeout", str(timeout), "--restarts", str(restarts)]
    if backend == "local":
        command = [sys.executable]
    environment = {**os.environ, "GPUBP_BACKEND": "numba"}
    environment["GPUBP_SHARED_MEMORY"] = "0" if way == "sent" else "1"
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


@pytest.mark.parametrize("options", [[], ["--shard"], ["--buckets"], ["--shard", "--buckets"]])
@pytest.mark.parametrize(
    ("backend", "ranks"), [("gloo", 4), ("mpi", 3), ("gloo/sent", 4), ("mpi/sent", 2)]
)
def test_processes_give_what_one_gives(backend, ranks, options, tmp_path):
    expected = results(1, "local", tmp_path / "one")
    found = results(ranks, backend, tmp_path / "all", *options)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("options", [[], ["--shard"]])
@pytest.mark.parametrize(("backend", "ranks"), [("gloo", 3), ("gloo/sent", 3), ("mpi/sent", 2)])
def test_deterministic_processes_give_the_bits_of_one(backend, ranks, options, tmp_path):
    expected = results(1, "local", tmp_path / "one", "--deterministic")
    found = results(ranks, backend, tmp_path / "all", "--deterministic", *options)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("backend", "name"), [("gloo", "SIGKILL"), ("gloo", "SIGTERM"), ("gloo/sent", "SIGKILL")]
)
def test_a_killed_rank_is_an_error_on_the_others_in_time(backend, name, tmp_path):
    killed = ["--kill", "1:6", "--signal", name]
    done = launch(3, backend, tmp_path / "found.npz", *killed, timeout=20)
    assert done.returncode in (7, 128 + signal.Signals[name])  # whichever of them was seen first
    for rank in (0, 2):
        assert float((tmp_path / f"lost-{rank}-0").read_text().split()[0]) < 60
    assert not (tmp_path / "found.npz").exists()


@pytest.mark.parametrize(("wrong", "options"), [(0, []), (1, ["--shard", "--buckets"])])
@pytest.mark.parametrize(
    ("backend", "ranks"),
    [("gloo", 4), ("mpi", 3), ("gloo/sent", 2), ("gloo/sent", 4), ("mpi/sent", 3)],
)
def test_an_error_that_one_rank_catches_is_told_to_the_others(
    backend, ranks, wrong, options, tmp_path
):
    """Long before the timeout, and before that rank's process ends. (MPI's starter ends the others
    when the first has ended, and has codes of its own.)"""
    options = ["--raise", f"{wrong}:6", "--epochs", 400, *options]
    done = launch(ranks, backend, tmp_path / "found.npz", *options, timeout=1000)
    assert done.returncode in ((7, 8) if backend.startswith("gloo") else range(1, 256))
    for rank in set(range(ranks)) - {wrong}:
        told = (tmp_path / f"lost-{rank}-0").read_text()
        assert f"rank {rank}: rank {wrong} has left: ValueError: out of luck" in told


@pytest.mark.parametrize("backend", ["gloo", "gloo/sent", "mpi/sent"])
@pytest.mark.parametrize("who", ["0", "1", "all"])
def test_ctrl_c_on_some_processes_ends_all_at_the_same_step(backend, who, tmp_path):
    for i, seconds in enumerate((0.0, 0.05, 0.3)):
        folder = tmp_path / str(i)
        results(2, backend, folder, "--press", f"{who}:{seconds}", "--epochs", 20_000)
        first, second = ((folder / f"stands-{rank}").read_text() for rank in range(2))
        assert first == second
        assert first.startswith("interrupted ")


@pytest.mark.parametrize("backend", ["gloo", "gloo/sent", "mpi/sent"])
def test_who_waits_for_a_rank_that_does_not_come_can_press_ctrl_c_twice(backend, tmp_path):
    done = launch(
        2, backend, tmp_path / "found.npz", "--press", "0:1", "--stall", 1, timeout=10_000
    )
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_mpi_ends_all_ranks_when_one_is_killed(name, tmp_path):
    killed = ["--kill", "1:6", "--signal", name, "--epochs", 20_000]
    done = launch(2, "mpi", tmp_path / "found.npz", *killed, timeout=20)
    assert done.returncode != 0
    assert not (tmp_path / "found.npz").exists()


@pytest.mark.parametrize(
    ("backend", "kills", "options"),
    [
        ("mpi", 20, []),
        ("gloo", 3, ["--shard"]),
        ("gloo/sent", 3, []),
        ("gloo/sent", 3, ["--shard", "--buckets"]),
    ],
)
def test_killed_again_and_again_a_job_ends_with_the_same_bits(backend, kills, options, tmp_path):
    expected = results(
        2, backend, tmp_path / "never", "--checkpoint", tmp_path / "never.ckpt", *options
    )
    steps = np.sort(np.random.default_rng(0).integers(1, 24, kills))
    asked = ",".join(f"{i % 2}:{step}" for i, step in enumerate(steps))
    found = results(
        2, backend, tmp_path / "killed", "--checkpoint", tmp_path / "killed.ckpt", "--kill", asked,
        *options, restarts=kills, timeout=20,
    )  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert len((tmp_path / "killed" / "starts-0").read_text()) == kills + 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("options", [[], ["--shard", "--buckets"]])
@pytest.mark.parametrize("backend", ["gloo", "gloo/sent", "mpi/sent"])
def test_ten_thousand_steps_take_no_more_memory_than_a_thousand(backend, options, tmp_path):
    # An epoch has 23 steps: most of the time goes into steps.
    work = ["--epochs", 440, "--batch-size", 2, "--memory"]
    results(2, backend, tmp_path / "long", *work, *options)
    for rank in range(2):
        samples = np.loadtxt(tmp_path / "long" / f"memory-{rank}", np.int64)
        print(f"{backend}, rank {rank}: {(samples[:, 1] / 2**20).round(1).tolist()} MiB")
        assert len(samples) >= 10 and samples[-1, 0] >= 10_000
        assert samples[-1, 1] - samples[0, 1] < 4 << 20  # the history of 400 epochs is in it


NETWORKS = [["--shard", "--buckets"], ["--cut", "1:0.3"]]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not Path("/dev/net/tun").exists()
    or shutil.which("ip") is None,
    reason="needs root, TUN devices and iproute2",
)  # fmt: skip
@pytest.mark.parametrize("options", NETWORKS, ids=" ".join)
def test_ranks_on_a_slow_network_and_ranks_that_are_cut_off(options):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    command = [sys.executable, str(TESTS / "rank_networks.py"), "--ranks", "2", "--delay", "5"]
    parts = [os.environ.get("PYTHONPATH", ""), str(TESTS), str(TESTS.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in parts if p)}
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
