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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import joblib
import numpy as np
from sklearn import ensemble, model_selection

from gpubp.backends.apart import each_thread_apart
from gpubp.backends.numba_cpu.pool import max_workers
from gpubp.sklearn.estimators import MLPClassifier, MLPRegressor
from gpubp.sklearn.together import FitsOnThreads

MOST_AT_ONCE = 64  # fits under way, each with a thread that waits most of the time
BYTES_AT_ONCE = 1 << 28  # of their training data


@contextmanager
def _on_threads(n_jobs: int | None, X: Any) -> Iterator[None]:
    """While open, joblib's fits are done by threads: as many as processors, if nothing is said.

    Each thread has warning filters of its own while it works, and puts back what it found: several
    at once may leave those of another, so the caller's are put back in the end.
    """
    threads = n_jobs or max_workers()
    at_once = min(MOST_AT_ONCE, BYTES_AT_ONCE // max(1, 8 * np.size(X)))
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
        with _on_threads(self.n_jobs, X):
            return super().fit(X, y, **params)


def cross_validate(estimator: Any, X: Any, y: Any = None, **options: Any) -> dict[str, Any]:
    """sklearn.model_selection.cross_validate, which trains the folds' networks as one population.

    Args:
        estimator, X, y, **options: scikit-learn's. n_jobs is the number of threads; None means all
            processors that this process may use.

    Returns:
        scikit-learn's dict: test_score, fit_time and the rest.
    """
    with _on_threads(options.get("n_jobs"), X):
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
        with _on_threads(self.n_jobs, X):
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
        with _on_threads(self.n_jobs, X):
            return super().fit(X, y, sample_weight=sample_weight, **params)

    def _get_estimator(self) -> Any:
        return MLPRegressor() if self.estimator is None else self.estimator


# Pickles name the public place.
for _made in (GridSearchCV, BaggingMLPClassifier, BaggingMLPRegressor):
    _made.__module__ = "gpubp.sklearn"
