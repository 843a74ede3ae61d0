"""Training by batches: scikit-learn's schedule of epochs around gpubp's steps.

Comes in: an estimator in scikit-learn's state (weights, optimiser object, random state). Goes out:
the same a fit later, with scikit-learn's attributes, messages and warnings.

Python is needed between epochs only to shuffle and to decide whether to stop, and the earliest
epoch at which fit can stop is known: so as many epochs as are sure to come run in one native call.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from tqdm import tqdm

from gpubp.sklearn.callbacks import Hooks
from gpubp.sklearn.data import Rows, loss_type
from gpubp.sklearn.engine import Engine, pool
from gpubp.sklearn.network import Network
from gpubp.sklearn.rules import options_of

CALL_SECONDS = 0.2  # about the longest call of several epochs
ORDER_ELEMENTS = 1 << 22  # of all orders of one call


def new_optimizer(estimator: Any) -> Any:
    """scikit-learn's optimiser object, which holds the state between calls of partial_fit."""
    params = estimator.coefs_ + estimator.intercepts_
    if estimator.solver == "sgd":
        return SGDOptimizer(
            params,
            estimator.learning_rate_init,
            estimator.learning_rate,
            estimator.momentum,
            estimator.nesterovs_momentum,
            estimator.power_t,
        )
    return AdamOptimizer(
        params,
        estimator.learning_rate_init,
        estimator.beta_1,
        estimator.beta_2,
        estimator.epsilon,
    )


def fit_stochastic(
    estimator: Any, network: Network, X: Any, y: Any, weights: Any, incremental: bool
) -> str:
    """Train `estimator`, whose weights are initialised.

    Args:
        estimator: one of gpubp's, validated.
        network: its architecture.
        X: (n, inputs), dense or sparse.
        y: (n, outputs).
        weights: (n,) or None.
        incremental: one epoch only, as partial_fit.

    Returns:
        The backend's name.
    """
    if not incremental or not hasattr(estimator, "_optimizer"):
        estimator._optimizer = new_optimizer(estimator)
    if estimator.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    held_out: tuple[Any, Any, Any] = (None, None, None)
    if estimator.early_stopping:
        X, y, weights, held_out = _split(estimator, X, y, weights)
    rows = Rows(network, X, y, weights)
    batch_size = _batch_size(estimator, rows.size)
    rule = options_of(estimator._optimizer, estimator.max_grad_norm)
    with pool.borrow((network, rule, estimator.backend, estimator.device)) as engine:
        epochs = _Epochs(estimator, engine, rows, batch_size, loss_type(X, y, weights))
        epochs.run(held_out, incremental)
    if estimator.early_stopping:
        estimator.coefs_ = estimator._best_coefs
        estimator.intercepts_ = estimator._best_intercepts
    return str(engine.step.backend.name)


def _split(
    estimator: Any, X: Any, y: Any, weights: Any
) -> tuple[Any, Any, Any, tuple[Any, Any, Any]]:
    """Hold some samples out: (X, y, weights, (X, y, weights) held out)."""
    stratified = is_classifier(estimator) and estimator.n_outputs_ == 1
    arrays = [X, y] if weights is None else [X, y, weights]
    parts = train_test_split(
        *arrays,
        random_state=estimator._random_state,
        test_size=estimator.validation_fraction,
        stratify=y if stratified else None,
    )
    if weights is None:
        parts += [None, None]
    X_train, X_held, y_train, y_held, w_train, w_held = parts
    if X_held.shape[0] < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            "dataset."
        )
    if is_classifier(estimator):
        y_held = estimator._label_binarizer.inverse_transform(y_held)
    return X_train, y_train, w_train, (X_held, y_held, w_held)


def _batch_size(estimator: Any, samples: int) -> int:
    if estimator.batch_size == "auto":
        return min(200, samples)
    if estimator.batch_size > samples:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=2,
        )
    return int(np.clip(estimator.batch_size, 1, samples))


