"""Searches, cross-validation and bagging: scikit-learn's own, with many networks trained at once.

Comes in: an estimator of `gpubp.sklearn` (or a pipeline with one), parameters, folds. Goes out:
scikit-learn's results and attributes.

scikit-learn's code decides what is fitted and scored; here it does so on threads of this process,
each of which takes one network after the other through all of its training, as members of a
population are taken: without barriers, and with programs that are traced once a thread for each
architecture (rates, penalties, seeds and folds are no part of a program). So scores are those of
scikit-learn's loop, to the last digit, for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import joblib
from sklearn import ensemble, model_selection

from gpubp.backends.apart import each_thread_apart
from gpubp.backends.numba_cpu.pool import max_workers
from gpubp.sklearn.estimators import MLPClassifier, MLPRegressor


@contextmanager
def _on_threads(n_jobs: int | None) -> Iterator[None]:
    """While open, joblib's work is done by threads, as many as processors if nothing is said."""
    with each_thread_apart(), joblib.parallel_config("threading", n_jobs=n_jobs or max_workers()):
        yield


class GridSearchCV(model_selection.GridSearchCV):  # type: ignore[misc]
    """sklearn.model_selection.GridSearchCV, whose networks are trained side by side on threads.

    Arguments, methods and attributes are scikit-learn's, and so are all scores. `n_jobs` is the
    number of threads; None means all processors that this process may use.
    """

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit and score all candidates on all folds, then refit the best; see scikit-learn."""
        with _on_threads(self.n_jobs):
            return super().fit(X, y, **params)


def cross_validate(estimator: Any, X: Any, y: Any = None, **options: Any) -> dict[str, Any]:
    """sklearn.model_selection.cross_validate, whose folds are trained side by side on threads.

    Args:
        estimator, X, y, **options: scikit-learn's. n_jobs is the number of threads; None means all
            processors that this process may use.

    Returns:
        scikit-learn's dict: test_score, fit_time and the rest.
    """
    with _on_threads(options.get("n_jobs")):
        found: dict[str, Any] = model_selection.cross_validate(estimator, X, y, **options)
        return found


class BaggingMLPClassifier(ensemble.BaggingClassifier):  # type: ignore[misc]
    """sklearn.ensemble.BaggingClassifier of `MLPClassifier`s, trained side by side on threads.

    Arguments, methods and attributes are scikit-learn's; `estimator` is a `MLPClassifier()` unless
    another one is given. Each network is trained on rows drawn with replacement (Breiman, "Bagging
    predictors", 1996).
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Any:
        """Train the networks on samples of the rows."""
        with _on_threads(self.n_jobs):
            return super().fit(X, y, sample_weight=sample_weight, **params)

    def _get_estimator(self) -> Any:
        return MLPClassifier() if self.estimator is None else self.estimator


class BaggingMLPRegressor(ensemble.BaggingRegressor):  # type: ignore[misc]
    """sklearn.ensemble.BaggingRegressor of `MLPRegressor`s, trained side by side on threads.

    Arguments, methods and attributes are scikit-learn's; `estimator` is a `MLPRegressor()` unless
    another one is given.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Any:
        """Train the networks on samples of the rows."""
        with _on_threads(self.n_jobs):
            return super().fit(X, y, sample_weight=sample_weight, **params)

    def _get_estimator(self) -> Any:
        return MLPRegressor() if self.estimator is None else self.estimator


# Pickles name the public place.
for _made in (GridSearchCV, BaggingMLPClassifier, BaggingMLPRegressor):
    _made.__module__ = "gpubp.sklearn"
