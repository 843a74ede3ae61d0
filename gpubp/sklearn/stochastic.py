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
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from tqdm import tqdm

from gpubp.sklearn.crew import Ran
from gpubp.sklearn.data import Rows, loss_type
from gpubp.sklearn.engine import Engine, pool
from gpubp.sklearn.epochs import ORDER_ELEMENTS, Epochs
from gpubp.sklearn.network import Network
from gpubp.sklearn.rules import options_of
from gpubp.sklearn.together import search_of_this_thread

CALL_SECONDS = 0.2  # about the longest call of several epochs


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
) -> Ran:
    """Train `estimator`, whose weights are initialised.

    Args:
        estimator: one of gpubp's, validated.
        network: its architecture.
        X: (n, inputs), dense or sparse.
        y: (n, outputs).
        weights: (n,) or None.
        incremental: one epoch only, as partial_fit.

    Returns:
        Where it was trained, and the seconds it took.
    """
    if not incremental or not hasattr(estimator, "_optimizer"):
        estimator._optimizer = new_optimizer(estimator)
    if estimator.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    held_out: tuple[Any, Any, Any] = (None, None, None)
    if estimator.early_stopping:
        X, y, weights, held_out = _split(estimator, X, y, weights)
    rows = Rows(network, X, y, weights)
    batch_size, dtype = _batch_size(estimator, rows.size), loss_type(X, y, weights)
    drops = bool(network.dropout)
    epochs = Epochs(estimator, rows, batch_size, dtype, held_out, incremental, drops)
    rule = options_of(estimator._optimizer, estimator.max_grad_norm)
    key = (network, rule, estimator.backend, estimator.device)
    search = search_of_this_thread()
    ran = None if search is None else search.train(epochs, key)
    if ran is not None:
        return ran
    start = time.perf_counter()
    with pool.borrow(key) as engine:
        _train(epochs, engine)
    if estimator.early_stopping:
        estimator.coefs_ = estimator._best_coefs
        estimator.intercepts_ = estimator._best_intercepts
    return Ran(str(engine.step.backend.name), time.perf_counter() - start)


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


def _train(epochs: Epochs, engine: Engine) -> None:
    """Train until the end; weights and state are the estimator's again afterwards."""
    est = epochs.estimator
    engine.alpha.value = np.float64(est.alpha)
    engine.generator.manual_seed(epochs.seed)
    like = epochs.rows.like(epochs.batch_size)
    engine.load(est.coefs_, est.intercepts_, est._optimizer, like)
    try:
        with _progress_bar(epochs):
            _calls(epochs, engine)
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=2)
        _save(epochs, engine)


def _calls(epochs: Epochs, engine: Engine) -> None:
    """As many epochs in a call as are sure to come and take no long time; the first one alone."""
    most = 1.0
    while epochs.goes_on:
        orders = epochs.orders(epochs.sure(most))
        start = time.perf_counter()
        epochs.hooks.begin()
        engine.step.forget_losses()
        try:
            losses = epochs.rows.run(orders, epochs.batch_size, engine.run)
        except KeyboardInterrupt:
            _book_whole_epochs(epochs, engine, len(orders))
            raise
        seconds = (time.perf_counter() - start) / len(orders)
        _save(epochs, engine)
        epochs.note(losses)
        engine.rule.lr.value = np.float64(epochs.rate())
        most = min(CALL_SECONDS / max(seconds, 1e-9), ORDER_ELEMENTS / epochs.rows.size)


def _book_whole_epochs(epochs: Epochs, engine: Engine, count: int) -> None:
    """Of a call of so many epochs that was interrupted: those that were done count."""
    done = engine.step.losses
    _save(epochs, engine)
    if epochs.rows.dense and count > 1:
        whole = len(done) // len(epochs.sizes)
        epochs.note(done[: whole * len(epochs.sizes)].reshape(whole, -1))


def _save(epochs: Epochs, engine: Engine) -> None:
    est = epochs.estimator
    engine.save(est.coefs_, est.intercepts_)
    engine.rule.save(est._optimizer)


@contextmanager
def _progress_bar(epochs: Epochs) -> Iterator[None]:
    est = epochs.estimator
    if not epochs.shows_bar:
        yield
        return
    with tqdm(total=est.max_iter, unit="epoch", desc=type(est).__name__) as epochs.bar:
        yield
