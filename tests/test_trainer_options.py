"""Weights, splits, budgets, Ctrl-C, sources of data: what `fit` takes beside arrays."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from points import assert_same, points, trainer
from registered import BACKENDS

from gpubp import nn, ops, optim
from gpubp.data import sources
from gpubp.errors import DataError, DTypeError, ShapeError, UnknownNameError
from gpubp.train import Callback, Trainer
from gpubp.train.weights import sample_weights

X, Y = points()


def _plain(loss_fn=None, outputs=3, **options):
    """A linear model trained by plain SGD: easy to follow by hand."""
    ops.manual_seed(1)
    model = nn.Linear(2, outputs)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model, loss_fn or nn.CrossEntropyLoss(), optimizer, backend="numpy", **options)


def _quiet(made, *data, epochs=1, **options):
    return made.fit(*data, epochs=epochs, verbose=False, **options)


def _weights(made):
    return made.model.state_dict()["weight"]


def test_sample_weights_scale_the_gradient_of_each_sample():
    """One full batch: W - lr * sum_i w_i g_i / n, with g from softmax by hand."""
    made = _plain()
    W, b = _weights(made).astype(np.float64), made.model.bias.numpy().astype(np.float64)
    w = np.linspace(0.0, 2.0, len(X))
    _quiet(made, X, Y, batch_size=len(X), sample_weight=w)
    z = X @ W.T + b
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    losses = -np.log(p[np.arange(len(X)), Y])
    assert made.history["loss"] == [pytest.approx(np.mean(w * losses), rel=1e-5)]
    p[np.arange(len(X)), Y] -= 1
    expected = W - 0.1 * (p * w[:, None]).T @ X / len(X)
    np.testing.assert_allclose(_weights(made), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_of_one_change_nothing(backend):
    plain, weighted = (trainer(backend, dropout=0.0) for _ in range(2))
    _quiet(plain, X, Y, epochs=2)
    _quiet(weighted, X, Y, epochs=2, sample_weight=np.ones(len(X)))
    np.testing.assert_allclose(weighted.history["loss"], plain.history["loss"], rtol=1e-5)
    np.testing.assert_allclose(weighted.predict(X), plain.predict(X), rtol=1e-4, atol=1e-5)


def test_a_weight_of_two_is_a_sample_twice():
    """With the sum as reduction, where batches may differ in size."""
    w = np.where(Y == 1, 2.0, 1.0)
    twice = np.concatenate([np.arange(len(X)), np.flatnonzero(Y == 1)])
    weighted, doubled = (_plain(nn.CrossEntropyLoss(reduction="sum")) for _ in range(2))
    for made in (weighted, doubled):
        made.optimizer.param_groups[0]["lr"] = 1e-3
    _quiet(weighted, X, Y, batch_size=len(X), sample_weight=w)
    _quiet(doubled, X[twice], Y[twice], batch_size=len(twice))
    np.testing.assert_allclose(_weights(weighted), _weights(doubled), rtol=1e-5)


def test_weights_of_several_outputs_a_sample():
    t = np.stack([X[:, 0], X[:, 1] * 3], axis=1)
    w = np.linspace(0.5, 1.5, len(X))
    made = _plain(nn.MSELoss(), outputs=2)
    residual = (made.model(X) - t) ** 2
    expected = np.mean(w * residual.mean(axis=1))
    found = made.evaluate(X, t, sample_weight=w)["loss"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_the_users_takes_weights_itself():
    def loss(outputs, y, weights=None):
        each = ops.softmax_cross_entropy(outputs, y)
        return ops.mean(each if weights is None else each * weights)

    w = np.linspace(0.5, 1.5, len(X))
    own, built_in = _plain(loss), _plain()
    for made in (own, built_in):
        _quiet(made, X, Y, sample_weight=w, shuffle=False)
    np.testing.assert_allclose(_weights(own), _weights(built_in), rtol=1e-5)
    with pytest.raises(DataError, match="weights need a loss of"):
        _quiet(_plain(lambda o, y: nn.CrossEntropyLoss()(o, y)), X, Y, sample_weight=w)


def test_class_weights_are_sample_weights():
    table = {0: 0.5, 2: 4.0}
    by_class, by_sample = _plain(), _plain()
    _quiet(by_class, X, Y, class_weight=table, shuffle=False)
    w = np.choose(Y, [0.5, 1.0, 4.0])
    _quiet(by_sample, X, Y, sample_weight=w, shuffle=False)
    np.testing.assert_array_equal(_weights(by_class), _weights(by_sample))
    counts = np.bincount(Y)
    balanced = sample_weights(Y, None, "balanced", np.float64)
    np.testing.assert_allclose(balanced, len(Y) / (3 * counts[Y]))
    both = sample_weights(Y, np.full(len(Y), 2.0), table, np.float64)
    np.testing.assert_allclose(both, 2 * w)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(3)}, r"shape \(3,\), expected \(90,\)"),
        ({"sample_weight": np.full(90, -1.0)}, "holds -1.0 at index 0"),
        ({"sample_weight": np.full(90, np.nan)}, "holds nan at index 0"),
        ({"sample_weight": np.zeros(90)}, "all weights are 0"),
        ({"class_weight": {7: 1.0}}, "weight for 7, which is no label"),
        ({"class_weight": "even"}, "'even'; expected a dict or 'balanced'"),
        ({"class_weight": {0: -2.0}}, r"class_weight holds -2\.0"),
        ({"validation_split": 1.0}, "validation_split is 1.0"),
        ({"validation_split": 0.5, "validation_data": (X, Y)}, "not both"),
        ({"validation_data": (X,)}, "got 1 arrays"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"max_time": -1.0}, "max_time=-1.0"),
        ({"save_every": 0}, "save_every=0"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    made = trainer()
    before = made.model.state_dict()
    with pytest.raises(DataError, match=message):
        _quiet(made, X, Y, **options)
    np.testing.assert_array_equal(made.model.state_dict()["0.weight"], before["0.weight"])


def test_class_weights_need_labels():
    with pytest.raises(DataError, match="one integer label a sample"):
        _quiet(_plain(nn.MSELoss(), 1), X, X[:, :1], class_weight="balanced")


def test_unknown_options_of_the_trainer():
    with pytest.raises(UnknownNameError, match="Did you mean 'max_grad_norm'"):
        trainer(max_grad_nrom=1.0)
    with pytest.raises(UnknownNameError, match="scheduler_every"):
        trainer(scheduler_every="day")


def test_options_of_the_step_are_passed_on():
    made = _plain(max_grad_norm=1e-3)
    before = _weights(made)
    _quiet(made, X, Y, batch_size=len(X))
    moved = np.sqrt(np.sum((_weights(made) - before) ** 2))
    assert 0 < moved <= 0.1 * 1e-3 * 1.001


def test_validation_split_holds_out_a_share_for_good():
    made = _plain()
    history = _quiet(made, X, Y, epochs=2, batch_size=8, validation_split=0.25)
    assert list(history) == ["epoch", "loss", "val_loss", "val_accuracy"]
    assert made.steps == 2 * 9  # 67 of 90 samples are left: ceil(67 / 8) steps
    held = np.sort(np.random.default_rng(0).permutation(90)[:23])
    assert history["val_loss"][-1] == pytest.approx(made.evaluate(X[held], Y[held])["loss"])
    # What was held out had no influence: training on the rest alone is the same.
    kept = np.setdiff1d(np.arange(90), held)
    alone = _plain()
    _quiet(alone, X[kept], Y[kept], epochs=2, batch_size=8)
    np.testing.assert_array_equal(_weights(made), _weights(alone))


def test_validation_data_may_have_weights():
    w = np.linspace(0.0, 1.0, len(X))
    made = _plain()
    history = _quiet(made, X, Y, validation_data=(X, Y, w))
    assert history["val_loss"][-1] == pytest.approx(made.evaluate(X, Y, sample_weight=w)["loss"])


def test_metrics_by_name_and_function():
    def largest(y, outputs):
        return float(outputs.max())

    made = _plain()
    history = _quiet(
        made,
        X,
        Y,
        validation_data=(X[:30], Y[:30]),
        metrics=["f1_macro", largest, "top_2_accuracy"],
    )
    names = ["f1_macro", "largest", "top_2_accuracy"]
    val = ["val_loss", "val_accuracy", *[f"val_{name}" for name in names]]
    assert list(history) == ["epoch", "loss", *names, *val]
    assert history["largest"][-1] == pytest.approx(float(made.predict(X).max()))


def test_a_budget_of_steps_counts_over_epochs():
    made = trainer()
    history = _quiet(made, X, Y, epochs=5, batch_size=20, max_steps=7, validation_data=(X, Y))
    assert (made.steps, made.epoch, made.stop_reason) == (7, 1, "max_steps")
    assert history["epoch"] == [1, pytest.approx(1 + 40 / 90)]
    assert len(history["val_loss"]) == 2
    # The next call starts a new epoch with a budget of its own.
    _quiet(made, X, Y, epochs=1, batch_size=20, max_steps=7)
    assert (made.steps, made.epoch, made.stop_reason) == (12, 2, None)
    assert history["epoch"] == [1, pytest.approx(1 + 40 / 90), 2]


def test_a_budget_that_ends_with_an_epoch_leaves_no_part_of_one():
    made = trainer()
    history = _quiet(made, X, Y, epochs=5, batch_size=20, max_steps=10)
    assert (history["epoch"], made.stop_reason) == ([1, 2], "max_steps")


def test_training_stops_when_its_time_is_up():
    made = trainer()
    _quiet(made, X, Y, epochs=1_000_000, max_time=0.2)
    assert made.stop_reason == "max_time"
    assert 0 < made.epoch < 1_000_000


class _Press(Callback):
    """Presses Ctrl-C in the middle of an epoch."""

    def __init__(self, times=1):
        self.times = times

    def on_chunk_end(self, trainer, losses):
        if trainer.epoch == 1 and self.times:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
            self.times = 0


def test_ctrl_c_ends_cleanly_and_resumes(monkeypatch, tmp_path):
    monkeypatch.setattr("gpubp.train.fit.FIRST_CHUNK_BATCHES", 2)
    monkeypatch.setattr("gpubp.train.fit.SECONDS_BETWEEN_LOOKS", 0.0)
    path = tmp_path / "run.ckpt"
    whole = trainer()
    _quiet(whole, X, Y, epochs=4, callbacks=[_Press(0)])
    made = trainer()
    history = _quiet(made, X, Y, epochs=4, checkpoint=path, callbacks=[_Press()])
    assert made.stop_reason == "interrupted"
    assert history["epoch"] == [1, pytest.approx(1 + 32 / 90)]
    assert np.isfinite(made.predict(X)).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = trainer()
    _quiet(resumed, X, Y, epochs=4, resume=path, callbacks=[_Press(0)])
    assert_same(resumed, whole)


def test_a_second_ctrl_c_does_not_wait():
    made = trainer()
    with pytest.raises(KeyboardInterrupt):
        _quiet(made, X, Y, epochs=4, callbacks=[_Press(2)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert made.model.training


def test_training_in_another_thread_leaves_signals_alone():
    made = trainer()
    thread = threading.Thread(target=lambda: _quiet(made, X, Y))
    thread.start()
    thread.join()
    assert made.epoch == 1


def test_where_chunks_end_does_not_matter(monkeypatch):
    whole = trainer()
    _quiet(whole, X, Y, epochs=3, batch_size=8)
    monkeypatch.setattr("gpubp.train.fit.FIRST_CHUNK_BATCHES", 1)
    monkeypatch.setattr("gpubp.train.fit.SECONDS_BETWEEN_LOOKS", 0.0)
    parts = trainer()
    _quiet(parts, X, Y, epochs=3, batch_size=8)
    assert_same(parts, whole)


def _mapped(folder, array, name):
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mapped_arrays_train_as_arrays_in_memory(tmp_path, monkeypatch, dtype):
    big = points(500)
    whole = trainer()
    _quiet(whole, big[0].astype(dtype), big[1], epochs=2, batch_size=16)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1200)
    read = []
    inner = sources.MappedSource._read

    def noted(self, rows, size):
        block = inner(self, rows, size)
        read.append(block.arrays.arrays[0].nbytes)
        return block

    monkeypatch.setattr(sources.MappedSource, "_read", noted)
    mapped = [_mapped(tmp_path, a, n) for a, n in zip((big[0].astype(dtype), big[1]), "Xy")]
    made = trainer()
    _quiet(made, *mapped, epochs=2, batch_size=16, validation_split=0.0)
    assert_same(made, whole)
    assert len(read) >= 10
    assert max(read) <= 1200
    np.testing.assert_array_equal(made.predict(mapped[0]), whole.predict(big[0]))


def test_mapped_arrays_are_checked_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 200)
    monkeypatch.setattr("gpubp.data.checks.PART", 40)
    bad = X.copy()
    bad[71, 1] = np.inf
    made = trainer()
    with pytest.raises(DataError, match=r"X holds inf at index \(71, 1\) \(1 such"):
        _quiet(made, _mapped(tmp_path, bad, "X"), Y)
    with pytest.raises(DTypeError, match="X has dtype <U1; expected numbers"):
        _quiet(made, _mapped(tmp_path, np.full((90, 2), "a"), "X"), Y)
    assert made.steps == 0


def _batches(size=16, order=None):
    order = np.arange(len(X)) if order is None else order
    return [(X[order[i : i + size]], Y[order[i : i + size]]) for i in range(0, len(X), size)]


@pytest.mark.parametrize("kind", ["list", "function"])
def test_a_stream_of_batches_trains_as_the_arrays(kind):
    whole, made = (trainer(dropout=0.0) for _ in range(2))
    _quiet(whole, X, Y, epochs=3, batch_size=16, shuffle=False, validation_data=(X, Y))
    stream = _batches() if kind == "list" else lambda: iter(_batches())
    _quiet(made, stream, epochs=3, validation_data=(X, Y))
    assert made.history["loss"] == whole.history["loss"]
    np.testing.assert_array_equal(made.predict(X), whole.predict(X))


def test_a_stream_resumes_within_an_epoch(tmp_path):
    whole, path = trainer(), tmp_path / "run.ckpt"
    _quiet(whole, _batches(), epochs=3)
    _quiet(trainer(), _batches(), epochs=3, max_steps=8, checkpoint=path)
    resumed = trainer()
    _quiet(resumed, _batches(), epochs=3, resume=path)
    assert_same(resumed, whole)


def test_batches_of_a_stream_may_have_weights():
    w = np.linspace(0.5, 1.5, len(X))
    whole, made = (trainer(dropout=0.0) for _ in range(2))
    _quiet(whole, X, Y, batch_size=30, shuffle=False, sample_weight=w)
    triples = [(X[i : i + 30], Y[i : i + 30], w[i : i + 30]) for i in range(0, 90, 30)]
    _quiet(made, triples)
    np.testing.assert_array_equal(made.predict(X), whole.predict(X))


def test_a_generator_serves_one_epoch_and_then_says_so():
    made = trainer()
    stream = (batch for batch in _batches())
    with pytest.raises(DataError, match="A generator can be used once"):
        _quiet(made, stream, epochs=2)
    assert made.epoch == 1


@pytest.mark.parametrize(
    ("stream", "options", "message"),
    [
        ([], {}, "gave no batches"),
        ([(X, Y), X], {}, "batch 1 is a ndarray"),
        ([(X, Y[:3])], {}, "batch 0 x has 90 samples and batch 0 y has 3"),
        ([(X[:0], Y[:0])], {}, "batch 0 x is empty"),
        ([(X, Y)], {"validation_split": 0.5}, "has no validation_split"),
        ([(X, Y)], {"sample_weight": np.ones(90)}, "has no validation_split, sample_weight"),
        (X, {}, "y is missing"),
        (3, {}, "y is missing: X is a int"),
        ([(np.full_like(X, np.nan), Y)], {}, "nan"),
        ([(X, np.full_like(Y, 9))], {}, "9"),
    ],
)
def test_streams_that_cannot_be_used(stream, options, message):
    made = trainer()
    with pytest.raises(DataError, match=message):
        _quiet(made, stream, **options)
    assert made.steps == 0


def test_an_error_in_a_stream_comes_out_and_the_thread_ends():
    def stream():
        yield from _batches()[:2]
        raise OSError("the disk is gone")

    before = threading.active_count()
    with pytest.raises(OSError, match="the disk is gone"):
        _quiet(trainer(), stream)
    assert threading.active_count() == before


class Heads(nn.Module):
    """A model with several outputs."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.first, self.second = kind, nn.Linear(2, 3), nn.Linear(2, 1)

    def forward(self, x):
        a, b = self.first(x), self.second(x)[:, 0]
        return {"tuple": (a, b), "dict": {"a": a, "b": [b]}, "mean": (a, ops.mean(b))}[self.kind]


