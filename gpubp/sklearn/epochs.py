"""The epochs of one fit as scikit-learn's schedule has them: orders, losses, when to stop.

Comes in: an estimator in scikit-learn's state, and the losses of epochs as they are trained. Goes
out: the orders of the epochs that are sure to come, and scikit-learn's attributes, messages and
warnings. Who trains them, a step alone or a population, is the caller's business.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from gpubp.sklearn.callbacks import Hooks
from gpubp.sklearn.data import Rows

ORDER_ELEMENTS = 1 << 22  # of all orders of one call


class Epochs:
    """The books of one fit.

    Args:
        estimator: its weights are initialised, its optimiser object is made.
        rows: what it is trained on.
        batch_size: samples a step.
        dtype: of scikit-learn's loss.
        held_out: (X, y, weights) of early stopping, or three times None.
        incremental: one epoch only, as partial_fit.
        dropout: hidden units are dropped at random.

    Attributes:
        seed: of the dropout's random numbers, drawn from the estimator's.
        bar: a progress bar, or None.
    """

    def __init__(
        self,
        estimator: Any,
        rows: Rows,
        batch_size: int,
        dtype: np.dtype[Any],
        held_out: tuple[Any, Any, Any],
        incremental: bool,
        dropout: bool,
    ) -> None:
        self.estimator, self.rows, self.batch_size = estimator, rows, batch_size
        self.hooks: Hooks = estimator._hooks
        self.bar: Any = None
        self.seed = 0
        if dropout:
            self.seed = int(estimator._random_state.randint(np.iinfo(np.int32).max))
        self._held_out, self._incremental = held_out, incremental
        self._loss_type = dtype.type
        self._order = np.arange(rows.size)
        self._over = False
        steps = np.arange(0, rows.size, batch_size)
        self.sizes = np.minimum(batch_size, rows.size - steps)
        estimator.n_iter_ = 0

    @property
    def goes_on(self) -> bool:
        """There are epochs to come."""
        return not self._over and self.estimator.n_iter_ < self.estimator.max_iter

    @property
    def undisturbed(self) -> bool:
        """Nobody looks at the estimator, or prints, between epochs."""
        est = self.estimator
        return not (
            self._incremental
            or est.early_stopping
            or est.verbose
            or est.progress_bar
            or self.hooks.active
        )

    @property
    def shows_bar(self) -> bool:
        """The user wants to see epochs as they pass."""
        return bool(self.estimator.progress_bar) and not self._incremental

    def sure(self, most: float) -> int:
        """How many epochs are sure to come, of so many at most."""
        est = self.estimator
        schedule = getattr(est._optimizer, "lr_schedule", "")
        if not self.undisturbed or schedule == "invscaling":
            return 1
        until_stop = est.n_iter_no_change + 1 - est._no_improvement_count
        return max(1, int(min(est.max_iter - est.n_iter_, until_stop, most)))

    def orders(self, epochs: int) -> NDArray[np.int64]:
        """The order of each epoch: scikit-learn shuffles the last one's order again.

        Raises:
            ZeroDivisionError: all samples of a batch have no weight.
        """
        orders = np.empty((epochs, self.rows.size), np.int64)
        for row in orders:
            if self.estimator.shuffle:
                chosen = np.arange(self.rows.size)
                self.estimator._random_state.shuffle(chosen)
                self._order = self._order[chosen]
            row[:] = self._order
        self._check_weights(orders)
        return orders

    def _check_weights(self, orders: NDArray[np.int64]) -> None:
        """A batch without weight has no mean; the message is NumPy's, as scikit-learn shows it."""
        if self.rows.weights is None:
            return
        starts = np.arange(0, self.rows.size, self.batch_size)
        if (np.add.reduceat(self.rows.weights[orders], starts, axis=1) == 0.0).any():
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")

    def note(self, losses: NDArray[Any]) -> None:
        """Epochs were trained, whose steps had these losses: (epochs, steps)."""
        for of_epoch in losses:
            self._over = self._epoch_ends(of_epoch)
            if self.bar is not None:
                self.bar.set_postfix(loss=f"{self.estimator.loss_:.6g}", refresh=False)
                self.bar.update()

    def rate(self) -> float:
        """Of the next step: SGD's current rate, Adam's initial one."""
        optimizer = self.estimator._optimizer
        sgd = hasattr(optimizer, "velocities")
        return float(optimizer.learning_rate if sgd else optimizer.learning_rate_init)

    def _epoch_ends(self, losses: NDArray[Any]) -> bool:
        """Keep the books of one epoch; True if training is over."""
        est = self.estimator
        total = np.dot(losses.astype(np.float64), self.sizes)
        est.n_iter_ += 1
        est.loss_ = self._loss_type(total / self.rows.size)
        est.t_ += self.rows.size
        est.loss_curve_.append(est.loss_)
        if est.verbose:
            print(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")
        est._update_no_improvement_count(est.early_stopping, *self._held_out)
        est._optimizer.iteration_ends(est.t_)
        if self.hooks.end():
            return True
        if est._no_improvement_count > est.n_iter_no_change and self._stops():
            return True
        if self._incremental:
            return True
        if est.n_iter_ == est.max_iter:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return False

    def _stops(self) -> bool:
        """No progress any more: stop, or go on with a smaller rate."""
        est = self.estimator
        what = "Validation score" if est.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={est.tol:f} for {est.n_iter_no_change:d} "
            "consecutive epochs."
        )
        if est._optimizer.trigger_stopping(message, est.verbose):
            return True
        est._no_improvement_count = 0
        return False
