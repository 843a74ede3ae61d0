"""What a run asks of the device, counted: launches, recordings, copies, waits. See docs/gpu.md."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import numpy as np
import pytest
from counting_driver import CountingDriver, Counts

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend, execution, stepping
from gpubp.backends.cuda.memory import MOST_SETS

SAMPLES, BATCH, EPOCHS = 1797, 200, 10  # scikit-learn's digits
STEP = 13  # kernels of a step of 64-100-10 with Adam


@pytest.fixture(autouse=True)
def _no_look_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that counts do not depend on how fast this machine is, and no proof runs beside."""
    monkeypatch.setattr(stepping, "LOOK_SECONDS", 1e9)
    monkeypatch.setenv("GPUBP_VERIFY", "0")


@pytest.fixture
def device() -> CountingDriver:
    return CountingDriver()


def data(samples: int = SAMPLES, features: int = 64) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(samples, features)).astype("f"), rng.integers(0, 10, samples)


def parts(*widths: int) -> tuple[Any, Any, Any]:
    layers: list[Any] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    return model, nn.CrossEntropyLoss(), optim.Adam(model.parameters())


def step_on(device: CountingDriver, *widths: int, **options: Any) -> Any:
    model, loss, optimizer = parts(*(widths or (64, 100, 10)))
    backend = CupyBackend(driver=device)
    return gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend, **options)


def run_once(device: CountingDriver, step: Any, arrays: Any, **options: Any) -> Counts:
    device.counts.take()
    step.run(*arrays, batch_size=BATCH, **options)
    return device.counts.take()


@pytest.mark.parametrize(("drop_last", "steps"), [(False, 9), (True, 8)])
def test_epochs_of_digits(device: CountingDriver, drop_last: bool, steps: int) -> None:
    """Kernel by kernel runs each program's first step alone; then an epoch is at most one launch.
    The data go to the device once, and each run costs one upload and one wait.
    """
    step, (x, y) = step_on(device), data()
    options = {"drop_last": drop_last, "epochs": EPOCHS}
    first = run_once(device, step, (x, y), **options)
    assert first.kernels == (1 if drop_last else 2) * STEP
    assert first.graphs <= 3 * EPOCHS and first.graphs <= 3 + EPOCHS
    assert first.kernels + first.nodes == EPOCHS * steps * STEP
    assert first.downloads == 1
    again = run_once(device, step, (x, y), checked=True, **options)
    assert again.kernels == 0 and again.recorded == []
    assert again.graphs <= EPOCHS and again.nodes == EPOCHS * steps * STEP
    orders = 8 * (EPOCHS * SAMPLES + 2 * EPOCHS * steps)
    assert again.uploads == 1 and again.uploaded < orders + 1024
    assert again.downloads == 1


def test_data_go_to_the_device_once(device: CountingDriver) -> None:
    x, y = data()
    step = step_on(device)
    step.prepare(x[:BATCH], y[:BATCH])
    step.run(x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False)
    nbytes = x.nbytes + y.nbytes
    for checked, sent in ((True, 0), (False, nbytes), (True, 0)):
        found = run_once(device, step, (x, y), checked=checked).uploaded
        assert sent <= found < sent + 20_000, "an order of 1,797 indices and a schedule beside"
    other = x.copy()
    assert run_once(device, step, (other, y), checked=True).uploaded > nbytes, "another array"
    assert run_once(device, step, (x, y), checked=True).uploaded < nbytes, "both are kept"


def test_a_schedule_that_looks_ahead_in_segments_uploads_its_data_once(
    device: CountingDriver,
) -> None:
    model, loss, optimizer = parts(64, 100, 10)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.99)
    scheduler.table.capacity = 2
    step = gp.compile_step(
        lambda x, y: loss(model(x), y),
        optimizer,
        scheduler=scheduler,
        backend=CupyBackend(driver=device),
    )
    x, y = data(BATCH * 5)
    step.prepare(x[:BATCH], y[:BATCH])
    found = run_once(device, step, (x, y))
    again = run_once(device, step, (x, y), checked=True)
    assert found.uploaded - again.uploaded < 2 * (x.nbytes + y.nbytes)
    assert again.uploaded < x.nbytes, "orders, schedules, and weights that the host has looked at"


def test_single_calls(device: CountingDriver) -> None:
    step, (x, y) = step_on(device), data(BATCH)
    step(x, y)
    step(x, y)
    device.counts.take()
    for _ in range(100):
        step(x, y)
    found = device.counts.take()
    assert (found.kernels, found.recorded) == (0, [])
    assert (found.graphs, found.uploads, found.downloads, found.waits) == (100,) * 4
    assert found.nodes == 100 * STEP


