"""Data that stay on the host go to the device in chunks: the same bits as resident data.

With kernels and copies as far from the written order as the rules allow; and with each wait left
out in turn, which must be seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from numpy.typing import NDArray
from shim_driver import ShimDriver
from shim_streams import WAYS, Copy, Mark
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend, chunks
from gpubp.backends.cuda.drivers.base import Event
from gpubp.backends.cuda.transfers import ARGUMENT_BYTES, RESULT_BYTES
from gpubp.errors import DataError, IndexRangeError

pytestmark = pytest.mark.full

shim = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
SAMPLES = 250
BYTES_A_SAMPLE = 64 * 4 + 8


class Counting(ShimDriver):
    """Counts uploads beside the kernels."""

    uploads = 0

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Copy:
        self.uploads += 1
        return super().start_upload(target, array, after)


def trained(backend: CupyBackend, data: Any = None, **options: Any) -> dict[str, Any]:
    model = mlp()
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    made: dict[str, Any] = {"accumulate": options.pop("accumulate", 1)}
    if options.pop("schedule", False):
        made["scheduler"] = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
        made["scheduler"].table.capacity = 5
    step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer, backend=backend, **made)
    x, y = data or digits(samples=SAMPLES)
    losses = step.run(x, y, **{"batch_size": 16, "seed": 4, **options})
    return {"losses": losses, **model.state_dict()}


def digits_head() -> tuple[Any, Any]:
    """The rows that are read, alone: resident in any case."""
    x, y = digits(samples=SAMPLES)
    return x[:60].copy(), y[:60].copy()


def in_chunks(resident_bytes: int, driver: ShimDriver | None = None) -> CupyBackend:
    return CupyBackend(driver=driver or Counting(), resident_bytes=resident_bytes)


RUNS: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 3},
    "whole batches only": {"drop_last": True, "epochs": 2},
    "in order": {"shuffle": False},
    "rows twice": {"order": np.array([5, 5, 0, 149, 3] * 20)},
    "large batches": {"batch_size": 128},
    "a schedule": {"epochs": 2, "schedule": True},
    "accumulated": {"epochs": 2, "accumulate": 3},
}


@shim
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RUNS)
def test_chunks_give_the_bits_of_resident_data(name: str, way: str) -> None:
    expected = trained(CupyBackend(driver=ShimDriver()), **RUNS[name])
    for resident_bytes in (0, 4 * 40 * BYTES_A_SAMPLE):  # a step at a time; two or three
        driver = Counting(copies=way)
        found = trained(in_chunks(resident_bytes, driver), **RUNS[name])
        assert driver.uploads >= 4
        for key, value in expected.items():
            assert_same(found[key], value, key)


@shim
def test_data_that_do_not_fit_are_cut_by_themselves(tmp_path: Path) -> None:
    """A device with less memory than the data; the data are mapped from a file."""
    x, y = digits(samples=5000)
    assert x.nbytes > chunks.SMALL_BYTES
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = trained(CupyBackend(driver=ShimDriver()), (x, y))
    small = Counting(memory=900_000 + ARGUMENT_BYTES + RESULT_BYTES)
    assert x.nbytes > 900_000
    found = trained(CupyBackend(driver=small), (mapped, y))
    assert small.uploads > 2
    for key, value in expected.items():
        assert_same(found[key], value, key)
    fits = Counting(memory=4_000_000)
    trained(CupyBackend(driver=fits), (x, y))
    assert fits.uploads == 0


@shim
def test_a_run_on_few_rows_uploads_only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `Trainer.fit` does, which looks around several times an epoch."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 30 * BYTES_A_SAMPLE)
    monkeypatch.setattr(chunks, "SMALL_BYTES", 0)
    few = {"order": np.arange(60), "batch_size": 20}
    expected = trained(CupyBackend(driver=ShimDriver()), digits_head(), **few)
    driver = Counting()
    found = trained(CupyBackend(driver=driver), **few)
    assert driver.uploads == 2 * 3  # x and y of three chunks
    for key, value in expected.items():
        assert_same(found[key], value, key)
    most = Counting()
    trained(CupyBackend(driver=most), order=np.arange(130), batch_size=20)
    assert most.uploads == 0


@shim
@pytest.mark.parametrize("way", WAYS)
def test_predictions_in_chunks_are_those_of_resident_data(way: str) -> None:
    x, _ = digits(samples=SAMPLES)
    model, found = mlp(), []
    for backend in (CupyBackend(driver=ShimDriver()), in_chunks(0, Counting(copies=way))):
        made = OPTIMIZERS["sgd"](model.parameters())
        trainer = gp.Trainer(model, nn.CrossEntropyLoss(), made, backend=backend)
        found.append(trainer.predict(x, 32))
    assert_same(found[1], found[0])


@shim
def test_several_runs_use_the_same_buffers() -> None:
    driver = Counting()
    step = classifier_step(OPTIMIZERS["sgd"], backend=in_chunks(0, driver))
    x, y = digits(samples=64)
    step.run(x, y, batch_size=16)
    before = driver.used
    for _ in range(3):
        step.run(x, y, batch_size=16)
    assert driver.used == before
    step.run(*digits(samples=64), batch_size=64)  # a larger one replaces it
    assert driver.used > before


@shim
def test_bad_data_are_found_before_any_work() -> None:
    x, y = digits(samples=SAMPLES)
    bad_x, bad_y = x.copy(), y.copy()
    bad_x[140, 3], bad_y[149] = np.nan, 10
    model = mlp()
    before = {k: v.copy() for k, v in model.state_dict().items()}
    step = classifier_step(OPTIMIZERS["sgd"], model, backend=in_chunks(0))
    with pytest.raises(DataError, match=r"argument 0 holds nan at index \(140, 3\)"):
        step.run(bad_x, y, batch_size=16)
    with pytest.raises(IndexRangeError, match=r"argument 1 holds 10 at index \(149,\)"):
        step.run(x, bad_y, batch_size=16)
    for key, value in model.state_dict().items():
        assert_same(value, before[key], key)


class NoWaitForCopies(Counting):
    """Steps start before their data are there."""

    def wait_event(self, event: Event) -> None:
        pass


class Careless(Copy):
    """A copy for which the host does not wait."""

    def wait(self) -> None:
        pass


class NoWaitForBuffers(Counting):
    """A pinned buffer is filled while it is still being copied."""

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Copy:
        copy = super().start_upload(target, array, after)
        copy.__class__ = Careless
        return copy

    def wait_event(self, event: Event) -> None:
        """Kernels wait as they should."""
        self.streams.do(lambda: self.streams.finish_copies(event))


class NoWaitForKernels(Counting):
    """A device buffer is overwritten while steps read it."""

    def start_upload(self, target: int, array: NDArray[Any], after: Event) -> Copy:
        return super().start_upload(target, array, Mark(self.streams, 0))  # done long ago


@shim
@pytest.mark.parametrize(
    ("faulty", "way"),
    [
        (NoWaitForCopies, "now"),
        (NoWaitForCopies, "late"),
        (NoWaitForBuffers, "late"),
        (NoWaitForKernels, "early"),
    ],
)
def test_a_missing_wait_is_seen(faulty: type[Counting], way: str) -> None:
    expected = trained(CupyBackend(driver=ShimDriver()), epochs=2)
    try:
        found = trained(in_chunks(0, faulty(copies=way)), epochs=2)
    except DataError as err:  # labels that are none
        assert "label is out of range" in str(err)
    else:
        assert not np.array_equal(found["losses"], expected["losses"])


@shim
def test_only_pinned_memory_is_copied_beside_the_kernels() -> None:
    class Pageable(Counting):
        def pinned(self, nbytes: int) -> NDArray[np.uint8]:
            return np.zeros(nbytes, np.uint8)

    with pytest.raises(gp.errors.BackendError, match="not pinned"):
        trained(in_chunks(0, Pageable()))


def test_chunks_cover_the_schedule_and_fit() -> None:
    rng = np.random.default_rng(0)
    for capacity in (0, 1, 7, 16, 40, 10_000):
        sizes = [16, 5]
        schedule = np.stack([rng.integers(0, 2, 30), rng.integers(0, 500, 30)], axis=1)
        order = rng.permutation(1000)
        cut = chunks.plan(schedule, sizes, capacity)
        assert [i for a, b in cut.bounds for i in range(a, b)] == list(range(30))
        for first, stop in cut.bounds:
            rows = order[cut.rows(first, stop)]
            assert stop == first + 1 or len(rows) <= capacity
            assert len(rows) <= cut.most
            for i in range(first, stop):
                size, here = sizes[schedule[i, 0]], cut.schedule[i, 1]
                wanted = order[schedule[i, 1] : schedule[i, 1] + size]
                assert_same(rows[here : here + size], wanted)


def test_sizes_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chunks.resident_bytes(None) is None and chunks.resident_bytes(7) == 7
    monkeypatch.setenv("GPUBP_RESIDENT_BYTES", "1000")
    assert chunks.resident_bytes(None) == 1000 and chunks.resident_bytes(7) == 7
    with pytest.raises(DataError, match="resident_bytes is -1"):
        chunks.resident_bytes(-1)
    monkeypatch.setenv("GPUBP_RESIDENT_BYTES", "1GB")
    with pytest.raises(DataError, match="'1GB', expected a number of bytes"):
        chunks.resident_bytes(None)


def of_several(backend: Any) -> dict[str, Any]:
    """A step of two inputs, indices into a table without samples, and another output."""
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=(70, n)).astype(np.float32) for n in (5, 3))
    table, index = rng.normal(size=(9, 5)).astype(np.float32), rng.integers(0, 9, 70)
    y = rng.normal(size=(70, 2)).astype(np.float32)
    gp.manual_seed(0)
    model = nn.Linear(8, 2)

    def fn(x: Any, y: Any) -> Any:
        rows = x["a"] + gp.ops.gather(x["table"], x["index"], 0) * x["beta"]
        z = model(gp.ops.concat([rows, x["b"]], 1))
        return gp.ops.mean(gp.ops.square(z - y)), gp.ops.mean(z, 0)

    x = {"a": a, "table": gp.whole(table), "b": b, "index": index, "beta": gp.whole(0.5)}
    step = gp.compile_step(fn, optim.SGD(model.parameters(), lr=0.1), backend=backend)
    losses, means = step.run(x, y, batch_size=16, epochs=2, seed=1)
    x["index"] = np.where(index == 3, 9, index)
    with pytest.raises(IndexRangeError, match=r"'index'.*holds 9"):
        step.run(x, y, batch_size=16)
    return {"losses": losses, "means": means, **model.state_dict()}


@shim
def test_whole_arrays_stay_where_they_are_beside_chunks() -> None:
    expected = of_several("numpy")
    resident = of_several(CupyBackend(driver=ShimDriver()))
    for key, value in expected.items():
        np.testing.assert_allclose(resident[key], value, rtol=1e-4, atol=1e-6)
    driver = Counting()
    found = of_several(in_chunks(0, driver))
    assert driver.uploads >= 4
    for key, value in resident.items():
        assert_same(found[key], value, key)
