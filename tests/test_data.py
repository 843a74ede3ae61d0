"""The bundled digits, splits, and checks of input data."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from gpubp.data import load_digits, train_test_split
from gpubp.data.checks import check_finite, check_labels, check_pair
from gpubp.errors import DataError


def test_digits_have_the_documented_types():
    X, y = load_digits()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((1797, 64), np.float32, (1797,), np.int64)
    assert (X.min(), X.max()) == (0.0, 1.0)
    # The counts that UCI gives for its test set.
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_equal_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn")
    X, y = load_digits()
    reference = datasets.load_digits()
    np.testing.assert_array_equal(X * 16, reference.data)
    np.testing.assert_array_equal(y, reference.target)


def test_the_bundled_file_is_small():
    assert len(resources.files("gpubp.data").joinpath("digits.npz").read_bytes()) < 60_000


def test_split_of_digits_is_always_the_same():
    first, second = load_digits(split=True), load_digits(split=True)
    assert [len(part) for part in first] == [1437, 360, 1437, 360]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_split_keeps_pairs_together_and_loses_nothing():
    X = np.arange(11)[:, None] * np.ones((1, 2))
    y = np.arange(11)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, seed=3)
    np.testing.assert_array_equal(X_train[:, 0], y_train)
    np.testing.assert_array_equal(X_test[:, 1], y_test)
    assert len(y_test) == 3
    assert sorted([*y_train, *y_test]) == list(range(11))
    assert train_test_split(X, y, seed=4)[3].tolist() != train_test_split(X, y, seed=5)[3].tolist()


@pytest.mark.parametrize(
    ("lengths", "test_size", "message"),
    [
        ((4, 3), 0.5, "X has 4 samples and y has 3"),
        ((4, 4), 0.0, "test_size is 0.0"),
        ((4, 4), 1.0, "test_size is 1.0"),
        ((1, 1), 0.5, "1 samples cannot be split"),
    ],
)
def test_impossible_splits_are_refused(lengths, test_size, message):
    with pytest.raises(DataError, match=message):
        train_test_split(np.zeros(lengths[0]), np.zeros(lengths[1]), test_size)


def test_checks_say_where():
    X = np.zeros((3, 2))
    X[1, 1] = np.nan
    X[2, 0] = np.inf
    with pytest.raises(DataError, match=r"X holds nan at index \(1, 1\) \(2 such values in all\)"):
        check_finite(X, "X")
    with pytest.raises(DataError, match=r"y holds label 3 at index \(2,\); expected 0 to 2"):
        check_labels(np.array([0, 2, 3]), 3)
    with pytest.raises(DataError, match=r"label -1 at index \(0,\)"):
        check_labels(np.array([-1, 2]), 3)
    with pytest.raises(DataError, match="X is empty"):
        check_pair(np.zeros((0, 2)), np.zeros(0))
    with pytest.raises(DataError, match="X has 2 samples and y has 3"):
        check_pair(np.zeros((2, 2)), np.zeros(3))


def test_checks_pass_good_data():
    check_pair(np.zeros((2, 2)), np.array([0, 1]))
    check_finite(np.array([1, 2]), "integers")
    check_labels(np.array([0, 1, 2]), 3)
