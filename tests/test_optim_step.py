"""Accumulation, clipping and averages: arguments and edges. Numbers: tests/oracle."""

from __future__ import annotations

import numpy as np
import pytest
from registered import BACKENDS

from gpubp import nn, ops, optim
from gpubp.errors import DataError, ShapeError
from gpubp.runtime.batches import Batches, epoch_batches, updates_after
from gpubp.runtime.step import compile_step

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(22, 3)), RNG.normal(size=(22, 2))


def _model(**settings):
    w = nn.Parameter(np.linspace(-1.0, 1.0, 6).reshape(3, 2), name="w")
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9)
    settings = {"backend": "numpy", **settings}
    step = compile_step(lambda x, y: ops.mean(ops.square(x @ w - y)), optimizer, **settings)
    return w, optimizer, step


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 0}, "accumulate is 0"),
        ({"accumulate": 1.5}, "accumulate is 1.5"),
        ({"max_grad_value": 0.0}, "max_grad_value is 0.0"),
        ({"max_grad_value": float("nan")}, "max_grad_value is nan"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0"),
    ],
)
def test_wrong_settings_of_a_step_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        _model(**settings)


def _reference(groups):
    """One update for each group of rows, by its mean gradient."""
    w, buffer = np.linspace(-1.0, 1.0, 6).reshape(3, 2), np.zeros((3, 2))
    for rows in groups:
        gradient = X[rows].T @ (X[rows] @ w - Y[rows]) / len(rows)
        buffer = 0.9 * buffer + gradient
        w = w - 0.1 * buffer
    return w


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_that_is_not_full_waits_if_it_is_not_flushed(backend):
    w, _, step = _model(accumulate=3, backend=backend)
    rows = np.arange(22)
    step.run(X, Y, batch_size=5, shuffle=False, flush=False)
    assert step.pending == 2
    step.run(X, Y, batch_size=5, shuffle=False, order=rows[:10], flush=False)
    assert step.pending == 1
    step(X[:4], Y[:4])
    assert step.pending == 2
    step(X[4:7], Y[4:7])
    assert step.pending == 0
    groups = [rows[:15], [*rows[15:], *rows[:5]], [*rows[5:10], *rows[:7]]]
    np.testing.assert_allclose(w.value, _reference(groups), rtol=1e-12)


def test_runs_of_several_epochs_flush_each():
    w, _, step = _model(accumulate=3)
    losses = step.run(X, Y, batch_size=5, epochs=2, shuffle=False)
    assert losses.shape == (10,)
    rows = np.arange(22)
    epoch = [rows[:15], rows[15:]]
    np.testing.assert_allclose(w.value, _reference(epoch * 2), rtol=1e-12)
    other, _, same = _model(accumulate=3)
    same.run(X, Y, batch_size=5, epochs=2, shuffle=False, progress=lambda *_: None)
    np.testing.assert_array_equal(other.value, w.value)
    third, _, dropped = _model(accumulate=3)
    dropped.run(X, Y, batch_size=5, epochs=2, shuffle=False, drop_last=True)
    np.testing.assert_allclose(third.value, _reference([rows[:15], rows[15:20]] * 2), rtol=1e-12)


def test_epochs_that_are_reported_wait_for_each_other_as_those_that_are_not():
    results = []
    for progress in (None, lambda *_: None):
        w, _, step = _model(accumulate=3)
        step.run(X, Y, batch_size=5, epochs=2, shuffle=False, flush=False, progress=progress)
        assert step.pending == 1
        results.append(w.numpy())
    rows = np.arange(22)
    groups = [rows[:15], [*rows[15:], *rows[:5]], rows[5:20]]
    np.testing.assert_allclose(results[0], _reference(groups), rtol=1e-12)
    np.testing.assert_array_equal(results[1], results[0])


def test_a_step_goes_on_from_its_state():
    w, optimizer, step = _model(accumulate=3)
    step.run(X, Y, batch_size=6, flush=False)
    state, options, weights = step.state_dict(), optimizer.state_dict(), w.numpy()
    assert state["accumulated"]["batches"] == 1
    losses = step.run(X, Y, batch_size=6)
    other, fresh_optimizer, fresh = _model(accumulate=3)
    other.value = weights
    fresh_optimizer.load_state_dict(options)
    fresh.load_state_dict(state)
    np.testing.assert_array_equal(fresh.run(X, Y, batch_size=6), losses)
    np.testing.assert_array_equal(other.value, w.value)
    kept = fresh.state_dict()
    for change, error, message in (
        ({"sums": []}, DataError, "got sums of 0 gradients, expected 1"),
        ({"sums": [np.ones(2)]}, ShapeError, "w: its gradient's sum has shape"),
        ({"batches": 3}, DataError, "3 batches wait in the state, but accumulate is 3"),
    ):
        broken = {**state, "accumulated": {**state["accumulated"], **change}}
        with pytest.raises(error, match=message):
            fresh.load_state_dict(broken)
        assert fresh.state_dict() == kept
    _, _, plain = _model()
    plain.load_state_dict(kept)


