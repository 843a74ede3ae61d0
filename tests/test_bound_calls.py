"""Repeated calls at their limits: large batches, many shapes, errors of custom ops, threads."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from registered import BACKENDS
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends import numba_cpu
from gpubp.errors import DataError
from gpubp.runtime import bound_call as single


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_arguments_stay_where_they_are(backend: str) -> None:
    """Calls with arrays that lie here and there, whole and sliced, are steps of one run."""
    x, y = digits(samples=900)
    assert x[:300].nbytes > single.COPIED_BYTES > y[:300].nbytes
    model = mlp()
    step = classifier_step(OPTIMIZERS["adam"], model, backend=backend)
    whole = step.run(x, y, batch_size=300, shuffle=False, epochs=2)
    wanted = [whole, *model.state_dict().values()]
    model = mlp()
    step = classifier_step(OPTIMIZERS["adam"], model, backend=backend)
    wide = np.zeros((900, 100), np.float32)
    wide[:, :64] = x
    losses = []
    for turn in range(2):
        for start in (0, 300, 600):
            batch = x[start : start + 300] if (start + turn) % 2 else wide[start : start + 300, :64]
            batch = batch.copy() if start == 600 else batch
            losses.append(step(batch, y[start : start + 300]))
            assert len(step._singles._known) == 1
    for found, value in zip([np.array(losses), *model.state_dict().values()], wanted, strict=True):
        assert_same(found, value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_arguments_are_not_kept_alive(backend: str) -> None:
    """Not even until the next garbage collection: they may be gigabytes."""
    fn = gp.compile(lambda x: ops.sum(x * 2.0), backend=backend)
    gc.disable()
    try:
        for turn in range(3):
            x = np.full((100, 100), turn, np.float32)
            gone = weakref.ref(x)
            total = float(fn(x))
            del x
            assert gone() is None, turn
            assert total == 2e4 * turn
    finally:
        gc.enable()


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_of_a_large_batch_are_looked_at_where_they_are(backend: str) -> None:
    table = np.arange(10, dtype=np.float32)
    big = np.tile(np.arange(10), 1500)
    fn = gp.compile(lambda t, y: ops.sum(ops.gather(t, y)), backend=backend)
    assert big.nbytes > single.COPIED_BYTES
    for _ in range(2):
        assert fn(table, big) == 45 * 1500
        with pytest.raises(DataError, match="10"):
            fn(table, np.where(np.arange(big.size) == 7777, 10, big))
    assert fn(table, big[::-1]) == 45 * 1500
    assert len(fn._singles._known) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_results_are_not_kept(backend: str) -> None:
    fn = gp.compile(lambda x: x + 1.0, backend=backend)
    for side in (16, 300):
        x = np.ones((side, side), np.float32)
        for _ in range(2):
            first, second = fn(x), fn(2.0 * x)
            assert (first == 2.0).all()
            assert (second == 3.0).all()
    assert len(fn._singles._known) == 1
    assert single.MAX_OUTPUT_BYTES < 300 * 300 * 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_shapes_than_are_kept(backend: str) -> None:
    fn = gp.compile(lambda x: (x * 3.0, ops.sum(x)), backend=backend)
    sizes = list(range(1, 2 * single.MAX_KEPT + 4))
    for turn in range(3):
        for n in sizes if turn != 1 else sizes[::-1]:
            x = np.arange(n, dtype=np.float64) + turn
            triple, total = fn(x)
            assert_same(triple, x * 3.0)
            assert_same(total, np.sum(x))
            assert 1 <= len(fn._singles._known) <= single.MAX_KEPT


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_an_interrupted_call_was_given_is_forgotten(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fn = gp.compile(lambda x: ops.sum(x * 2.0), backend=backend)
    x = np.ones((100, 100), np.float32)
    assert fn(x) == fn(x) == 2e4
    (one,) = fn._singles._known.values()
    run = one._run

    def interrupted(moved: Any) -> None:
        run(moved)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(one, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fn(5.0 * x)
    assert fn(3.0 * x) == 6e4
    assert fn(np.broadcast_to(np.float32(4.0), (100, 100))) == 8e4


def test_a_status_that_nobody_read_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the native call, before what it reported is raised."""
    op = _raising(10.0)
    fn = gp.compile(lambda x: op(x) + 1.0, backend="numba")
    good, bad = np.ones(3, np.float32), np.full(3, 11.0, np.float32)
    assert_same(fn(good), np.full(3, 3.0, np.float32))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(numba_cpu, "_finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fn(bad)
    assert_same(fn(good), np.full(3, 3.0, np.float32))


@pytest.mark.parametrize("workers", [1, 2])
def test_parameters_as_arguments_are_read_as_they_were(workers: int) -> None:
    """The batch is the memory that the step updates."""
    results = []
    for copied in (True, False):
        gp.manual_seed(1)
        model = nn.Linear(96, 96)
        loss = nn.MSELoss()
        step = gp.compile_step(
            lambda x, model=model, loss=loss: loss(model(x), x),
            optim.SGD(model.parameters(), lr=0.5),
            backend=numba_cpu.NumbaBackend(workers=workers),
        )
        weight = model.weight.value
        assert weight.nbytes > single.COPIED_BYTES
        losses = [step(weight.copy() if copied else weight) for _ in range(4)]
        results.append([np.array(losses), *model.state_dict().values()])
    for found, wanted in zip(*results, strict=True):
        assert_same(found, wanted)


def test_a_custom_op_cannot_write_to_what_it_was_given() -> None:
    def forward(x: Any) -> Any:
        x *= 2
        return x

    doubled = ops.custom_op("doubled", forward)
    fn = gp.compile(lambda x: doubled(x), backend="numba")
    x = np.ones((100, 100), np.float32)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            fn(x)
    assert (x == 1.0).all()


def _raising(limit: float) -> Any:
    def forward(x: Any) -> Any:
        if x.max() > limit:
            raise ValueError(f"{x.max():.0f} is too much")
        return x * 2

    return ops.custom_op("raising", forward, vjp=lambda g, y, x: g * 2.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_custom_op_raises_comes_out_of_the_call(backend: str) -> None:
    op = _raising(10.0)
    fn = gp.compile(lambda x: op(x) + 1.0, backend=backend)
    good, bad = np.ones(3, np.float32), np.full(3, 11.0, np.float32)
    for _ in range(3):
        assert_same(fn(good), np.full(3, 3.0, np.float32))
        with pytest.raises(ValueError, match="11 is too much"):
            fn(bad)
    assert_same(fn(good), np.full(3, 3.0, np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_goes_on_after_a_custom_op_has_raised(backend: str) -> None:
    op = _raising(10.0)
    model = nn.Linear(3, 1)
    step = gp.compile_step(
        lambda x: ops.sum(op(x) * model(x)), optim.SGD(model.parameters()), backend=backend
    )
    good, bad = np.ones((2, 3), np.float32), np.full((2, 3), 11.0, np.float32)
    for _ in range(3):
        before = float(step(good))
        with pytest.raises(ValueError, match="11 is too much"):
            step(bad)
        assert np.isfinite(before)
    model.load_state_dict({"weight": np.ones((1, 3), np.float32), "bias": np.zeros(1, np.float32)})
    assert step(good) == 36.0


def _in_threads(work: Any, count: int) -> list[Any]:
    """What `work(i)` returns in threads that start together."""
    gate, results = threading.Barrier(count), [None] * count

    def run(i: int) -> None:
        gate.wait()
        results[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    return results


@pytest.mark.parametrize("bound", [True, False])
def test_two_threads_call_one_step(bound: bool) -> None:
    """With one batch the order of calls does not matter, but two at once would."""
    x, y = digits(samples=32 if bound else 1100)
    models = [mlp(), mlp()]
    steps = [classifier_step(OPTIMIZERS["adam"], model) for model in models]
    calls = 200 if bound else 20
    together = _in_threads(lambda i: [steps[0](x, y) for _ in range(calls)], 2)
    alone = [steps[1](x, y) for _ in range(2 * calls)]
    assert sorted(together[0] + together[1], reverse=True) == sorted(alone, reverse=True)
    for found, wanted in zip(*(m.state_dict().values() for m in models), strict=True):
        assert_same(found, wanted)


def test_threads_call_one_function_with_data_of_their_own() -> None:
    fn = gp.compile(lambda x: (x @ x.T, x + 1.0), backend="numba")

    def work(i: int) -> bool:
        good = True
        for turn in range(300):
            x = np.full((4, 1 + turn % 3), i, np.float32)
            square, more = fn(x)
            good = good and bool((square == i * i * x.shape[1]).all() and (more == i + 1).all())
        return good

    assert _in_threads(work, 3) == [True] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_slots_that_are_written_between_calls_are_read(backend: str) -> None:
    model = nn.Linear(2, 1)
    predict = gp.compile(model, backend=backend)
    x = np.ones((1, 2), np.float32)
    for value in (1.0, 2.0, 3.0):
        model.load_state_dict(
            {"weight": np.full((1, 2), value, np.float32), "bias": np.zeros(1, np.float32)}
        )
        assert predict(x)[0, 0] == 2 * value
    model.weight.value[...] = 5.0
    assert predict(x)[0, 0] == 10.0
