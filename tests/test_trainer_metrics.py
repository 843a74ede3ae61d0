"""Metrics: which targets and outputs they take. Their values: tests/oracle/test_sklearn_metrics."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from points import points

from gpubp import nn, ops, optim
from gpubp.errors import DataError, UnknownNameError
from gpubp.train import Trainer, metric, metrics

Y = np.array([0, 1, 2, 1])
LOGITS = np.array([[3.0, 1, 0], [0, 2, 1], [0, 2, 1], [1, 0, 0]])


def _value(name, y, outputs, threshold=0.5):
    return metrics.find([name])[0].compute(np.asarray(y), np.asarray(outputs), threshold)


def test_metrics_equal_values_worked_by_hand():
    assert _value("accuracy", Y, LOGITS) == 0.5
    assert _value("top_2_accuracy", Y, LOGITS) == 0.75  # of equal outputs the last wins
    assert _value("recall_macro", Y, LOGITS) == pytest.approx((1 + 0.5 + 0) / 3)
    assert _value("precision_micro", Y, LOGITS) == 0.5
    assert _value("auc", [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert _value("accuracy", [0.0, 1.0], [-0.1, 0.1], 0.0) == 1.0
    assert _value("accuracy", [0.0, 1.0], [-0.1, 0.1], 0.5) == 0.5


@pytest.mark.parametrize(
    ("name", "y", "outputs", "message"),
    [
        ("accuracy", [0.5, 1.0], [0.1, 0.2], "accuracy needs integer class labels"),
        ("f1", [0, 2], [0.1, 0.2], "needs integer class labels"),
        ("top_4_accuracy", Y, LOGITS, "at least 4 outputs"),
        ("mse", Y, LOGITS, "one target an output"),
    ],
)
def test_targets_that_a_metric_cannot_use(name, y, outputs, message):
    with pytest.raises(DataError, match=message):
        _value(name, y, outputs)


@pytest.mark.parametrize(
    ("name", "near"),
    [("acuracy", "accuracy"), ("f1_makro", "f1_macro"), ("top_0_accuracy", "top_5_accuracy")],
)
def test_unknown_metrics_are_refused_with_the_nearest_name(name, near):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{near}'"):
        metrics.find([name])


def test_every_name_that_is_listed_is_known():
    assert [metric.name for metric in metrics.find(metrics.names())] == metrics.names()


LOGITS_LOSS = nn.BCEWithLogitsLoss()


class _Sub(nn.BCEWithLogitsLoss):
    """A loss by another name."""


class _Wrap(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.BCEWithLogitsLoss(pos_weight=np.array([2.0]))

    def forward(self, outputs, y):
        return 2.0 * self.inner(outputs, y)


def _own(outputs, y):
    return ops.mean(ops.softplus(outputs) - outputs * ops.astype(y, "float32"))


_own.from_logits = True


def _yes_or_no():
    """Noisy: outputs are on all sides of all thresholds."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 2)).astype(np.float32)
    return X, (X[:, :1] + rng.normal(size=(90, 1)) > 0).astype(np.float32)


OF_LOGITS = {
    "loss": nn.BCEWithLogitsLoss(),
    "subclass": _Sub(),
    "wrapper": _Wrap(),
    "lambda": lambda o, y: LOGITS_LOSS(o, y) + 0.0 * ops.mean(ops.square(o)),
    "several": nn.MultiLabelSoftMarginLoss(),
    "partial": functools.partial(lambda scale, o, y: scale * LOGITS_LOSS(o, y), 3.0),
    "own, which says so": _own,
}


@pytest.mark.parametrize("name", OF_LOGITS)
def test_the_threshold_follows_what_the_loss_is(name):
    X, binary = _yes_or_no()
    ops.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    trainer = Trainer(model, OF_LOGITS[name], optimizer, backend="numpy")
    trainer.fit(X, binary, epochs=3, verbose=False, metrics=["accuracy"])
    found = trainer.evaluate(X, binary, metrics=["accuracy"])["accuracy"]
    assert found == np.mean((trainer.predict(X) > 0) == binary)
    assert found != np.mean((trainer.predict(X) > 0.5) == binary)
    assert trainer.history["accuracy"][-1] == found


@pytest.mark.parametrize("loss_fn", [nn.BCELoss(), nn.MSELoss(), nn.L1Loss()])
def test_other_outputs_are_cut_at_a_half(loss_fn):
    X, y = points()
    binary = (y == 0).astype(np.float32)[:, None]
    model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    trainer = Trainer(model, loss_fn, optim.Adam(model.parameters(), lr=0.1), backend="numpy")
    found = trainer.evaluate(X, binary, metrics=["accuracy"])["accuracy"]
    assert found == np.mean((trainer.predict(X) > 0.5) == binary)