def test_only_updates_move_the_optimizer():
    w, optimizer, step = _model(accumulate=2)
    before = w.numpy()
    step(X[:5], Y[:5])
    np.testing.assert_array_equal(w.value, before)
    assert not optimizer.state_dict()["state"].get(0, {"b": np.zeros(1)}).popitem()[1].any()
    step(X[5:9], Y[5:9])
    assert (w.value != before).all()


def test_every_batch_moves_the_state_of_modules():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    loss_fn = nn.MSELoss()
    step = compile_step(lambda x, y: loss_fn(model(x), y), optimizer, accumulate=3)
    before = model[1].running_mean.numpy()
    step(X[:8].astype(np.float32), Y[:8].astype(np.float32))
    assert (model[1].running_mean.value != before).all()
    step.run(X, Y, batch_size=5)
    assert int(model[1].num_batches_tracked.value) == 6


def test_a_changed_option_reaches_both_programs():
    w, optimizer, step = _model(accumulate=2)
    step(X[:5], Y[:5])
    optimizer.param_groups[0]["momentum"] = 0.0
    step(X[5:9], Y[5:9])
    g = X[:9].T @ (X[:9] @ np.linspace(-1, 1, 6).reshape(3, 2) - Y[:9]) / 9
    np.testing.assert_allclose(w.value, np.linspace(-1, 1, 6).reshape(3, 2) - 0.1 * g, rtol=1e-12)


def test_numbers_that_are_not_finite_do_not_outlive_an_update():
    w, _, step = _model(accumulate=2)
    weights = w.numpy()
    for _ in range(2):
        step(np.full((4, 3), np.inf), Y[:4])
    assert np.isnan(w.value).any()
    w.value = weights
    step._update_builder.optimizer.state_of("momentum_buffer", w).value = np.zeros((3, 2))
    step(X[:4], Y[:4])
    step(X[4:8], Y[4:8])
    np.testing.assert_allclose(w.value, _reference([np.arange(8)]), rtol=1e-12)


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
@pytest.mark.parametrize("pending", [0, 1, 2])
@pytest.mark.parametrize("flush", [False, True])
def test_when_updates_follow(accumulate, pending, flush):
    pending = min(pending, accumulate - 1)
    wanted, waiting = [], pending
    for _ in range(3):
        for i in range(5):
            waiting += 1
            final = waiting == accumulate or (flush and i == 4)
            waiting = 0 if final else waiting
            wanted.append(final)
    assert updates_after(5, 3, accumulate, pending, flush).tolist() == wanted


def test_kinds_and_segments_of_batches():
    final = updates_after(5, 2, 2, 0, True)
    batches = epoch_batches(22, 5, False, 2, final)
    kinds, which = batches.kinds
    assert batches.starts.tolist() == [0, 5, 10, 15, 20, 22, 27, 32, 37, 42]
    assert [kinds[i] for i in which] == [
        (int(s), bool(f)) for s, f in zip(batches.sizes, final, strict=True)
    ]
    assert [k[1] for k in kinds] == sorted([k[1] for k in kinds], reverse=True)
    assert list(batches.segments(None)) == [(0, 10)]
    assert list(batches.segments(2)) == [(0, 4), (4, 7), (7, 10)]
    for start, stop in batches.segments(2):
        assert final[start:stop].sum() <= 2
    assert list(Batches.one(4, False).segments(2)) == [(0, 1)]


def test_clipped_gradients_are_kept_as_they_were():
    w, _, step = _model(max_grad_value=1e-3, keep_grads=True)
    before = w.numpy()
    step(X, Y)
    g = X.T @ (X @ before - Y) / len(X)
    np.testing.assert_allclose(step.grads[0], g, rtol=1e-12)
    np.testing.assert_allclose(w.value, before - 0.1 * np.clip(g, -1e-3, 1e-3), rtol=1e-12)


def test_wrong_averages_of_weights_are_refused():
    w, _, _ = _model()
    with pytest.raises(DataError, match=r"decay is 1\.5"):
        optim.EMA([w], 1.5)
    with pytest.raises(DataError, match="no parameters"):
        optim.EMA([])
    with pytest.raises(TypeError, match="got a ndarray"):
        optim.EMA([np.ones(2)])


def _averaged():
    w = nn.Parameter(np.linspace(-1.0, 1.0, 6).reshape(3, 2), name="w")
    ema = optim.EMA([w], 0.5)
    step = compile_step(
        lambda x, y: ops.mean(ops.square(x @ w - y)),
        optim.SGD([w], lr=0.1),
        backend="numpy",
        ema=ema,
    )
    return w, ema, step


def test_averages_are_swapped_in_and_out():
    w, ema, step = _averaged()
    np.testing.assert_array_equal(ema.averages[0], w.value)
    seen = []
    for _ in range(3):
        step(X, Y)
        seen.append(w.numpy())
    wanted = 0.5 * (0.5 * seen[0] + 0.5 * seen[1]) + 0.5 * seen[2]
    np.testing.assert_allclose(ema.averages[0], wanted, rtol=1e-12)
    with pytest.raises(KeyError), ema.apply():
        np.testing.assert_allclose(w.value, wanted, rtol=1e-12)
        np.testing.assert_array_equal(ema.averages[0], w.value)
        for use in (lambda: step(X, Y), lambda: step.run(X, Y, batch_size=5)):
            with pytest.raises(DataError, match="hold their averages"):
                use()
        with pytest.raises(DataError, match="applied already"), ema.apply():
            pass
        raise KeyError("a failure inside the block")
    np.testing.assert_array_equal(w.value, seen[2])
    step(X, Y)
    assert ema.n_averaged == 4
    ema.copy_to_params()
    np.testing.assert_array_equal(w.value, ema.averages[0])


