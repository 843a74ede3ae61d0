"""Communicators, who is which rank, what is compared before work, starting, what it costs."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import gpubp as gp
from gpubp.distributed import Communicator, LocalCommunicator, init, run_threads, thread_group
from gpubp.distributed.__main__ import main
from gpubp.distributed.agreement import (
    broadcast_text,
    differences,
    fingerprint,
    gather_text,
    require_alike,
)
from gpubp.distributed.communicator import all_reduced
from gpubp.distributed.launch import Launch, launched
from gpubp.distributed.starting import place_of
from gpubp.errors import DataError, DistributedError, LostPeerError, UnknownNameError


def test_operations_between_threads():
    def work(communicator):
        assert isinstance(communicator, Communicator)
        rank = communicator.rank
        total = np.full((2, 2), rank + 1.0, np.float32)
        communicator.all_reduce(total)
        np.testing.assert_array_equal(total, np.full((2, 2), 6.0))
        found = communicator.gather(np.array([rank, -rank]))
        np.testing.assert_array_equal(found, [[0, 0], [1, -1], [2, -2]])
        given = np.array([rank], np.uint8)
        communicator.broadcast(given, root=2)
        assert given[0] == 2
        communicator.barrier()
        whole = np.ones(1)
        assert all_reduced(communicator)(whole)[0] == 3
        return whole[0]

    assert run_threads(3, work, timeout=30) == [1.0] * 3


def test_one_process_by_itself():
    local = LocalCommunicator()
    assert isinstance(local, Communicator)
    array = np.arange(3.0)
    local.all_reduce(array)
    local.broadcast(array)
    np.testing.assert_array_equal(local.gather(array), [np.arange(3.0)])
    np.testing.assert_array_equal(array, np.arange(3.0))
    local.barrier()
    local.close()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda c: c.all_reduce(np.arange(3)), "all_reduce adds float32 and float64, got int64"),
        (lambda c: c.all_reduce(np.zeros((4, 4))[:, ::2]), "in C order, got"),
        (lambda c: c.gather([1.0]), "got list"),
        (lambda c: c.broadcast(np.array([None])), "Python objects"),
        (lambda c: c.broadcast(np.zeros(1), root=1), "root is 1, expected a rank from 0 to 0"),
    ],
)
def test_what_cannot_be_carried_is_refused(call, expected):
    with pytest.raises(DataError, match=expected):
        call(LocalCommunicator())


def test_a_thread_that_ends_with_an_error_ends_the_others():
    told = []

    def work(communicator):
        if communicator.rank == 1:
            raise ZeroDivisionError
        try:
            communicator.barrier()
        except LostPeerError as error:
            told.append(str(error))
            raise

    with pytest.raises(ZeroDivisionError):
        run_threads(3, work, timeout=60)
    assert len(told) == 2 and all("is gone" in text for text in told)  # nobody waited in vain
    with pytest.raises(LostPeerError, match="is gone"):
        first, second = thread_group(2, 60)
        second.close()
        first.barrier()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, "", False)),
        (
            {"GPUBP_RANK": "2", "GPUBP_WORLD_SIZE": "4", "GPUBP_ADDRESS": "h:1"},
            (2, 4, "h:1", False),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "3"}, (1, 3, "", True)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, (0, 2, "", True)),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "5"},
            (1, 2, "h:5", False),
        ),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (0, 1, "", False)),
        (
            {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "GPUBP_ADDRESS": "h:1"},
            (1, 2, "h:1", False),
        ),
    ],
)
def test_the_environment_says_which_rank_this_is(environment, expected):
    assert place_of(environment) == expected


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_ranks_that_cannot_be_are_refused(rank, size):
    with pytest.raises(DistributedError, match="name no rank"):
        place_of({"GPUBP_RANK": rank, "GPUBP_WORLD_SIZE": size})


def test_a_communicator_is_chosen_by_name(monkeypatch):
    for name in ("GPUBP_RANK", "GPUBP_WORLD_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(init(), LocalCommunicator)
    with pytest.raises(UnknownNameError, match="Did you mean 'gloo'"):
        init("glo")
    with pytest.raises(DataError, match="expected seconds above 0"):
        init(timeout=0)
    with pytest.raises(DistributedError, match="needs to know where rank 0 is"):
        init("gloo")
    monkeypatch.setenv("GPUBP_RANK", "0")
    monkeypatch.setenv("GPUBP_WORLD_SIZE", "2")
    with pytest.raises(DistributedError, match="but 2 were started"):
        init("local")
    monkeypatch.setenv("GPUBP_DISTRIBUTED_TIMEOUT", "soon")
    with pytest.raises(DataError, match="the timeout is 'soon'"):
        init()


def test_texts_of_any_length_are_gathered_and_sent():
    def work(communicator):
        texts = gather_text(communicator, "é" * communicator.rank)
        return texts, broadcast_text(communicator, f"from {communicator.rank}", root=1)

    assert run_threads(3, work, timeout=30) == [(["", "é", "éé"], "from 1")] * 3


def test_differences_name_fact_and_ranks():
    a = {"version": "1.0", "model": "x" * 300 + "first" + "y" * 300}
    b = {"version": "1.1", "model": "x" * 300 + "other" + "y" * 300}
    version, model = differences([a, b, a, b])
    assert version == "version is 1.0 on rank 0 and 1.1 on ranks 1, 3"
    assert "first" in model and "other" in model and len(model) < 400
    assert differences([a, a]) == []

    def work(communicator):
        with pytest.raises(DistributedError, match="version is 0 on rank 0 and 1 on rank 1"):
            require_alike(communicator, {"version": str(communicator.rank)})

    run_threads(2, work, timeout=30)


def test_fingerprints_of_large_arrays_are_of_rows_spread_over_them():
    large = np.zeros((1 << 13, 1 << 9))  # 32 MiB
    before = fingerprint(large)
    large[-1, 0] = 1.0
    assert fingerprint(large) != before
    assert fingerprint(large[:5]) != fingerprint(large[:6])


@pytest.mark.parametrize(
    "shape", [(), (0, 3), (7,), (600, 784), (97, 2042), (300, 2038), (4099, 33)]
)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64"])
def test_fingerprints_see_one_element_and_another_order(shape, dtype):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 200, shape).astype(dtype)
    before = fingerprint(array)
    assert fingerprint(array.copy(order="F")) == before
    for _ in range(5 if array.size else 0):
        other = array.copy()
        other[tuple(rng.integers(0, n) for n in shape)] += 1
        assert fingerprint(other) != before
    if array.size > 1:
        for shuffled in (array[::-1], rng.permutation(array), np.roll(array, 1, 0)):
            assert fingerprint(shuffled) != before


def test_ranks_are_started_with_their_places_and_watched(tmp_path):
    program = (
        "import os, pathlib, sys, time\n"
        "rank, size = os.environ['GPUBP_RANK'], os.environ['GPUBP_WORLD_SIZE']\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "path = folder / rank\n"
        "path.write_text((path.read_text() if path.exists() else '') + size)\n"
        "if rank == '1' and path.read_text() == '2': sys.exit(3)\n"
    )
    command = [sys.executable, "-c", program]
    assert launched(Launch(command, 2)) == 3
    assert launched(Launch(command, 2)) == 0
    for rank in ("0", "1"):
        assert (tmp_path / rank).read_text() == "22"
        (tmp_path / rank).unlink()
    assert launched(Launch(command, 2, restarts=1)) == 0
    assert (tmp_path / "1").read_text() == "22"


def test_a_rank_that_waits_for_a_dead_one_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("gpubp.distributed.launch.GRACE_SECONDS", 0.2)
    late = tmp_path / "late"
    program = (
        "import os, pathlib, signal, sys, time\n"
        "if os.environ['GPUBP_RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)\n"
        "pathlib.Path(sys.argv[1]).touch()"
    )
    assert launched(Launch([sys.executable, "-c", program, str(late)], 2)) == 128 + 9
    assert not late.exists()


@pytest.mark.parametrize(
    "arguments", [["-n", "0", "a.py"], ["-n", "2"], ["--machines", "2", "a.py"]]
)
def test_wrong_arguments_of_the_starter(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_distributed_is_a_public_name():
    assert gp.distributed.init is init