def test_fit_uploads_its_data_once(device: CountingDriver) -> None:
    model, loss, optimizer = parts(64, 100, 10)
    trainer = gp.Trainer(model, loss, optimizer, backend=CupyBackend(driver=device))
    x, y = data()
    device.counts.take()
    trainer.fit(x, y, epochs=EPOCHS, batch_size=BATCH, verbose=False)
    found = device.counts.take()
    weights = 3 * 4 * (65 * 100 + 101 * 10)
    orders = 8 * (EPOCHS * SAMPLES + 2 * EPOCHS * 9)
    assert found.uploaded < x.nbytes + y.nbytes + weights + orders + 10_000
    assert found.graphs <= 3 * EPOCHS and found.kernels == 2 * STEP
    assert found.waits <= 2 * EPOCHS


def test_graphs_of_rests_are_powers_of_two(device: CountingDriver) -> None:
    step, (x, y) = step_on(device), data(48 * 8)
    device.counts.take()
    step.run(x, y, batch_size=8)
    found = device.counts.take()
    assert [n // STEP for n in found.recorded] == [16, 8, 4, 2, 1]
    assert found.kernels == STEP and found.nodes == 47 * STEP and found.graphs == 6


def test_short_epochs_are_recorded_together(device: CountingDriver) -> None:
    step, (x, y) = step_on(device), data(300)
    run_once(device, step, (x, y), epochs=3)
    found = run_once(device, step, (x, y), epochs=21)
    assert found.recorded == [16 * STEP, 8 * STEP, 2 * STEP], "of eight epochs, of four, of one"
    assert found.graphs == 4 and found.kernels == 0


def test_long_epochs_are_not_recorded_as_one(device: CountingDriver) -> None:
    step, (x, y) = step_on(device), data(100 * 4 + 1)
    options = {"batch_size": 4, "epochs": 3}
    step.run(x, y, **options)
    device.counts.take()
    step.run(x, y, **options)
    found = device.counts.take()
    assert max(found.recorded, default=0) <= stepping.STEPS_A_GRAPH * STEP
    assert found.graphs == 3 * (6 + 1 + 1), "six of sixteen steps, one of four, the short one"


def test_accumulated_steps_are_recorded(device: CountingDriver) -> None:
    """Two programs take turns: three batches that add, one that updates."""
    step, (x, y) = step_on(device, accumulate=4), data(16 * 8)
    for epochs in (1, 5):
        device.counts.take()
        step.run(x, y, batch_size=8, epochs=epochs)
    found = device.counts.take()
    assert found.kernels == 0 and found.graphs == 5


def test_what_is_recorded_of_a_program_that_is_gone_is_not_launched(
    device: CountingDriver,
) -> None:
    step, (x, y) = step_on(device), data(300)
    step.run(x, y, batch_size=BATCH, epochs=3)
    (one,) = [r.loaded for r in step._runner.readies() if r.loaded.epochs]
    (key,) = one.epochs
    assert all(reference() is not None for reference in key[1:])
    readies = [r for r in step._runner.readies() if r.loaded is not one]
    for ready in readies:
        del ready.loaded
    del readies, ready
    gc.collect()
    assert any(reference() is None for reference in key[1:]), "recordings keep none alive"


def test_kept_data_are_let_go(device: CountingDriver) -> None:
    """With the host's arrays, or when there are too many."""
    step = step_on(device)
    resident = step.backend._transfers.resident
    arrays = [data(BATCH * 2) for _ in range(MOST_SETS + 2)]
    for pair in arrays:
        step.run(*pair, batch_size=BATCH)
    assert len(resident._sets) == MOST_SETS
    nbytes = arrays[0][0].nbytes + arrays[0][1].nbytes
    assert run_once(device, step, arrays[-1], checked=True).uploaded < nbytes
    assert run_once(device, step, arrays[0], checked=True).uploaded > nbytes, (
        "the oldest was let go"
    )
    del arrays, pair
    gc.collect()
    step.run(*data(BATCH * 2), batch_size=BATCH)
    assert len(resident._sets) == 1


@pytest.mark.parametrize(
    ("widths", "batch", "nodes", "nbytes", "floor"),
    [((64, 100, 10), 200, 13, 980_784, 16.9), ((784, 256, 128, 10), 128, 18, 9_400_208, 23.4)],
)
def test_nodes_and_bytes_of_a_step(
    device: CountingDriver,
    widths: tuple[int, ...],
    batch: int,
    nodes: int,
    nbytes: int,
    floor: float,
) -> None:
    """As docs/gpu.md lists them: kernels, what they move, what nodes alone cost in the model."""
    step, (x, y) = step_on(device, *widths), data(batch, widths[0])
    program = step.prepare(x, y)
    assert program.bytes_moved == nbytes
    step(x, y)
    step(x, y)
    assert device.counts.recorded[-1] == nodes
    assert nodes * execution.NODE_US == pytest.approx(floor)
