"""scikit-learn: the time of a step from one `MLPClassifier.fit` over many epochs.

It gathers shuffled batches as the others do. It tells an epoch's mean loss only: that is what is
compared. Its Adam adds eps before it corrects the second moment's bias, so eps is given here such
that the first step is the others' step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from common.case import Case, NotSupportedError
from common.rows import Task, make_data, make_weights

_ACTIVATIONS = {"relu": "relu", "sigmoid": "logistic", "tanh": "tanh"}
# 1e-8 sqrt(1 - beta2)
_EPS = 1e-8 * (1 - 0.999) ** 0.5


class _GivenWeights(MLPClassifier):
    """Starts from the benchmark's weights instead of its own."""

    initial: Iterator[tuple[NDArray[Any], NDArray[Any]]]

    def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> tuple[Any, Any]:
        W, b = next(self.initial)
        return W.T.copy(), b.copy()


class SklearnCase(Case):
    """A fresh estimator for each call."""

    def __init__(self, task: Task) -> None:
        row = task.row
        if row.net:
            raise NotSupportedError("MLPClassifier has dense layers only")
        if row.activation not in _ACTIVATIONS:
            raise NotSupportedError(f"MLPClassifier has no {row.activation}")
        if row.layers[-1] == 2:
            raise NotSupportedError("MLPClassifier has one logistic output for two classes")
        if row.samples < row.layers[-1]:
            raise NotSupportedError("MLPClassifier needs a sample of every class")
        self._task = task
        self.units = row.steps
        self._X, self._y = make_data(row)

    def reset(self) -> None:
        """A new estimator that shuffles."""
        self._make(self._task.row.epochs, True)

    def run(self) -> NDArray[Any]:
        """All epochs of a call; returns each epoch's mean loss."""
        return self._fit()

    def check(self) -> NDArray[Any]:
        """The mean loss of one epoch in the order of the data."""
        self._make(1, False)
        return self._fit()

    def _make(self, epochs: int, shuffle: bool) -> None:
        row = self._task.row
        self._model = _GivenWeights(
            hidden_layer_sizes=row.layers[1:-1],
            activation=_ACTIVATIONS[row.activation],
            solver=self._task.optimizer,
            alpha=0.0,
            batch_size=row.batch,
            learning_rate_init=self._task.lr,
            max_iter=epochs,
            shuffle=shuffle,
            random_state=0,
            tol=0.0,
            n_iter_no_change=epochs + 1,
            momentum=0.0,
            nesterovs_momentum=False,
            epsilon=_EPS,
        )
        self._model.initial = iter(make_weights(row))

    def _fit(self) -> NDArray[Any]:
        with warnings.catch_warnings():
            # All epochs are wanted, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._X, self._y)
        return np.array(self._model.loss_curve_)


def build(variant: str, task: Task) -> Case:
    """The only variant."""
    return SklearnCase(task)


def versions() -> dict[str, str]:
    """Of scikit-learn."""
    return {"scikit-learn": sklearn.__version__}
