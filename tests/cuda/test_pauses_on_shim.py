"""Ctrl-C, custom ops that call programs, and forks, with a device."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import numpy as np
import pytest
import shim_build
from shim_backend import as_cuda
from shim_driver import ShimDriver
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.cuda import CupyBackend, stepping
from gpubp.backends.cuda.loaded import Loaded
from gpubp.errors import BackendError, NestingError
from gpubp.runtime.pauses import Pauses

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(100, 6)).astype(np.float32), RNG.integers(0, 3, 100)


def _made(backend: Any) -> tuple[Any, Any, Any]:
    gp.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    loss = nn.CrossEntropyLoss()
    return (
        model,
        optimizer,
        gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend),
    )


@pytest.mark.parametrize("known", [0.0, 1e-4, 10.0], ids=["new", "quick", "slow"])
@pytest.mark.parametrize("chunks", [False, True], ids=["resident", "chunks"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_run_ends_with_whole_steps(
    number: int, chunks: bool, known: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the looks are depends on what a step takes; the bits do not."""
    seconds = property(lambda self: known, lambda self, new: None)
    monkeypatch.setattr(Loaded, "seconds", seconds, raising=False)
    monkeypatch.setattr(stepping, "LOOK_SECONDS", 6e-4)
    backend = CupyBackend(driver=ShimDriver(), resident_bytes=500 if chunks else None)
    whole, cut = _made(backend), _made(backend)
    options = {"batch_size": 8, "epochs": 6, "shuffle": False}
    losses = whole[2].run(X, Y, **options)
    looks, look = [0], Pauses.look

    def counted(self: Pauses) -> None:
        looks[0] += 1
        if looks[0] == number:
            os.kill(os.getpid(), signal.SIGINT)
        look(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Pauses, "look", counted)
        cut[2].run(X, Y, **options)
    found = cut[2].losses
    done = len(found)
    assert 0 < done < len(losses) == 78
    assert done == int(cut[1].step_count.value)
    assert_same(found, losses[:done])
    for i in range(done, len(losses)):
        at = i % 13 * 8
        assert_same(cut[2](X[at : at + 8], Y[at : at + 8]), losses[i])
    for mine, theirs in zip(cut[0].parameters(), whole[0].parameters(), strict=True):
        assert_same(mine.numpy(), theirs.numpy())


def test_what_a_step_takes_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a second whenever it is read."""
    clock = itertools.count()
    monkeypatch.setattr(stepping.time, "perf_counter", lambda: float(next(clock)))
    backend = CupyBackend(driver=ShimDriver())
    _, _, step = _made(backend)
    step.run(X, Y, batch_size=4, epochs=10)
    assert 0 < step._runner.last.loaded.seconds <= next(clock)


def test_predictions_are_left_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    model = nn.Linear(6, 3)
    trainer = gp.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), device="cuda")
    trainer.predict(X, batch_size=3)

    def pressed(self: Pauses) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Pauses, "look", pressed)
        trainer.predict(X, batch_size=3)
    assert model.training
    assert trainer.predict(X, batch_size=3).shape == (100, 3)


def test_a_device_runs_nothing_inside_of_a_run() -> None:
    backend = CupyBackend(driver=ShimDriver())
    for inner in (backend, "numpy", "numba"):
        double = gp.compile(lambda x: x * 2.0, backend=inner)
        op = gp.custom_op("doubling", lambda x, double=double: double(x))
        fn = gp.compile(lambda x, op=op: op(x) + 1.0, backend=backend)
        for _ in range(2):
            if inner is backend:
                with pytest.raises(NestingError, match="on the same device, which can run nothing"):
                    fn(X)
            else:
                assert_same(fn(X), X * np.float32(2) + np.float32(1))


def test_a_gradient_step_inside_of_itself_is_refused() -> None:
    backend = CupyBackend(driver=ShimDriver())
    model = nn.Linear(6, 3)
    op = gp.custom_op("stepping", lambda x: (step(x), x)[1], vjp=lambda g, y, x: g)
    step = gp.compile_step(
        lambda x: ops.mean(model(op(x))), optim.SGD(model.parameters()), backend=backend
    )
    with pytest.raises(NestingError, match="inside of its own run"):
        step(X)


def test_a_forked_child_is_told_that_it_has_no_gpu() -> None:
    backend = CupyBackend(driver=ShimDriver())
    fn = gp.compile(lambda x: x * 2.0, backend=backend)
    fn(X)
    backend.start_anew()  # what a child does first
    other = gp.compile(lambda x: x * 3.0, backend=backend)
    for call in (fn, fn, other):
        with pytest.raises(BackendError, match="get_context\\('spawn'\\)"):
            call(X)
