"""A grid search: gpubp's, and scikit-learn's own."""

from __future__ import annotations

import warnings
from typing import Any

import sklearn
from sklearn import model_selection, neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from common.case import Case
from common.population_tasks import SearchTask


class Search(Case):
    """Fits all candidates on all folds."""

    def __init__(self, task: SearchTask, network: Any, search: Any) -> None:
        self._data = load_digits(return_X_y=True)
        estimator = network(max_iter=task.iterations, random_state=0)
        self._search = search(estimator, task.grid(), cv=5, n_jobs=task.jobs, refit=False)

    def run(self) -> Any:
        """The whole search; the losses of a search are its scores."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._search.fit(*self._data)
        return self._search.cv_results_["mean_test_score"]


def build(variant: str, task: SearchTask) -> Case:
    """The case of a variant."""
    if variant == "sklearn":
        return Search(task, neural_network.MLPClassifier, model_selection.GridSearchCV)
    from gpubp.sklearn import GridSearchCV, MLPClassifier

    return Search(task, MLPClassifier, GridSearchCV)


def versions() -> dict[str, str]:
    """scikit-learn's."""
    return {"scikit-learn": sklearn.__version__}