def _sequence(loss_fn=None):
    """A model of outputs (N, C, L), its data, and labels some of which are ignored."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 6))
    y = rng.integers(0, 3, (30, 4))
    y[rng.random(y.shape) < 0.3] = -1
    ops.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12, dtype="float64"), nn.Unflatten(1, (3, 4)))
    loss_fn = loss_fn or nn.CrossEntropyLoss(ignore_index=-1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model, loss_fn, optimizer, backend="numpy"), X, y


@pytest.mark.parametrize("wrapped", [False, True])
def test_classes_on_the_second_axis_and_labels_that_do_not_count(wrapped):
    inner = nn.CrossEntropyLoss(ignore_index=-1)
    trainer, X, y = _sequence((lambda o, t: 0.5 * inner(o, t)) if wrapped else inner)
    history = trainer.fit(X, y, verbose=False, validation_data=(X, y))
    found = trainer.evaluate(X, y, metrics=["f1_micro", "top_2_accuracy"])
    outputs = trainer.predict(X)
    kept = y != -1
    expected = np.mean(outputs.argmax(axis=1)[kept] == y[kept])
    assert found["accuracy"] == history["val_accuracy"][-1] == pytest.approx(expected)
    assert found["f1_micro"] == pytest.approx(expected)
    best = np.argsort(outputs, axis=1)[:, 1:]
    assert found["top_2_accuracy"] == np.mean((best == y[:, None]).any(axis=1)[kept])


def test_classes_on_the_last_axis_where_only_it_fits():
    rng = np.random.default_rng(1)
    outputs, y = rng.normal(size=(9, 5, 3)), rng.integers(0, 3, (9, 5))
    assert _value("accuracy", y, outputs) == np.mean(outputs.argmax(axis=-1) == y)


def test_several_labels_a_sample_are_right_together():
    y = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    outputs = np.array([[2.0, -1], [1, -1], [-1, -2], [3, 4]])
    assert _value("accuracy", y, outputs, 0.0) == 0.5
    assert _value("recall", y, outputs, 0.0) == pytest.approx((1 + 0.5) / 2)
    assert _value("precision_micro", y, outputs, 0.0) == pytest.approx(3 / 4)
    flat = np.stack([y, y], axis=2)  # (N, labels, positions)
    assert _value("accuracy", flat, np.stack([outputs, outputs], axis=2), 0.0) == 0.5


def test_one_hot_targets_of_a_loss_of_classes():
    X, y = points()
    hot = np.eye(3)[y]
    model = nn.Linear(2, 3)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    found = trainer.evaluate(X, hot, metrics=["accuracy", "f1_macro"])
    labels = trainer.evaluate(X, y, metrics=["f1_macro"])
    assert found["accuracy"] == labels["accuracy"]
    assert found["f1_macro"] == labels["f1_macro"]


@pytest.mark.parametrize("name", metrics.names())
def test_outputs_that_are_nan_give_nan(name):
    rng = np.random.default_rng(0)
    numbers = name in ("mae", "mse", "r2", "rmse")
    y = rng.normal(size=(8, 1)) if numbers else np.arange(8) % 6
    outputs = rng.normal(size=(8, 1 if numbers else 6))
    assert np.isfinite(_value(name, y, outputs))
    outputs[3, 0] = np.nan
    assert np.isnan(_value(name, y, outputs))
    if not numbers and not name.startswith("top"):
        assert np.isnan(_value(name, np.arange(8) % 2, outputs[:, 0]))
        assert np.isnan(_value(name, rng.integers(0, 2, (8, 6)), outputs))


def test_a_diverged_model_has_no_accuracy():
    X, y = points()
    model = nn.Linear(2, 3)
    model.weight.value = np.full((3, 2), np.nan)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    found = trainer.evaluate(X, y, metrics=["f1", "auc"])
    assert all(np.isnan(value) for value in found.values())


def test_weights_and_thresholds_on_request():
    X, binary = _yes_or_no()
    w = np.linspace(0.0, 2.0, len(X))
    model = nn.Linear(2, 1)
    trainer = Trainer(
        model, nn.BCEWithLogitsLoss(), optim.SGD(model.parameters(), lr=0.1), backend="numpy"
    )
    wanted = [
        "accuracy",
        metric("accuracy", weighted=True),
        metric("accuracy", threshold=0.7),
        metric("recall", threshold=-0.2, weighted=True, label="reached"),
    ]
    found = trainer.evaluate(X, binary, wanted, sample_weight=w)
    scores = trainer.predict(X)[:, 0]
    yes = binary[:, 0] == 1
    assert list(found) == [
        "loss", "accuracy", "weighted_accuracy", "accuracy_at_0.7", "reached"
    ]  # fmt: skip
    assert found["accuracy"] == pytest.approx(np.mean((scores > 0) == yes))
    assert found["weighted_accuracy"] == pytest.approx(np.average((scores > 0) == yes, weights=w))
    assert found["accuracy_at_0.7"] == pytest.approx(np.mean((scores > 0.7) == yes))
    assert found["reached"] == pytest.approx(np.average(scores[yes] > -0.2, weights=w[yes]))
    history = trainer.fit(
        X, binary, verbose=False, metrics=wanted, sample_weight=w, class_weight={1: 5.0},
        validation_data=(X, binary, w),
    )  # fmt: skip
    for m in wanted:
        name = m if isinstance(m, str) else m.name
        assert history[name] == history[f"val_{name}"]  # class weights are no sample weights
    with pytest.raises(DataError, match="threshold is nan"):
        metric("f1", threshold=float("nan"))
    with pytest.raises(UnknownNameError, match="Did you mean 'f1_macro'"):
        metric("f1_makro", weighted=True)