def test_averages_go_on_from_their_state():
    w, ema, step = _averaged()
    for _ in range(3):
        step(X, Y)
    saved, weights = ema.state_dict(), w.numpy()
    step(X, Y)
    other, fresh, again = _averaged()
    other.value = weights
    fresh.load_state_dict(saved)
    again(X, Y)
    np.testing.assert_array_equal(fresh.averages[0], ema.averages[0])
    with pytest.raises(ShapeError, match="w: its average has shape"):
        fresh.load_state_dict({**saved, "averages": [np.ones(2)]})
    with pytest.raises(DataError, match="got 0 averages"):
        fresh.load_state_dict({**saved, "averages": []})
    with pytest.raises(DataError, match=r"decay is 0\.9, mine"):
        fresh.load_state_dict({**saved, "decay": 0.9})
    np.testing.assert_array_equal(fresh.averages[0], ema.averages[0])


def test_the_average_of_a_frozen_parameter_is_the_parameter():
    w, b = nn.Parameter(np.ones((3, 2)), name="w"), nn.Parameter(np.ones(2), name="b")
    b.requires_grad = False
    ema = optim.EMA([w, b], 0.5)
    step = compile_step(
        lambda x, y: ops.mean(ops.square(x @ w + b - y)),
        optim.SGD([w, b], lr=0.1),
        backend="numpy",
        ema=ema,
    )
    step(X, Y)
    step(X, Y)
    np.testing.assert_array_equal(ema.averages[1], np.ones(2))
    assert (ema.averages[0] != w.value).any()


def _two(*makers, **settings):
    """A step of optimisers over the parts of one model."""
    w = nn.Parameter(np.linspace(-1.0, 1.0, 6).reshape(3, 2), name="w")
    b = nn.Parameter(np.zeros(2), name="b")
    members = [make(w, b) for make in makers]
    step = compile_step(lambda x, y: ops.mean(ops.square(x @ w + b - y)), members, **settings)
    return w, b, members, step


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_optimisers_are_one_with_groups(backend):
    """Each with its own rate, accumulation, clipping of the joint norm, and an average."""
    results = []
    for several in (True, False):
        settings = {"accumulate": 2, "max_grad_norm": 0.5, "backend": backend}
        w = nn.Parameter(np.linspace(-1.0, 1.0, 6).reshape(3, 2), name="w")
        b = nn.Parameter(np.zeros(2), name="b")
        first, second = {"params": [w], "lr": 0.1}, {"params": [b], "lr": 0.02}
        rule = {"momentum": 0.9}
        made = [optim.SGD([g], **rule) for g in (first, second)]
        optimizer = made if several else optim.SGD([first, second], **rule)
        ema = optim.EMA([w, b], decay=0.5)
        step = compile_step(
            lambda x, y, w=w, b=b: ops.mean(ops.square(x @ w + b - y)),
            optimizer,
            ema=ema,
            **settings,
        )
        losses = step.run(X, Y, batch_size=4, epochs=3, seed=1)
        results.append([losses, w.value, b.value, *ema.averages])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("makers", "message"),
    [
        ((), "list of optimizers is empty"),
        ((lambda w, b: optim.SGD([w]), lambda w, b: optim.Adam([b, w])), "w is in two"),
        ((lambda w, b: optim.SGD([w]), lambda w, b: b), "for an optimizer, expected"),
        ((lambda w, b: optim.SGD([w]), lambda w, b: optim.LBFGS([b])), "LBFGS moves all"),
    ],
)
def test_several_optimisers_that_do_not_fit_together(makers, message):
    with pytest.raises(DataError, match=message):
        _two(*makers)


def test_a_parameter_that_joins_two_optimisers_later_is_refused():
    w, _, members, step = _two(lambda w, b: optim.SGD([w]), lambda w, b: optim.SGD([b]))
    step(X, Y)
    members[1].add_param_group({"params": [w]})
    with pytest.raises(DataError, match="w is in two"):
        step(X, Y)


def test_a_schedule_belongs_to_one_of_several_optimisers():
    kept = []

    def sgd(w, b):
        kept.append(optim.SGD([w], lr=0.1))
        return kept[-1]

    def other(w, b):
        return optim.SGD([b], lr=0.1)

    alien = optim.lr_scheduler.ExponentialLR(optim.SGD([nn.Parameter(np.ones(2))]), 0.5)
    with pytest.raises(DataError, match="another optimizer"):
        _two(sgd, other, scheduler=alien)
    with pytest.raises(DataError, match="got 5 for an optimizer"):
        compile_step(lambda x: x, 5)
