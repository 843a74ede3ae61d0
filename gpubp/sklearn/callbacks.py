"""scikit-learn's callback protocol (`set_callbacks`) for the epochs of a fit.

The root task "fit" has one subtask "epoch" for each epoch. A hook that returns True at an epoch's
end stops training after it.
"""

from __future__ import annotations

from typing import Any


class Hooks:
    """Calls the hooks of an estimator's callbacks, if it has any.

    Args:
        estimator: about to be fitted.
        X, y, weights: the training data, as the user gave them.
        epochs: at most so many subtasks.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, weights: Any, epochs: int) -> None:
        self._estimator = estimator
        self._data = {"X": X, "y": y, "metadata": None}
        if weights is not None:
            self._data["metadata"] = {"sample_weight": weights}
        self._fit = estimator._init_callback_context(max_subtasks=epochs)
        self._context: Any = None
        self.active = bool(getattr(estimator, "_skl_callbacks", None))

    def begin_fit(self) -> None:
        """Training begins."""
        self._fit.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def end_fit(self) -> None:
        """Training has ended."""
        self._fit.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes=self._weights, **self._data
        )

    def begin(self) -> None:
        """An epoch begins."""
        if self.active:
            self._context = self._fit.subcontext(task_name="epoch")
            self._context.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def end(self) -> bool:
        """An epoch has ended; True if a callback wants training to stop."""
        if not self.active:
            return False
        stop: bool = self._context.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes=self._weights, **self._data
        )
        return stop

    def _weights(self) -> dict[str, Any]:
        estimator = self._estimator
        return {
            "coefs_": [W.copy() for W in estimator.coefs_],
            "intercepts_": [b.copy() for b in estimator.intercepts_],
        }
