"""Ctrl-C in runs: whole steps, the losses so far, and no bit that an uninterrupted run has not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import points
import pytest
from registered import with_workers
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import pace
from gpubp.runtime.pauses import Pauses
from gpubp.train import EarlyStopping

BACKENDS = with_workers(1, 2)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(50, 6)).astype(np.float32), RNG.integers(0, 3, 50)
EPOCHS, BATCH = 6, 8
STEPS = 7  # an epoch


def press() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A backend that looks around every other step."""
    monkeypatch.setattr(pace.Pace, "steps_in", lambda self, seconds, workers: 2)
    return _made(request.param)


@cache
def _made(name: str) -> Any:
    return BACKENDS[name]()


@contextmanager
def pressed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[list[int]]:
    """Ctrl-C comes right before so many looks have been taken."""
    looks = [0]
    look = Pauses.look

    def counted(self: Pauses) -> None:
        looks[0] += 1
        if looks[0] == number:
            press()
        look(self)

    with monkeypatch.context() as patched:
        patched.setattr(Pauses, "look", counted)
        yield looks


class Run:
    """A small classifier with everything that a step can move."""

    def __init__(self, backend: Any, **options: Any) -> None:
        gp.manual_seed(2)
        self.model = nn.Sequential(
            nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.2, gp.Generator(4)), nn.Linear(5, 3)
        )
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.02)
        self.schedule = optim.lr_scheduler.OneCycleLR(self.optimizer, 0.05, total_steps=100)
        self.average = optim.EMA(self.model.parameters(), decay=0.9)
        loss = nn.CrossEntropyLoss()
        self.step = gp.compile_step(
            lambda x, y: loss(self.model(x), y),
            self.optimizer,
            backend=backend,
            scheduler=self.schedule,
            ema=self.average,
            seed=3,
            **options,
        )

    def state(self) -> list[Any]:
        written = self.step.written_slots()  # the column counts from the start of a run
        slots = [slot.value.copy() for slot in written if slot.name != "schedule.column"]
        return [*slots, *self.average.averages, np.array(self.schedule.last_epoch)]

    def assert_equal(self, other: Run) -> None:
        for mine, theirs in zip(self.state(), other.state(), strict=True):
            assert_same(mine, theirs)


ORDERS = np.stack([np.random.default_rng(i).permutation(50) for i in range(EPOCHS)])


@cache
def _uninterrupted(backend: Any, accumulate: int) -> tuple[Any, list[Any]]:
    """Losses, and the state in the end."""
    run = Run(backend, accumulate=accumulate)
    losses = run.step.run(X, Y, batch_size=BATCH, order=ORDERS, flush=False)
    return losses, run.state()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("number", [1, 5, 17])
