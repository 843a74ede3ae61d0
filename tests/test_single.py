"""Calls that repeat: bound once, equal to whole runs bit for bit, safe when something changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.errors import DataError, IndexRangeError


def _everything(model: Any, optimizer: Any) -> list[np.ndarray]:
    """Copies of parameters, optimiser state and step count."""
    state = [np.array(a) for s in optimizer.state_dict()["state"].values() for a in s.values()]
    count = np.array(optimizer.step_count.value)
    return [*(v.copy() for v in model.state_dict().values()), *state, count]


def _assert_same_all(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert_same(a, b, str(i))


def _trained_step(backend: Any = "numba", dtype: str = "float32") -> tuple[Any, Any, Any]:
    model = mlp(dtype=dtype)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    step = classifier_step(lambda params: optimizer, model, backend=backend)
    return model, optimizer, step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("workers", [1, 3, None])
def test_calls_are_a_run(workers: int | None, dtype: str) -> None:
    x, y = digits(dtype, 96)
    results = []
    for whole in (True, False):
        model, optimizer, step = _trained_step(NumbaBackend(workers=workers), dtype)
        if whole:
            losses = step.run(x, y, batch_size=32, shuffle=False, epochs=3)
        else:
            losses = [step(x[i : i + 32], y[i : i + 32]) for i in (0, 32, 64) * 3]
            assert len(step._singles._known) == 1
        results.append([np.array(losses), *_everything(model, optimizer)])
    _assert_same_all(*results)


def _forms(x: np.ndarray) -> list[Any]:
    """The same numbers as arrays of several types, shapes and layouts."""
    wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
    wide[:, ::2] = x
    return [
        x,
        np.asfortranarray(x),
        wide[:, ::2],
        x[::-1].copy()[::-1],
        x.astype(np.float64),
        x.tolist(),
        x[:7],
        x[:7].astype(np.float16),
        x,
        np.ma.masked_array(x),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_may_change_between_calls(backend: str) -> None:
    x, y = digits()
    labels = [y, y.astype(np.int32), y.astype(np.uint8), y.tolist(), y[::-1].copy()[::-1]]
    model, optimizer, step = _trained_step(backend)
    twin_model, twin_optimizer, twin = _trained_step(backend)
    for form in _forms(x) * 2:
        for label in labels:
            count = len(form)
            wanted = twin.run(form, label[:count], batch_size=count, shuffle=False)
            assert_same(step(form, label[:count]), wanted[0])
    _assert_same_all(_everything(model, optimizer), _everything(twin_model, twin_optimizer))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_functions_are_what_a_first_call_gives(backend: str) -> None:
    def fn(x: Any, y: Any) -> Any:
        return {"sum": ops.sum(x * y), "pair": (x + y, ops.tanh(x) @ y.T)}

    rng = np.random.default_rng(0)
    loaded = gp.compile(fn, backend=backend)
    for shape in ((3, 4), (3, 4), (5, 2), (3, 4), (1, 1), (0, 3), (0, 3)):
        for dtype in (np.float32, np.float64, np.int64):
            x, y = (rng.normal(scale=9, size=shape).astype(dtype) for _ in range(2))
            for a, b in ((x, y), (np.asfortranarray(x), y), (x, x), (y[::-1], x)):
                found, wanted = loaded(a, b), gp.compile(fn, backend=backend)(a, b)
                assert_same(found["sum"], wanted["sum"])
                _assert_same_all([*found["pair"]], [*wanted["pair"]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_are_not_overwritten_by_later_calls(backend: str) -> None:
    double = gp.compile(lambda x: (x * 2.0, x), backend=backend)
    data = [np.full((2, 3), i, np.float32) for i in range(5)]
    results = [double(x) for x in data]
    for i, (twice, same) in enumerate(results):
        assert_same(twice, np.full((2, 3), 2 * i, np.float32))
        assert_same(same, np.full((2, 3), i, np.float32))
        twice[...] = -1.0  # nor is a result tied to what the next call reads
    assert_same(double(data[3])[0], np.full((2, 3), 6, np.float32))
    for i, x in enumerate(data):
        assert_same(x, np.full((2, 3), i, np.float32))
    x, y = digits()
    _, _, step = _trained_step(backend)
    losses = [step(x, y) for _ in range(4)]
    assert len({float(loss) for loss in losses}) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_learning_rate_takes_effect_at_the_next_call(backend: str) -> None:
    x, y = digits()
    results = []
    for many in (False, True):
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        step = classifier_step(lambda p, o=optimizer: o, model, backend=backend)
        for lr in (0.1, 0.1, 0.01, 0.0, 0.3):
            optimizer.param_groups[0]["lr"] = lr
            before = model.state_dict()["0.weight"].copy()
            if many:
                step.run(x, y, batch_size=len(x), shuffle=False)
            else:
                step(x, y)
            assert np.array_equal(before, model.state_dict()["0.weight"]) == (lr == 0.0)
        results.append(_everything(model, optimizer))
    _assert_same_all(*results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_train_and_eval_take_effect_at_the_next_call(backend: str) -> None:
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5))
    predict = gp.compile(model, backend=backend)
    x = np.ones((8, 4), np.float32)
    for _ in range(3):
        model.eval()
        whole = [predict(x) for _ in range(3)]
        assert np.count_nonzero(whole[2]) == whole[2].size
        assert_same(whole[2], whole[0])
        model.train()
        dropped = [predict(x) for _ in range(3)]
        for found in dropped:
            assert 0 < np.count_nonzero(found) < found.size
            kept = found != 0
            assert_close(found[kept], 2 * whole[0][kept])
        assert not np.array_equal(dropped[1], dropped[2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("label", [10, -1, np.iinfo(np.int32).max, np.iinfo(np.int32).min])
def test_labels_out_of_range_change_nothing(backend: str, kind: Any, label: int) -> None:
    x, y = digits()
    y = y.astype(kind)
    model, optimizer, step = _trained_step(backend)
    bad = y.copy()
    bad[[7, 20]] = label
    message = (
        f"argument 1 holds {label} at index (7,); as a class label or index it must be 0 to 9."
    )
    for calls in range(3):
        before = _everything(model, optimizer)
        with pytest.raises(IndexRangeError) as caught:
            step(x, bad)
        assert str(caught.value) == message
        _assert_same_all(_everything(model, optimizer), before)
        with pytest.raises(IndexRangeError) as caught:
            step.run(x, bad, batch_size=16, epochs=2, shuffle=False)
        assert str(caught.value) == message
        _assert_same_all(_everything(model, optimizer), before)
        step(x, y)
        assert optimizer.step_count.value == calls + 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_runs_refuse_numbers_that_are_not_finite(backend: str, dtype: str, value: float) -> None:
    x, y = digits(dtype)
    model, optimizer, step = _trained_step(backend, dtype)
    for place in ((0, 0), (31, 63), (17, 5)):
        bad = x.copy()
        bad[place] = value
        before = _everything(model, optimizer)
        with pytest.raises(DataError) as caught:
            step.run(bad, y, batch_size=8)
        assert str(caught.value) == f"argument 0 holds {value} at index {place}."
        _assert_same_all(_everything(model, optimizer), before)
        step.run(x, y, batch_size=8)
    largest = x.copy()
    largest[0, 0] = np.finfo(dtype).max
    step.run(largest, y, batch_size=32)  # large is not infinite
