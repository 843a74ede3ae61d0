"""A loss is a sum and a count: what batches give together is what one batch of all would give."""

from __future__ import annotations

import math

import numpy as np
import pytest
from loss_cases import ALL, IGNORED, LOSSES, OWN, RNG, N, X, Y
from registered import BACKENDS, spread

from gpubp import nn, ops, optim
from gpubp.errors import DataError, ShapeError
from gpubp.nn.loss_base import weighing_samples
from gpubp.runtime.step import compile_step
from gpubp.runtime.totals import together
from gpubp.train import LRFinder, TerminateOnNaN, Trainer, evaluation


def _model():
    ops.manual_seed(0)
    return nn.Linear(5, 3, dtype="float64")


def _gradient(name, backend, batch_size, accumulate):
    """(the first update's gradients, the loss of the epoch, the losses)."""
    loss_fn, y = ALL[name]
    model = _model()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    step = compile_step(
        lambda a, b: loss_fn(model(a), b), optimizer, accumulate=accumulate, backend=backend
    )
    before = model.state_dict()
    losses = step.run(X, y, batch_size=batch_size, shuffle=False)
    after = model.state_dict()
    return {k: before[k] - after[k] for k in before}, together(step.totals), losses


@pytest.mark.parametrize(("name", "backend"), spread(ALL))
def test_accumulated_batches_are_one_batch(name, backend):
    expected, loss, (single,) = _gradient(name, backend, N, 1)
    assert loss == pytest.approx(single, rel=1e-12)
    for batch_size, accumulate in ((4, 6), (5, 5), (1, N)):
        found, epoch, _ = _gradient(name, backend, batch_size, accumulate)
        assert epoch == pytest.approx(single, rel=1e-9)
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[key], rtol=1e-9, atol=1e-12)


def _trainer(loss_fn, lr=1e-30, backend="numpy", **options):
    model = _model()
    return Trainer(model, loss_fn, optim.SGD(model.parameters(), lr=lr), backend=backend, **options)


@pytest.mark.parametrize(("name", "backend"), spread(ALL))
def test_evaluation_and_history_are_those_of_one_batch(name, backend, monkeypatch):
    loss_fn, y = ALL[name]
    expected = float(loss_fn(_model()(X), y))
    for size in (4, 22, 100):
        monkeypatch.setattr(evaluation, "BATCH", size)
        made = _trainer(loss_fn, backend=backend)
        assert made.evaluate(X, y)["loss"] == pytest.approx(expected, rel=1e-9)
    for batch_size in (4, 22):
        made = _trainer(loss_fn, backend=backend)
        history = made.fit(
            X, y, batch_size=batch_size, epochs=2, verbose=False, validation_data=(X, y)
        )
        assert history["loss"] == pytest.approx([expected, expected], rel=1e-9)
        assert history["val_loss"] == pytest.approx([expected, expected], rel=1e-9)


