"""Searches, cross-validation and bagging: scikit-learn's own, whose networks are trained together.

Comes in: an estimator of `gpubp.sklearn` (or a pipeline with one), parameters, folds. Goes out:
scikit-learn's results and attributes.

scikit-learn's code decides what is fitted and scored; here it does so on threads of this process.
Fits that share an architecture wait for each other before their training, which is that of one
population (`gpubp.sklearn.together`); rates, penalties, seeds and folds are what its members differ
in. Scores are those of scikit-learn's loop, to the last digit, for any number of threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import joblib
import numpy as np
from sklearn import ensemble, model_selection

from gpubp.backends.apart import each_thread_apart
from gpubp.backends.numba_cpu.pool import max_workers
from gpubp.sklearn.estimators import MLPClassifier, MLPRegressor
from gpubp.sklearn.together import FitsOnThreads

MOST_AT_ONCE = 64  # fits under way, each with a thread that waits most of the time
BYTES_AT_ONCE = 1 << 28  # of their training data and weights
COPIES = 8  # of weights in a fit: its own, the best, two moments, and those of its member


def _bytes_of_fit(X: Any, candidates: Iterable[Any]) -> int:
    """What a fit holds while it waits, at most.

    Args:
        X: the data.
        candidates: estimators, and values of their parameters by name.
    """
    features = X.shape[1] if len(getattr(X, "shape", ())) == 2 else 1
    given = [
        value
        for candidate in candidates
        for name, value in _parameters(candidate).items()
        if name.endswith("hidden_layer_sizes")
    ]
    most = max((_weights(features, value) for value in given), default=0)
    return 8 * (int(np.size(X)) + COPIES * most)


def _parameters(candidate: Any) -> Mapping[str, Any]:
    if isinstance(candidate, Mapping):
        return candidate
    found: Mapping[str, Any] = getattr(candidate, "get_params", dict)()
    return found


def _weights(features: int, hidden: Any) -> int:
    """How many weights such layers have; 0 for what scikit-learn is going to refuse."""
    try:
        units = [features, *np.atleast_1d(np.asarray(hidden, np.int64)).tolist(), 1]
    except (TypeError, ValueError, OverflowError):
        return 0
    return sum(a * b for a, b in pairwise(units))


def _settings(grid: Any) -> list[Mapping[str, Any]]:
    """All settings of a grid, or none where it is not one: scikit-learn says so then."""
    try:
        return list(model_selection.ParameterGrid(grid))
    except (TypeError, ValueError):
        return []


@contextmanager
def _on_threads(n_jobs: int | None, X: Any, candidates: Iterable[Any]) -> Iterator[None]:
    """While open, joblib's fits are done by threads: as many as processors, if nothing is said.

    Each thread has warning filters of its own while it works, and puts back what it found: several
    at once may leave those of another, so the caller's are put back in the end.
    """
    threads = n_jobs or max_workers()
    at_once = min(MOST_AT_ONCE, BYTES_AT_ONCE // max(1, _bytes_of_fit(X, candidates)))
    backend = FitsOnThreads(max(2, at_once))
    with (
        warnings.catch_warnings(),
        each_thread_apart(),
        joblib.parallel_config(backend, n_jobs=threads),
    ):
        yield


class GridSearchCV(model_selection.GridSearchCV):  # type: ignore[misc]
    """sklearn.model_selection.GridSearchCV, which trains networks of one architecture as one
    population.

    Arguments, methods and attributes are scikit-learn's, and so are all scores. `n_jobs` is the
    number of threads; None means all processors that this process may use. The fit times of
    `cv_results_` are those of all fits that were trained together, waiting included.
    """

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit and score all candidates on all folds, then refit the best; see scikit-learn."""
        candidates = [self.estimator, *_settings(self.param_grid)]
        with _on_threads(self.n_jobs, X, candidates):
            return super().fit(X, y, **params)


def cross_validate(estimator: Any, X: Any, y: Any = None, **options: Any) -> dict[str, Any]:
    """sklearn.model_selection.cross_validate, which trains the folds' networks as one population.

    Args:
        estimator, X, y, **options: scikit-learn's. n_jobs is the number of threads; None means all
            processors that this process may use.

    Returns:
        scikit-learn's dict: test_score, fit_time and the rest.
    """
    with _on_threads(options.get("n_jobs"), X, [estimator]):
        found: dict[str, Any] = model_selection.cross_validate(estimator, X, y, **options)
        return found


class BaggingMLPClassifier(ensemble.BaggingClassifier):  # type: ignore[misc]
    """sklearn.ensemble.BaggingClassifier of `MLPClassifier`s, trained as one population.

    Arguments, methods and attributes are scikit-learn's; `estimator` is a `MLPClassifier()` unless
    another one is given. Each network is trained on rows drawn with replacement (Breiman, "Bagging
    predictors", 1996).
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Any:
        """Train the networks on samples of the rows."""
        with _on_threads(self.n_jobs, X, [self._get_estimator()]):
            return super().fit(X, y, sample_weight=sample_weight, **params)

    def _get_estimator(self) -> Any:
        return MLPClassifier() if self.estimator is None else self.estimator


class BaggingMLPRegressor(ensemble.BaggingRegressor):  # type: ignore[misc]
    """sklearn.ensemble.BaggingRegressor of `MLPRegressor`s, trained as one population.

    Arguments, methods and attributes are scikit-learn's; `estimator` is a `MLPRegressor()` unless
    another one is given.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Any:
        """Train the networks on samples of the rows."""
        with _on_threads(self.n_jobs, X, [self._get_estimator()]):
            return super().fit(X, y, sample_weight=sample_weight, **params)

    def _get_estimator(self) -> Any:
        return MLPRegressor() if self.estimator is None else self.estimator


# Pickles name the public place.
for _made in (GridSearchCV, BaggingMLPClassifier, BaggingMLPRegressor):
    _made.__module__ = "gpubp.sklearn"
