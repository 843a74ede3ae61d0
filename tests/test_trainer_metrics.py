"""Metrics: which targets and outputs they take. Their values: tests/oracle/test_sklearn_metrics."""

from __future__ import annotations

import numpy as np
import pytest
from points import points

from gpubp import nn, optim
from gpubp.errors import DataError, UnknownNameError
from gpubp.train import Trainer, metrics

Y = np.array([0, 1, 2, 1])
LOGITS = np.array([[3.0, 1, 0], [0, 2, 1], [0, 2, 1], [1, 0, 0]])


def _value(name, y, outputs, threshold=0.5):
    return metrics.find([name])[0].compute(np.asarray(y), np.asarray(outputs), threshold)


def test_by_hand():
    assert _value("accuracy", Y, LOGITS) == 0.5
    assert _value("top_2_accuracy", Y, LOGITS) == 1.0  # of equal outputs the first wins
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
def test_unknown_names(name, near):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{near}'"):
        metrics.find([name])


def test_every_name_that_is_listed_is_known():
    assert [metric.name for metric in metrics.find(metrics.names())] == metrics.names()


def test_the_threshold_follows_the_loss():
    X, y = points()
    binary = (y == 0).astype(np.float32)[:, None]
    loss = getattr(nn, "BCEWithLogitsLoss", None)
    if loss is None:
        pytest.skip("nn has no BCEWithLogitsLoss yet")
    model = nn.Linear(2, 1)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    trainer = Trainer(model, loss(), optimizer, backend="numpy")
    trainer.fit(X, binary, epochs=10, verbose=False)
    found = trainer.evaluate(X, binary, metrics=["accuracy"])["accuracy"]
    assert found == np.mean((trainer.predict(X) > 0) == binary)
    assert found > 0.95
