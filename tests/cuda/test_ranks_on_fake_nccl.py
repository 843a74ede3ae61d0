"""Ranks over NCCL, as far as a made-up cupyx can show it; with gradients on the tests' device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fake_cupyx
import numpy as np
import pytest
import shim_build
from shim_driver import ShimDriver

sys.path.insert(0, str(Path(__file__).parents[1]))
from rank_work import X, Y, assert_close, assert_same_bits, classifier

import gpubp as gp
from gpubp import nn
from gpubp.backends.cuda import CupyBackend
from gpubp.distributed import run_threads
from gpubp.distributed.nccl import NcclCommunicator
from gpubp.errors import DataError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    for name, module in fake_cupyx.modules(2, made).items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_operations_of_host_arrays(calls: list[str]) -> None:
    def work(thread: Any) -> None:
        made = NcclCommunicator(thread.rank, 2, "here:1234")
        assert (made.name, made.rank, made.size) == ("nccl", thread.rank, 2)
        total = np.full((2, 3), thread.rank + 1.0)
        made.all_reduce(total)
        np.testing.assert_array_equal(total, np.full((2, 3), 3.0))
        given = np.arange(4) * (thread.rank + 1)
        np.testing.assert_array_equal(made.gather(given), [np.arange(4), np.arange(4) * 2])
        made.broadcast(given, root=1)
        np.testing.assert_array_equal(given, np.arange(4) * 2)
        with pytest.raises(DataError, match="all_reduce adds float32 and float64"):
            made.all_reduce(np.arange(3))
        made.barrier()
        made.close()
        made.close()

    run_threads(2, work, timeout=60)
    assert calls.count("stop") == 2


@pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
def test_gradients_on_a_device_are_summed_there(calls: list[str]) -> None:
    at: list[int] = []

    def work(thread: Any) -> Any:
        communicator = None
        if thread is not None:
            communicator = NcclCommunicator(thread.rank, 2, "here:1234")
            whole = communicator.all_reduce_at
            communicator.all_reduce_at = lambda *a: (at.append(a[0]), whole(*a))  # type: ignore
        model, optimizer = classifier()
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(model(a), b),
            optimizer,
            backend=CupyBackend(driver=ShimDriver()),
            communicator=communicator,
        )
        losses = step.run(X, Y, batch_size=20, epochs=2)
        return {"losses": losses, **model.state_dict()}

    expected = work(None)
    first, second = run_threads(2, work, timeout=120)
    assert_close(first, expected)
    assert_same_bits(second, first)
    assert len(at) == 12 and len(set(at)) == 2  # six updates on each rank's device
