"""class_weight: counted over the rows that are trained on, and weighing those alone."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import nn, ops, optim
from gpubp.errors import DataError
from gpubp.train import Trainer
from gpubp.train.weights import sample_weights

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.where(np.arange(60) < 45, 0, RNG.integers(1, 3, 60))


def _trainer(loss_fn=None, outputs=3, lr=0.1):
    ops.manual_seed(1)
    model = nn.Linear(4, outputs, dtype="float64")
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    return Trainer(model, loss_fn, optim.SGD(model.parameters(), lr=lr), backend="numpy")


def _fit(made, X, y, **options):
    made.fit(X, y, epochs=2, batch_size=8, verbose=False, **options)
    return made.model.state_dict()["weight"], dict(made.history)


def _halves(samples, share=0.25, seed=0):
    """As `validation_split` draws them."""
    order = np.random.default_rng(seed).permutation(samples)
    held = -int(-share * samples // 1)
    return np.sort(order[held:]), np.sort(order[:held])


@pytest.mark.parametrize("weights", ["balanced", {0: 0.5, 2: 7.0}])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_split_is_the_same_as_validation_data(weights, sampled):
    rows, held = _halves(60)
    w = RNG.uniform(0.5, 2.0, 60) if sampled else None
    split = _fit(_trainer(), X, Y, class_weight=weights, validation_split=0.25, sample_weight=w)
    data = (X[held], Y[held]) if w is None else (X[held], Y[held], w[held])
    apart = _fit(
        _trainer(), X[rows], Y[rows], class_weight=weights, validation_data=data,
        sample_weight=None if w is None else w[rows],
    )  # fmt: skip
    np.testing.assert_array_equal(split[0], apart[0])
    assert split[1] == apart[1]


def test_the_validation_loss_has_no_class_weights():
    _, held = _halves(60)
    made = _trainer()
    _fit(made, X, Y, class_weight={0: 0.0, 1: 9.0}, validation_split=0.25)
    expected = made.evaluate(X[held], Y[held])["loss"]
    assert made.history["val_loss"][-1] == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, bool])
@pytest.mark.parametrize("shape", [(60, 1), (60,)])
@pytest.mark.parametrize("weights", ["balanced", {0: 0.25, 1: 3.0}, {1.0: 3.0, 0.0: 0.25}])
def test_class_weights_of_yes_or_no_labels_are_sample_weights(dtype, shape, weights):
    yes = (Y > 0).reshape(shape).astype(dtype)
    loss = nn.BCEWithLogitsLoss() if len(shape) == 2 else _flat
    found, _ = _fit(_trainer(loss, 1), X, yes, class_weight=weights)
    counts = np.bincount(yes.reshape(-1).astype(int))
    table = [60 / (2 * c) for c in counts] if weights == "balanced" else [0.25, 3.0]
    by_sample = np.choose(yes.reshape(-1).astype(int), table)
    expected, _ = _fit(_trainer(loss, 1), X, yes, sample_weight=by_sample)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def _flat(outputs, y, weights=None):
    each = ops.softplus(outputs[:, 0]) - outputs[:, 0] * ops.astype(y, "float64")
    return ops.mean(each if weights is None else each * weights)


def test_classes_that_do_not_occur():
    y = np.where(Y == 1, 0, Y)
    table = {0: 0.5, 1: 100.0, 2: 2.0}
    found, _ = _fit(_trainer(), X, y, class_weight=table)
    expected, _ = _fit(_trainer(), X, y, sample_weight=np.choose(y, [0.5, 100.0, 2.0]))
    np.testing.assert_array_equal(found, expected)
    balanced = sample_weights(y, None, "balanced", np.float64)
    counts = np.bincount(y)
    np.testing.assert_allclose(balanced, 60 / (2 * counts[y]))
    only = np.zeros(60, np.int64)  # one class alone, of three
    np.testing.assert_array_equal(sample_weights(only, None, "balanced", np.float64), np.ones(60))
    _fit(_trainer(), X, only, class_weight=table)


def test_balanced_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = rng.choice(rng.integers(0, 9, rng.integers(1, 6)), 40)
        found = sample_weights(y, None, "balanced", np.float64)
        np.testing.assert_allclose(found, sklearn.compute_sample_weight("balanced", y))


@pytest.mark.parametrize("wrapped", [False, True])
def test_ignored_labels_are_no_class(wrapped):
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, outputs, y):
            return self.inner(outputs, y)

    y = np.where(np.arange(60) % 4 == 0, -100, Y)
    loss_fn = nn.CrossEntropyLoss(ignore_index=-100)
    kept = y[y >= 0]
    counts = np.bincount(kept)
    table = len(kept) / (3 * counts)
    made = _trainer(Wrapped(loss_fn) if wrapped else loss_fn)
    found, _ = _fit(made, X, y, class_weight="balanced")
    w = np.where(y < 0, 1.0, table[np.maximum(y, 0)])
    expected, _ = _fit(_trainer(loss_fn), X, y, sample_weight=w)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    _fit(_trainer(loss_fn), X, y, class_weight={-100: 1.0, 0: 2.0})


@pytest.mark.parametrize(
    ("y", "weights", "message"),
    [
        (X[:, :1], "balanced", "one integer label a sample"),
        (np.stack([Y, Y], 1), {0: 1.0}, "one integer label a sample"),
        (Y, {3: 1.0}, "weight for 3, which is no label; labels are 0 to 2"),
        (Y, {"a": 1.0}, "weight for 'a', which is no label"),
        (Y, {0.5: 1.0}, "weight for 0.5, which is no label"),
        (Y, {0: 0.0, 1: 0.0, 2: 0.0}, "all weights are 0"),
        (Y, {0: np.inf}, "class_weight holds inf"),
    ],
)
def test_weights_that_cannot_be_used(y, weights, message):
    loss = nn.MSELoss() if y.ndim > 1 else nn.CrossEntropyLoss()
    with pytest.raises(DataError, match=message):
        _fit(_trainer(loss, y.shape[1] if y.ndim > 1 else 3), X, y, class_weight=weights)