@pytest.mark.parametrize(("name", "backend"), spread([*LOSSES, "wrapped"]))
def test_sample_weights_of_one_change_nothing(name, backend):
    loss_fn, y = ALL[name]
    plain, weighted = (_trainer(loss_fn, 0.1, backend) for _ in range(2))
    ones = np.ones(N)
    for made, weights in ((plain, None), (weighted, ones)):
        made.fit(X, y, batch_size=5, verbose=False, sample_weight=weights)
    assert weighted.history["loss"] == pytest.approx(plain.history["loss"], rel=1e-9)
    np.testing.assert_allclose(weighted.predict(X), plain.predict(X), rtol=1e-9)
    expected = plain.evaluate(X, y)["loss"]
    assert plain.evaluate(X, y, sample_weight=ones)["loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_sample_weights_multiply_what_samples_cost_and_leave_counts(name):
    """The weighted loss is linear in the weights, and its parts are those of the samples."""
    loss_fn, y = LOSSES[name]
    w = RNG.uniform(0.0, 2.0, N)
    outputs = _model()(X)
    parts = []
    for i in range(N):
        with weighing_samples(np.eye(N)[i]):
            parts.append(float(loss_fn(outputs, y)))
    assert sum(parts) == pytest.approx(float(loss_fn(outputs, y)))
    found = _trainer(loss_fn).evaluate(X, y, sample_weight=w)["loss"]
    assert found == pytest.approx(w @ parts)


def test_weights_that_a_loss_would_not_use_are_refused():
    class Own(nn.CrossEntropyLoss):
        def forward(self, input, target):
            return ops.mean(ops.softmax_cross_entropy(input, target))

    with pytest.raises(DataError, match="no effect here"):
        _trainer(Own()).evaluate(X, Y, sample_weight=np.ones(N))
    with pytest.raises(DataError, match="does not take three arguments"):
        _trainer(lambda o, y: ops.mean(o)).evaluate(X, Y, sample_weight=np.ones(N))
    with pytest.raises(ShapeError, match="one for each of the weights"), weighing_samples(X[:, 0]):
        nn.MSELoss()(X[:4], X[:4])


# --- batches in which nothing counts ---

NOTHING = np.concatenate([np.full(8, -100), IGNORED[8:]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_in_which_nothing_counts_moves_nothing(backend, accumulate):
    model = _model()
    loss_fn = nn.CrossEntropyLoss(ignore_index=-100)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    step = compile_step(
        lambda a, b: loss_fn(model(a), b), optimizer, accumulate=accumulate, backend=backend
    )
    before = model.state_dict()
    losses = step.run(X[:8], NOTHING[:8], batch_size=4, shuffle=False)
    assert np.isnan(losses).all() and math.isnan(together(step.totals))
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    step.run(X, NOTHING, batch_size=4, shuffle=False)
    assert all(np.isfinite(v).all() for v in model.state_dict().values())
    single = step(X[:4], NOTHING[:4])  # as a call, too
    assert np.isnan(single)


@pytest.mark.parametrize("backend", BACKENDS)
def test_classes_of_weight_0_count_for_nothing(backend):
    model = _model()
    loss_fn = nn.CrossEntropyLoss(np.array([0.0, 1.0, 1.0]))
    step = compile_step(
        lambda a, b: loss_fn(model(a), b), optim.SGD(model.parameters(), lr=1.0), backend=backend
    )
    before = model.state_dict()
    step.run(X[:6], np.zeros(6, np.int64), batch_size=3)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_nan_of_a_batch_in_which_nothing_counts_ends_no_run():
    made = _trainer(nn.CrossEntropyLoss(ignore_index=-100), 0.1)
    history = made.fit(
        X, NOTHING, batch_size=4, shuffle=False, epochs=3, verbose=False,
        callbacks=[TerminateOnNaN()],
    )  # fmt: skip
    assert made.stop_reason is None
    assert np.isfinite(history["loss"]).all()
    worse = _trainer(nn.CrossEntropyLoss(ignore_index=-100), 1e308)
    worse.fit(
        X, NOTHING, batch_size=4, shuffle=False, epochs=3, verbose=False,
        callbacks=[TerminateOnNaN()],
    )  # fmt: skip
    assert "the loss was" in worse.stop_reason


def test_evaluation_where_nothing_counts_is_nan_as_torch_says():
    made = _trainer(nn.CrossEntropyLoss(ignore_index=-100))
    found = made.evaluate(X, np.full(N, -100))
    assert math.isnan(found["loss"]) and math.isnan(found["accuracy"])


def test_the_learning_rate_finder_passes_over_batches_in_which_nothing_counts():
    y = np.where(np.arange(N) < 12, -100, Y)
    finder = LRFinder(_trainer(nn.CrossEntropyLoss(ignore_index=-100), 0.1))
    finder.find(X, y, batch_size=2, steps=60)
    assert 20 < len(finder.losses) == len(finder.rates) < 60
    assert np.isfinite(finder.losses).all() and (np.diff(finder.rates) > 0).all()


# --- state ---


def test_sums_that_wait_go_on_from_a_state():
    """A loss of two counts and a sum, in the middle of a group."""
    loss_fn, y = OWN["all kinds"]

    def made():
        model = _model()
        step = compile_step(
            lambda a, b: loss_fn(model(a), b),
            optim.SGD(model.parameters(), lr=0.1),
            accumulate=3,
            backend="numpy",
        )
        return model, step

    whole, expected = made()
    for rows in np.split(np.arange(20), 5):
        expected(X[rows], y[rows])
    first, step = made()
    for rows in np.split(np.arange(20), 5)[:4]:
        step(X[rows], y[rows])
    second, resumed = made()
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(step.state_dict())
    assert resumed.pending == 1
    last = np.arange(16, 20)
    resumed(X[last], y[last])
    assert resumed.pending == expected.pending == 2
    for name, found in (("whole", whole), ("resumed", second)):
        for key, value in found.state_dict().items():
            np.testing.assert_array_equal(value, whole.state_dict()[key], err_msg=name)
    broken = step.state_dict()
    broken["accumulated"]["sums"].pop()
    with pytest.raises(DataError, match="sums of 7 gradients, expected 8"):
        resumed.load_state_dict(broken)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_epoch_has_the_loss_of_the_whole(tmp_path, stop):
    def fit(made, **options):
        made.fit(X, NOTHING, batch_size=4, epochs=2, verbose=False, **options)
        return made.history["loss"]

    loss_fn = nn.CrossEntropyLoss(ignore_index=-100)
    expected = fit(_trainer(loss_fn, 0.1, accumulate=2))
    path = tmp_path / "run.ckpt"
    fit(_trainer(loss_fn, 0.1, accumulate=2), max_steps=stop, checkpoint=path)
    assert fit(_trainer(loss_fn, 0.1, accumulate=2), resume=path) == expected


# --- what is not touched ---


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_mean_over_samples_costs_nothing_more(accumulate):
    """The program is the one of the same loss written in plain ops."""

    def program(loss):
        model = _model()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        step = compile_step(
            lambda a, b: loss(model(a), b), optimizer, accumulate=accumulate, backend="numba"
        )
        return step.prepare(X, Y)

    ours = program(nn.CrossEntropyLoss())
    plain = program(lambda z, t: ops.mean(ops.softmax_cross_entropy(z, t)))
    assert str(ours) == str(plain)
    assert len(ours.output_types) == 1


def test_a_mean_inside_another_expression_counts_samples():
    """exp(mean) is no sum over a count: it stays a mean over samples, one number a batch."""
    model = _model()
    step = compile_step(
        lambda a, b: ops.exp(nn.CrossEntropyLoss(ignore_index=-100)(model(a), b)),
        optim.SGD(model.parameters(), lr=1e-30),
        backend="numpy",
    )
    losses = step.run(X, IGNORED, batch_size=10, shuffle=False)
    assert step.totals.shape == (3, 1, 2)
    assert step.totals[:, 0, 1].tolist() == [10, 10, 3]
    assert together(step.totals) == pytest.approx(losses @ [10, 10, 3] / N)


def test_there_are_no_totals_before_a_run():
    model = _model()
    step = compile_step(
        lambda a: ops.mean(model(a)), optim.SGD(model.parameters(), lr=0.1), backend="numpy"
    )
    with pytest.raises(DataError, match="before the first run"):
        _ = step.totals


def test_mean_over_takes_scalars():
    assert ops.mean_over(6.0, 3) == 2.0
    assert np.isnan(ops.mean_over(0.0, 0.0))
    with pytest.raises(ShapeError, match="expected scalars"):
        ops.mean_over(X, 3.0)