def test_a_run_ends_with_whole_steps(
    backend: Any, number: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, state = _uninterrupted(backend, accumulate)
    cut = Run(backend, accumulate=accumulate)
    with pressed_at(monkeypatch, number), pytest.raises(KeyboardInterrupt):
        cut.step.run(X, Y, batch_size=BATCH, order=ORDERS, flush=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    found = cut.step.losses
    done = len(found)
    assert 0 < done < len(losses) == EPOCHS * STEPS
    assert_same(found, losses[:done])
    assert int(cut.optimizer.step_count.value) == done // accumulate == cut.schedule.last_epoch
    assert cut.step.pending == done % accumulate
    # By hand from here: the end is the same, bit for bit.
    rest = [ORDERS[i // STEPS][i % STEPS * BATCH :][:BATCH] for i in range(done, len(losses))]
    assert_same(np.array([cut.step(X[rows], Y[rows]) for rows in rest]), losses[done:])
    assert_same(cut.step.losses, losses[:done])
    for mine, theirs in zip(cut.state(), state, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("number", [1, 4, 9, 16])
def test_the_stream_of_orders_stands_behind_the_epochs_that_were_begun(
    backend: Any, number: int, progress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(backend)
    told: list[int] = []
    more = {"progress": lambda done, epochs: told.append(done)} if progress else {}
    with pressed_at(monkeypatch, number), pytest.raises(KeyboardInterrupt):
        run.step.run(X, Y, batch_size=BATCH, epochs=EPOCHS, **more)
    done = len(run.step.losses)
    begun = -(-done // STEPS)
    stream = np.random.default_rng(3)
    orders = [stream.permutation(50) for _ in range(begun)]
    assert run.step.state_dict()["rng"] == stream.bit_generator.state
    assert len(told) in ((0,) if not progress else (done // STEPS, done // STEPS - 1))
    twin = Run(backend)
    for i in range(done):
        rows = orders[i // STEPS][i % STEPS * BATCH :][:BATCH]
        assert_same(twin.step(X[rows], Y[rows]), run.step.losses[i])
    run.assert_equal(twin)


def test_what_progress_raises_leaves_a_run_as_ctrl_c_does(backend: Any) -> None:
    run, twin = Run(backend), Run(backend)

    def stop(done: int, epochs: int) -> None:
        if done == 2:
            raise StopIteration

    with pytest.raises(StopIteration):
        run.step.run(X, Y, batch_size=BATCH, epochs=EPOCHS, progress=stop)
    assert_same(run.step.losses, twin.step.run(X, Y, batch_size=BATCH, epochs=2))
    run.assert_equal(twin)
    assert_same(
        run.step.run(X, Y, batch_size=BATCH), twin.step.run(X, Y, batch_size=BATCH)
    )  # the same next order


def test_a_run_that_is_refused_has_drawn_no_order(backend: Any) -> None:
    """However many epochs were asked for."""
    run, stream = Run(backend), np.random.default_rng(3)
    for data, options in (
        ((X, np.full(50, 7)), {}),
        ((np.full_like(X, np.nan), Y), {"epochs": 3}),
        ((X, Y), {"batch_size": 51}),
    ):
        with pytest.raises(ValueError, match=r"label|holds nan|batch_size is 51"):
            run.step.run(*data, **{"batch_size": BATCH, "epochs": len(options) + 1, **options})
        assert run.step.state_dict()["rng"] == stream.bit_generator.state
    assert len(run.step.losses) == 0


def test_progress_is_interrupted_at_once(backend: Any) -> None:
    run, after = Run(backend), []

    def slow(done: int, epochs: int) -> None:
        press()
        after.append(sum(range(1000)))

    with pytest.raises(KeyboardInterrupt):
        run.step.run(X, Y, batch_size=BATCH, epochs=EPOCHS, progress=slow)
    assert not after
    assert len(run.step.losses) == STEPS


def test_a_handler_that_does_not_raise_lets_the_run_go_on(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        whole, cut = Run(backend), Run(backend)
        losses = whole.step.run(X, Y, batch_size=BATCH, epochs=2)
        with pressed_at(monkeypatch, 3):
            assert_same(cut.step.run(X, Y, batch_size=BATCH, epochs=2), losses)
        assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
    cut.assert_equal(whole)


def test_handlers_that_are_not_pythons_stay(backend: Any) -> None:
    run = Run(backend)
    for handler in (signal.SIG_IGN, signal.SIG_DFL):
        before = signal.signal(signal.SIGINT, handler)
        try:
            run.step.run(X, Y, batch_size=BATCH)
            assert signal.getsignal(signal.SIGINT) is handler
        finally:
            signal.signal(signal.SIGINT, before)


def test_a_custom_op_is_not_left_in_the_middle(backend: Any) -> None:
    """Ctrl-C while the user's Python runs inside of a step: the step ends first."""
    calls = [0]

    def forward(x: Any) -> Any:
        calls[0] += 1
        if calls[0] == 10:
            press()
            time.sleep(0)  # where Python would raise
        return x * 2.0

    op = gp.custom_op("pressing", forward, vjp=lambda g, y, x: g * 2.0)
    model = nn.Linear(6, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    step = gp.compile_step(
        lambda x, y: nn.CrossEntropyLoss()(model(op(x)), y), optimizer, backend=backend
    )
    with pytest.raises(KeyboardInterrupt):
        step.run(X, Y, batch_size=BATCH, epochs=EPOCHS, shuffle=False)
    assert calls[0] == len(step.losses) in (10, 11)


def test_another_thread_has_no_handlers(backend: Any) -> None:
    run, twin = Run(backend), Run(backend)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(run.step.run(X, Y, batch_size=BATCH)))
    thread.start()
    thread.join(60)
    assert_same(found[0], twin.step.run(X, Y, batch_size=BATCH))


def test_a_long_run_is_left_soon() -> None:
    """No fake: some thirty seconds of steps, and Ctrl-C after a fraction of one."""
    gp.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = optim.Adam(model.parameters())
    step = gp.compile_step(lambda x, y: nn.CrossEntropyLoss()(model(x), y), optimizer)
    x, y = RNG.normal(size=(4096, 128)).astype(np.float32), RNG.integers(0, 10, 4096)
    step.run(x, y, batch_size=64)  # compiled, and the workers are awake
    start = time.perf_counter()
    step.run(x, y, batch_size=64)
    epochs = 2 + int(30 / (time.perf_counter() - start))
    timer = threading.Timer(0.2, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        step.run(x, y, batch_size=64, epochs=epochs)
        pytest.fail("Ctrl-C was heard too late")
    timer.join()
    assert 0 < len(step.losses) < 64 * epochs / 2
    assert int(optimizer.step_count.value) == 2 * 64 + len(step.losses)


@pytest.mark.parametrize("number", [1, 3, 6, 7, 9])
def test_fit_goes_on_where_ctrl_c_left_it(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    x, y = points.points()
    options = {"epochs": 3, "batch_size": 16, "verbose": False, "validation_data": (x[:9], y[:9])}
    whole = points.trainer()
    whole.fit(x, y, **options)
    path = tmp_path / "run.ckpt"
    made = points.trainer()
    with pressed_at(monkeypatch, number):
        made.fit(x, y, **options, checkpoint=path)
    assert made.stop_reason == "interrupted"
    looks = 7  # an epoch: after each of six steps, and at the end
    assert made.epoch == (number - 1) // looks
    assert made.position == min(16 * ((number - 1) % looks + 1), 90)
    assert made.history.records[-1]["epoch"] == pytest.approx(made.epoch + made.position / 90)
    resumed = points.trainer()
    resumed.fit(x, y, **options, resume=path)
    points.assert_same(resumed, whole)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_fit_leaves_a_measurement_and_makes_it_when_it_goes_on(epoch: int, tmp_path: Any) -> None:
    x, y = points.points()
    calls = [0]

    def right(targets: Any, outputs: Any) -> float:
        calls[0] += 1
        if calls[0] == 2 * epoch:  # of training data, then of those held out
            press()
            time.sleep(0)
        return float(np.mean(outputs.argmax(axis=1) == targets))

    def fitted(**more: Any) -> Any:
        made = points.trainer()
        watch = EarlyStopping("val_right", patience=50)
        made.fit(x, y, epochs=3, batch_size=16, verbose=False, metrics=[right],
                 validation_split=0.2, callbacks=[watch], **more)  # fmt: skip
        return made

    path = tmp_path / "run.ckpt"
    calls[0] = 100
    whole = fitted()
    calls[0] = 0
    made = fitted(checkpoint=path)
    assert (made.stop_reason, made.epoch, made.position) == ("interrupted", epoch - 1, 72)
    assert made.history.records[-1].keys() == {"epoch", "loss"}
    assert made.model.training
    calls[0] = 100
    points.assert_same(fitted(resume=path), whole)


def test_predictions_and_evaluations_are_left_between_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = points.trainer()
    x, y = points.points()
    seen = [0]

    def forward(z: Any) -> Any:
        seen[0] += 1
        if seen[0] == 2:
            press()
        return z

    op = gp.custom_op("watching", forward)
    layer = made.model[0]
    monkeypatch.setattr(layer, "forward", lambda z: op(ops.matmul(z, layer.weight.T) + layer.bias))
    monkeypatch.setattr("gpubp.train.evaluation.BATCH", 10)
    for work in (lambda: made.predict(x, batch_size=10), lambda: made.evaluate(x, y)):
        seen[0] = 0
        with pytest.raises(KeyboardInterrupt):
            work()
        assert seen[0] == 2
        assert made.model.training


@pytest.mark.parametrize("steps", [0, 2])
def test_an_epoch_left_in_its_last_chunk_is_not_over(
    steps: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk was to be the whole epoch, and Ctrl-C came before its end, or its beginning."""

    def trainer() -> Any:
        gp.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = optim.Adam(model.parameters())
        return gp.train.Trainer(model, nn.CrossEntropyLoss(), optimizer, backend="numpy")

    plan: dict[str, Any] = {"epochs": 3, "batch_size": BATCH, "verbose": False}
    expected = trainer()
    expected.fit(X, Y, **plan)
    left, calls, file = trainer(), [0], tmp_path / "run.ckpt"
    run = left.step.run

    def interrupted(*arrays: Any, order: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] != 2:
            return run(*arrays, order=order, **options)
        if steps:
            run(*arrays, order=order[: steps * BATCH], **options)
        press()

    monkeypatch.setattr(left.step, "run", interrupted)
    left.fit(X, Y, checkpoint=file, **plan)
    assert (left.stop_reason, left.epoch, left.steps) == ("interrupted", 1, STEPS + steps)
    resumed = trainer()
    resumed.fit(X, Y, resume=file, **plan)
    for name, value in expected.model.state_dict().items():
        assert_same(resumed.model.state_dict()[name], value)