def _heads(kind):
    def first(outputs):
        return outputs["a"] if kind == "dict" else outputs[0]

    def loss(outputs, y):
        rest = outputs["b"][0] if kind == "dict" else outputs[1]
        return nn.CrossEntropyLoss()(first(outputs), y) + 0.1 * ops.mean(ops.square(rest))

    def right(y, outputs):
        return float(np.mean(first(outputs).argmax(axis=1) == y))

    model = Heads(kind)
    return Trainer(model, loss, optim.Adam(model.parameters(), lr=0.01)), right


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_models_with_several_outputs(kind):
    X = np.random.default_rng(0).standard_normal((2500, 2)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    made, right = _heads(kind)
    history = made.fit(
        X, y, epochs=2, verbose=False, metrics=[right], validation_data=(X[:50], y[:50])
    )
    assert list(history) == ["epoch", "loss", "right", "val_loss", "val_right"]
    expected = made.model.eval()(X)
    for found in (made.predict(X), made.predict(X, batch_size=7)):
        assert type(found) is type(expected)
        pairs = [(found[0], expected[0]), (found[1], expected[1])] if kind == "tuple" else [
            (found["a"], expected["a"]), (found["b"][0], expected["b"][0])
        ]  # fmt: skip
        for a, b in pairs:
            np.testing.assert_allclose(a, b, 1e-5, 1e-6)
    found = made.evaluate(X, y, metrics=[right])
    assert found["right"] == pytest.approx(right(y, expected))
    with pytest.raises(DataError, match="f1 is of one array of outputs"):
        made.evaluate(X, y, metrics=["f1"])
    steps = made.steps
    with pytest.raises(DataError, match="accuracy is of one array of outputs"):
        made.fit(X, y, metrics=["accuracy"], verbose=False)
    assert made.steps == steps


def test_outputs_without_a_row_for_each_sample():
    X = np.ones((2500, 2), np.float32)
    y = np.zeros(2500, np.int64)
    made, right = _heads("mean")
    made.fit(X, y, validation_split=0.1, verbose=False)
    assert list(made.evaluate(X, y)) == ["loss"]
    for call in (lambda: made.predict(X), lambda: made.evaluate(X, y, metrics=[right])):
        with pytest.raises(ShapeError, match="a row for each"):
            call()
