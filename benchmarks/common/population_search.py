"""A grid search: gpubp's, scikit-learn's loop over gpubp's networks, and scikit-learn's own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import model_selection, neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from common.case import Case
from common.population_tasks import SearchTask


class Search(Case):
    """Fits all candidates on all folds."""

    def __init__(self, task: SearchTask, network: Any, search: Any, jobs: int) -> None:
        self._ours = network is not neural_network.MLPClassifier
        self._data = load_digits(return_X_y=True)
        estimator = network(max_iter=task.iterations, random_state=0)
        self._search = search(estimator, task.grid(), cv=5, n_jobs=jobs, refit=False)

    def run(self) -> Any:
        """The whole search; the losses of a search are its scores."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._search.fit(*self._data)
        return self._search.cv_results_["mean_test_score"]

    def check(self) -> NDArray[Any]:
        """The scores, which both ways with gpubp's networks must agree on."""
        return np.asarray(self.run()) if self._ours else super().check()


def build(variant: str, task: SearchTask) -> Case:
    """The case of a variant."""
    if variant == "sklearn":
        stock = model_selection.GridSearchCV
        return Search(task, neural_network.MLPClassifier, stock, task.jobs)
    from gpubp.sklearn import GridSearchCV, MLPClassifier

    if variant == "gpubp-loop":
        return Search(task, MLPClassifier, model_selection.GridSearchCV, 1)
    return Search(task, MLPClassifier, GridSearchCV, task.jobs)


def versions() -> dict[str, str]:
    """scikit-learn's."""
    return {"scikit-learn": sklearn.__version__}