class _Epochs:
    """The loop over epochs of one fit."""

    def __init__(
        self,
        estimator: Any,
        engine: Engine,
        rows: Rows,
        batch_size: int,
        dtype: np.dtype[Any],
    ) -> None:
        self.estimator, self.engine, self.rows = estimator, engine, rows
        self.batch_size = batch_size
        self.hooks: Hooks = estimator._hooks
        self.loss_type = dtype.type
        self.order = np.arange(rows.size)
        self.seconds = 0.0  # of an epoch
        steps = np.arange(0, rows.size, batch_size)
        self.sizes = np.minimum(batch_size, rows.size - steps)

    def run(self, held_out: tuple[Any, Any, Any], incremental: bool) -> None:
        """Train until the end; weights and state are the estimator's again afterwards."""
        est, engine = self.estimator, self.engine
        self.incremental, self.held_out = incremental, held_out
        engine.alpha.value = np.float64(est.alpha)
        if engine.network.dropout:
            seed = int(est._random_state.randint(np.iinfo(np.int32).max))
            engine.generator.manual_seed(seed)
        engine.load(est.coefs_, est.intercepts_, est._optimizer, self.rows.like(self.batch_size))
        try:
            with self._progress_bar() as bar:
                self._loop(bar)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
            self._save()

    def _loop(self, bar: Any) -> None:
        est = self.estimator
        est.n_iter_ = 0
        done = False
        while not done and est.n_iter_ < est.max_iter:
            orders = self._orders(self._sure_epochs())
            self._check_weights(orders)
            start = time.perf_counter()
            self.hooks.begin()
            self.engine.step.forget_losses()
            try:
                losses = self.rows.run(orders, self.batch_size, self.engine.run)
            except KeyboardInterrupt:
                self._book_whole_epochs(len(orders))
                raise
            self.seconds = (time.perf_counter() - start) / len(orders)
            self._save()
            for epoch_losses in losses:
                done = self._epoch_ends(epoch_losses)
                if bar is not None:
                    bar.set_postfix(loss=f"{est.loss_:.6g}", refresh=False)
                    bar.update()
            self.engine.rule.lr.value = np.float64(self._rate())

    def _book_whole_epochs(self, epochs: int) -> None:
        """Of a call of so many epochs that was interrupted: those that were done count."""
        done = self.engine.step.losses
        self._save()
        if self.rows.dense and epochs > 1:
            whole = len(done) // len(self.sizes)
            for losses in done[: whole * len(self.sizes)].reshape(whole, -1):
                self._epoch_ends(losses)

    def _sure_epochs(self) -> int:
        """How many epochs are sure to come, within limits of time and memory."""
        est = self.estimator
        if (
            self.incremental
            or est.early_stopping
            or est.verbose
            or est.progress_bar
            or self.hooks.active
            or getattr(est._optimizer, "lr_schedule", "") == "invscaling"
            or self.seconds == 0.0
        ):
            return 1
        until_stop = est.n_iter_no_change + 1 - est._no_improvement_count
        limits = (
            est.max_iter - est.n_iter_,
            until_stop,
            CALL_SECONDS / self.seconds,
            ORDER_ELEMENTS / self.rows.size,
        )
        return max(1, int(min(limits)))

    def _orders(self, epochs: int) -> NDArray[np.int64]:
        """The order of each epoch: scikit-learn shuffles the last one's order again."""
        orders = np.empty((epochs, self.rows.size), np.int64)
        for row in orders:
            if self.estimator.shuffle:
                chosen = np.arange(self.rows.size)
                self.estimator._random_state.shuffle(chosen)
                self.order = self.order[chosen]
            row[:] = self.order
        return orders

    def _check_weights(self, orders: NDArray[np.int64]) -> None:
        """A batch without weight has no mean; the message is NumPy's, as scikit-learn shows it."""
        if self.rows.weights is None:
            return
        starts = np.arange(0, self.rows.size, self.batch_size)
        if (np.add.reduceat(self.rows.weights[orders], starts, axis=1) == 0.0).any():
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")

    def _save(self) -> None:
        est = self.estimator
        self.engine.save(est.coefs_, est.intercepts_)
        self.engine.rule.save(est._optimizer)

    def _rate(self) -> float:
        """What the rule's slot holds: SGD's current rate, Adam's initial one."""
        optimizer = self.estimator._optimizer
        adam = self.engine.rule.options.name == "adam"
        return float(optimizer.learning_rate_init if adam else optimizer.learning_rate)

    def _epoch_ends(self, losses: NDArray[Any]) -> bool:
        """Keep the books of one epoch; True if training is over."""
        est = self.estimator
        total = np.dot(losses.astype(np.float64), self.sizes)
        est.n_iter_ += 1
        est.loss_ = self.loss_type(total / self.rows.size)
        est.t_ += self.rows.size
        est.loss_curve_.append(est.loss_)
        if est.verbose:
            print(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")
        est._update_no_improvement_count(est.early_stopping, *self.held_out)
        est._optimizer.iteration_ends(est.t_)
        if self.hooks.end():
            return True
        if est._no_improvement_count > est.n_iter_no_change and self._stops():
            return True
        if self.incremental:
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

    @contextmanager
    def _progress_bar(self) -> Iterator[Any]:
        est = self.estimator
        if not est.progress_bar or self.incremental:
            yield None
            return
        with tqdm(total=est.max_iter, unit="epoch", desc=type(est).__name__) as bar:
            yield bar
