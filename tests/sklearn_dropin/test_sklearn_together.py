"""Fits of a search are members of a population, and get what they would get alone, bit for bit."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

import scipy.sparse
from sklearn import model_selection
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpubp.sklearn import (
    GridSearchCV,
    MLPClassifier,
    MLPRegressor,
    cross_validate,
    report,
    reset_report,
    searching,
)

X, Y = load_iris(return_X_y=True)
LABELS = make_multilabel_classification(90, 5, n_classes=3, random_state=0)
TARGETS = make_regression(90, 5, n_targets=2, random_state=0)
WEIGHTS = np.random.default_rng(0).uniform(0.1, 2.0, len(X))
SETTINGS = {"alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 1e-2]}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def _network(kind: Any = MLPClassifier, **options: Any) -> Any:
    known = {
        "hidden_layer_sizes": (6,),
        "max_iter": 15,
        "random_state": 0,
        "batch_size": 32,
        "n_iter_no_change": 3,
    }
    return kind(**{**known, **options})


def _same(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """All but the times, to the last digit."""
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        if "time" not in name:
            np.testing.assert_array_equal(np.asarray(mine[name]), np.asarray(value), name)


def _searched(estimator: Any, grid: Any, data: Any = (X, Y), **options: Any) -> Any:
    """Search with both; returns ours."""
    fit = options.pop("fit", {})
    options = {"cv": 3, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model_selection.GridSearchCV(estimator, grid, **{**options, "n_jobs": 1})
        theirs.fit(*data, **fit)
        reset_report()
        mine = GridSearchCV(estimator, grid, **{"n_jobs": 2, **options}).fit(*data, **fit)
    _same(mine.cv_results_, theirs.cv_results_)
    assert getattr(mine, "best_params_", None) == getattr(theirs, "best_params_", None)
    return mine


def _members() -> int:
    """How many of the fits since the last search were members of a population."""
    lines = [line for line in report().splitlines() if "in a population" in line]
    return sum(int(line.split(":")[1].split(" x")[0]) for line in lines)


FULL = pytest.mark.full
KINDS = {
    "softmax": ({}, (X, Y)),
    "dropout": ({"dropout": 0.3, "max_grad_norm": 0.5}, (X, Y)),
    "several_targets": ({"kind": MLPRegressor}, TARGETS),
    "float32": ({}, (X.astype(np.float32), Y)),
    "logistic": ({}, (X, Y > 0)),
    "multilabel": ({}, LABELS),
    "huber": ({"kind": MLPRegressor, "loss": "huber"}, (X, Y * 1.0)),
    "sgd": ({"solver": "sgd"}, (X, Y)),
    "plain_sgd": ({"solver": "sgd", "momentum": 0.0, "shuffle": False}, (X, Y)),
    "invscaling": ({"solver": "sgd", "learning_rate": "invscaling"}, (X, Y)),
    "adaptive": (
        {"solver": "sgd", "learning_rate": "adaptive", "max_iter": 60, "tol": 0.05},
        (X, Y),
    ),
    "stops": ({"tol": 0.05, "max_iter": 60}, (X, Y)),
    "class_weight": ({"class_weight": "balanced"}, (X, Y)),
    "one_batch": ({"batch_size": 1000}, (X, Y)),
    "sparse": ({}, (scipy.sparse.csr_matrix(X), Y)),
}


@pytest.mark.parametrize(
    "kind", [k if i < 3 else pytest.param(k, marks=FULL) for i, k in enumerate(KINDS)]
)
def test_all_fits_of_one_architecture_are_one_population(kind: str) -> None:
    options, data = KINDS[kind]
    found = _searched(_network(**options), SETTINGS, data, return_train_score=True)
    assert _members() == 12
    assert found.best_estimator_.n_iter_ > 0


@FULL
def test_architectures_and_rules_are_populations_of_their_own() -> None:
    grid = {"hidden_layer_sizes": [(6,), (5, 4)], "solver": ["adam", "sgd"], "alpha": [0.0, 0.1]}
    _searched(_network(), grid)
    assert _members() == 24


def test_preprocessing_is_that_of_each_fold() -> None:
    steps = make_pipeline(StandardScaler(), PCA(), _network())
    grid = {"pca__n_components": [2, 3], "mlpclassifier__alpha": [1e-4, 1.0]}
    _searched(steps, grid)
    assert _members() == 12


@FULL
def test_what_somebody_looks_at_between_epochs_is_trained_alone() -> None:
    grid = {"early_stopping": [False, True], "solver": ["adam", "lbfgs"], "alpha": [1e-4, 1.0]}
    _searched(_network(), grid)
    assert _members() == 6


@FULL
def test_other_estimators_are_fitted_as_ever() -> None:
    grid = [
        {"last": [LogisticRegression(C=c) for c in (0.1, 1.0)]},
        {"last": [_network()], "last__alpha": [1e-4, 1.0]},
    ]
    steps = make_pipeline(StandardScaler(), _network())
    steps.steps[1] = ("last", steps.steps[1][1])
    _searched(steps, grid)
    assert _members() == 6


@FULL
def test_several_networks_in_one_fit_meet_again() -> None:
    several = MultiOutputRegressor(_network(MLPRegressor))
    _searched(several, {"estimator__alpha": [1e-4, 1.0]}, TARGETS)
    assert _members() == 14  # and the two networks of the refit


@FULL
def test_a_single_fit_of_its_kind_is_trained_alone() -> None:
    grid = {"hidden_layer_sizes": [(3,), (4,)]}
    split = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
    _searched(_network(), grid, cv=split)
    assert _members() == 0


TAKEN = {
    "sample_weight": {"fit": {"sample_weight": WEIGHTS}},
    "scorers": {"scoring": ["accuracy", "neg_log_loss"], "refit": "accuracy"},
    "no_refit": {"scoring": ["accuracy", "neg_log_loss"], "refit": False},
    "scoring": {
        "scoring": lambda estimator, X, y: {"a": estimator.score(X, y), "b": 1.0},
        "refit": "a",
    },
    "refit": {"refit": lambda results: 2},
    "one_job": {"n_jobs": 1},
    "all_jobs": {"n_jobs": -1},
    "one_by_one": {"pre_dispatch": 1},
    "all_dispatched": {"pre_dispatch": "all"},
}


@pytest.mark.parametrize(
    "name", [k if i < 2 else pytest.param(k, marks=FULL) for i, k in enumerate(TAKEN)]
)
def test_what_scikit_learn_takes_is_taken(name: str) -> None:
    _searched(_network(), SETTINGS, **TAKEN[name])
    assert _members() == (0 if name == "one_by_one" else 12)


@FULL
def test_more_fits_than_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MOST_AT_ONCE", 5)
    _searched(_network(), {"alpha": np.geomspace(1e-5, 1.0, 7)})
    assert _members() >= 15


def test_large_fits_are_fewer_at_once() -> None:
    small = searching._bytes_of_fit(X, [_network()])
    assert small == 8 * (X.size + searching.COPIES * (4 * 6 + 6))
    settings = searching._settings({"last__hidden_layer_sizes": [(6,), (100, 50), 7]})
    large = searching._bytes_of_fit(X, [_network(), *settings])
    assert large == 8 * (X.size + searching.COPIES * (4 * 100 + 100 * 50 + 50))
    assert searching._settings(3) == []


def test_cross_validation_trains_its_folds_together() -> None:
    options: dict[str, Any] = {"cv": 4, "return_train_score": True, "return_estimator": True}
    theirs = model_selection.cross_validate(_network(), X, Y, **options)
    reset_report()
    mine = cross_validate(_network(), X, Y, n_jobs=2, **options)
    pairs = zip(mine.pop("estimator"), theirs.pop("estimator"), strict=True)
    _same(mine, theirs)
    assert _members() == 4
    for found, expected in pairs:
        assert found.loss_curve_ == expected.loss_curve_ and found.n_iter_ == expected.n_iter_
        for name in ("coefs_", "intercepts_"):
            assert all(map(np.array_equal, getattr(found, name), getattr(expected, name)))
        for name in ("ms", "vs"):
            ours, own = getattr(found._optimizer, name), getattr(expected._optimizer, name)
            assert all(map(np.array_equal, ours, own))
        assert found._optimizer.t == expected._optimizer.t


def test_one_that_diverges_fails_alone() -> None:
    grid = {"learning_rate_init": [1e-3, 1e300], "alpha": [1e-4, 1e-2]}
    found = _searched(_network(solver="sgd"), grid, error_score=-1.0)
    failed = found.cv_results_["param_learning_rate_init"] == 1e300
    assert (found.cv_results_["mean_test_score"][failed] == -1.0).all()
    assert (found.cv_results_["mean_test_score"][~failed] > 0).all() and _members() >= 6


@FULL
def test_one_whose_batch_has_no_weight_fails_alone() -> None:
    weights = np.ones(len(X))
    weights[:40] = 0.0  # in the order in which they lie, the first batch of a fold has none
    options = {"fit": {"sample_weight": weights}, "error_score": 0.0}
    estimator = _network(batch_size=20)
    _searched(estimator, {"shuffle": [True, False], "alpha": [1e-4, 1.0]}, **options)


def test_a_failure_is_raised_where_the_user_wants_it_raised() -> None:
    grid = {"alpha": [1e-4, -1.0]}
    before = threading.active_count()
    with pytest.raises(ValueError, match="alpha"):
        GridSearchCV(_network(), grid, cv=3, n_jobs=2, error_score="raise").fit(X, Y)
    for _ in range(100):
        if threading.active_count() <= before:
            break
        threading.Event().wait(0.05)
    assert threading.active_count() <= before
    _searched(_network(), SETTINGS)  # and nothing is left behind


def test_warnings_that_are_errors_fail_their_own_fit() -> None:
    estimator = _network(tol=0.05)
    grid = {"max_iter": [4, 200], "alpha": [1e-4, 1e-2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="Stochastic Optimizer: Maximum iterations")
        found = GridSearchCV(estimator, grid, cv=3, n_jobs=2, refit=False).fit(X, Y)
    short = found.cv_results_["param_max_iter"] == 4
    scores = found.cv_results_["mean_test_score"]
    assert np.isnan(scores[short]).all() and np.isfinite(scores[~short]).all()


@FULL
def test_filters_of_warnings_are_put_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = list(warnings.filters)
        GridSearchCV(_network(), SETTINGS, cv=3, n_jobs=2).fit(X, Y)
        assert list(warnings.filters) == before


def test_ctrl_c_ends_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpubp.sklearn import crew

    calls = []

    def pressed(self: Any, i: int, fit: Any, losses: Any) -> Any:
        calls.append(i)
        raise KeyboardInterrupt

    before = threading.active_count()
    with monkeypatch.context() as patched:
        patched.setattr(crew.Crew, "_note", pressed)
        with pytest.raises(KeyboardInterrupt):
            GridSearchCV(_network(), SETTINGS, cv=3, n_jobs=2).fit(X, Y)
    assert len(calls) == 1
    for _ in range(100):
        if threading.active_count() <= before:
            break
        threading.Event().wait(0.05)
    assert threading.active_count() <= before
    _searched(_network(), SETTINGS)


@FULL
def test_a_search_inside_of_a_cross_validation() -> None:
    inner = {"estimator": _network(), "param_grid": {"alpha": [1e-4, 1.0]}, "cv": 2}
    theirs = model_selection.cross_validate(model_selection.GridSearchCV(**inner), X, Y, cv=3)
    reset_report()
    mine = cross_validate(GridSearchCV(**inner, n_jobs=2), X, Y, cv=3, n_jobs=2)
    _same(mine, theirs)
    assert _members() == 15  # of three searches four each, and their refits


@pytest.mark.full
def test_five_folds_and_twelve_settings_on_digits() -> None:
    from sklearn.datasets import load_digits

    grid = {
        "alpha": [1e-4, 1e-3],
        "learning_rate_init": [1e-3, 3e-3, 1e-2],
        "hidden_layer_sizes": [(100,), (50, 50)],
    }
    estimator = MLPClassifier(max_iter=12, random_state=0)
    _searched(estimator, grid, load_digits(return_X_y=True), cv=5, refit=False)
    assert _members() == 60
