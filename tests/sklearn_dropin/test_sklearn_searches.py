"""Searches, cross-validation and bagging on threads: scikit-learn's results to the last digit."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn import ensemble, model_selection
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpubp.backends.apart import each_thread_apart, runs_apart
from gpubp.sklearn import (
    BaggingMLPClassifier,
    BaggingMLPRegressor,
    GridSearchCV,
    MLPClassifier,
    MLPRegressor,
    cross_validate,
)

X, Y = load_iris(return_X_y=True)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def _classifier(**options: Any) -> MLPClassifier:
    return MLPClassifier((8,), max_iter=6, random_state=0, batch_size=32, **options)


def _scores(results: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in results.items() if "time" not in k}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_grid_search_has_scikit_learns_scores(threads: int) -> None:
    grid = {
        "mlpclassifier__alpha": [1e-4, 1e-2],
        "mlpclassifier__learning_rate_init": [1e-3, 1e-2],
        "mlpclassifier__hidden_layer_sizes": [(8,), (5, 4)],
    }
    made = make_pipeline(StandardScaler(), _classifier(early_stopping=True))
    options: dict[str, Any] = {"cv": 3, "return_train_score": True}
    expected = model_selection.GridSearchCV(made, grid, n_jobs=1, **options).fit(X, Y)
    found = GridSearchCV(made, grid, n_jobs=threads, **options).fit(X, Y)
    mine, theirs = _scores(found.cv_results_), _scores(expected.cv_results_)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert np.asarray(mine[name] == value).all(), name
    assert found.best_params_ == expected.best_params_
    assert np.array_equal(found.predict_proba(X), expected.predict_proba(X))
    assert isinstance(pickle.loads(pickle.dumps(found)), GridSearchCV)


@pytest.mark.parametrize("threads", [None, 2])
def test_cross_validation_has_scikit_learns_scores(threads: int | None) -> None:
    options: dict[str, Any] = {"cv": 4, "scoring": ["accuracy", "neg_log_loss"]}
    expected = model_selection.cross_validate(_classifier(), X, Y, n_jobs=1, **options)
    found = cross_validate(_classifier(), X, Y, n_jobs=threads, **options)
    for name, value in _scores(expected).items():
        assert np.array_equal(found[name], value), name


@pytest.mark.parametrize(
    ("mine", "theirs", "network"),
    [
        (BaggingMLPClassifier, ensemble.BaggingClassifier, MLPClassifier),
        (BaggingMLPRegressor, ensemble.BaggingRegressor, MLPRegressor),
    ],
    ids=["classifier", "regressor"],
)
def test_bagging_has_scikit_learns_predictions(mine: Any, theirs: Any, network: Any) -> None:
    one = network(hidden_layer_sizes=(8,), max_iter=6)
    found = mine(one, 5, random_state=0, n_jobs=2).fit(X, Y)
    expected = theirs(one, 5, random_state=0, n_jobs=1).fit(X, Y)
    found.set_params(n_jobs=1)  # scikit-learn adds up predictions in as many parts
    assert np.array_equal(found.predict(X), expected.predict(X))
    for a, b in zip(found.estimators_, expected.estimators_, strict=True):
        assert all(map(np.array_equal, a.coefs_, b.coefs_))
    assert isinstance(mine(n_estimators=1).fit(X, Y).estimators_[0], network)


def test_threads_of_a_search_run_apart_and_its_own_does_not() -> None:
    seen: list[bool] = []
    with each_thread_apart():
        thread = threading.Thread(target=lambda: seen.append(runs_apart()))
        thread.start()
        thread.join()
        assert seen == [True] and not runs_apart()
    assert not runs_apart()


def test_a_fit_that_fails_is_scikit_learns_failure() -> None:
    grid = {"learning_rate_init": [1e-3, -1.0]}
    with pytest.warns(Warning, match="fits failed"):
        found = GridSearchCV(_classifier(), grid, cv=3, n_jobs=2).fit(X, Y)
    assert np.isnan(found.cv_results_["mean_test_score"][1])
    assert found.best_params_ == {"learning_rate_init": 1e-3}
