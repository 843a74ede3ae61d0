"""What scikit-learn's estimators do not have: more arguments, conversion, callbacks."""

from __future__ import annotations

import os
import pickle
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'gpubp[sklearn]'")

import scipy.sparse
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_iris, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import _multilayer_perceptron as stock
from sklearn.utils import compute_sample_weight
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp.backends.numba_cpu.pace import Pace
from gpubp.errors import BackendError, UnknownNameError
from gpubp.runtime.pauses import Pauses
from gpubp.sklearn import MLPClassifier, MLPRegressor, data, log, reset_report, stochastic

X, y = load_iris(return_X_y=True)
RX, ry = make_regression(80, 5, noise=1.0, random_state=0)
ry = ry / ry.std()


def fitted(estimator: Any, *arrays: Any, **named: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*(arrays or (X, y)), **named)


def same(a: Any, b: Any) -> None:
    for name in ("coefs_", "intercepts_"):
        for left, right in zip(getattr(a, name), getattr(b, name), strict=True):
            assert_same(left, right)


def test_clone_and_parameters():
    model = MLPClassifier((4,), dropout=0.2, class_weight="balanced", backend="numpy")
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert set(stock.MLPClassifier().get_params()) < set(model.get_params())
    assert repr(MLPClassifier((4,))) == repr(stock.MLPClassifier((4,)))
    with pytest.raises(TypeError, match="unexpected keyword argument 'alhpa'"):
        MLPClassifier(alhpa=1)
    with pytest.raises(ValueError, match="'max_grad_norm' parameter of MLPClassifier"):
        MLPClassifier(max_grad_norm=-1.0).fit(X, y)


def test_backends_agree_and_an_unknown_one_is_refused():
    a = fitted(MLPClassifier((5,), max_iter=10, random_state=0, backend="numpy"))
    b = fitted(MLPClassifier((5,), max_iter=10, random_state=0, backend="numba"))
    for left, right in zip(a.coefs_, b.coefs_):
        np.testing.assert_allclose(left, right, rtol=1e-9)
    with pytest.raises(UnknownNameError, match="numba"):
        MLPClassifier(backend="numbra").fit(X, y)
    with pytest.raises((UnknownNameError, BackendError)):
        MLPClassifier(device="toaster").fit(X, y)


def test_class_weight_is_a_sample_weight():
    weights = {0: 1.0, 1: 4.0, 2: 0.5}
    a = fitted(MLPClassifier((5,), max_iter=8, random_state=0, class_weight=weights))
    given = compute_sample_weight(weights, y)
    b = fitted(MLPClassifier((5,), max_iter=8, random_state=0), X, y, sample_weight=given)
    same(a, b)
    c = fitted(
        MLPClassifier((5,), max_iter=8, random_state=0, class_weight="balanced"), X[:90], y[:90]
    )
    assert c.score(X[:90], y[:90]) > 0.3
    with pytest.raises(ValueError, match="not supported for partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


def test_dropout_changes_training_and_not_prediction():
    plain = fitted(MLPClassifier((30,), max_iter=30, random_state=0))
    dropped = fitted(MLPClassifier((30,), max_iter=30, random_state=0, dropout=0.5))
    again = fitted(MLPClassifier((30,), max_iter=30, random_state=0, dropout=0.5))
    same(dropped, again)
    assert np.abs(plain.coefs_[0] - dropped.coefs_[0]).max() > 1e-3
    assert dropped.loss_ > plain.loss_
    assert_same(dropped.predict_proba(X), dropped.predict_proba(X))
    zero = fitted(MLPClassifier((30,), max_iter=30, random_state=0, dropout=[0.0]))
    same(plain, zero)


def test_activations_layer_by_layer():
    one = fitted(MLPClassifier((6, 5), activation="tanh", max_iter=8, random_state=0))
    listed = fitted(MLPClassifier((6, 5), activation=["tanh", "tanh"], max_iter=8, random_state=0))
    same(one, listed)
    assert_close(one.predict_proba(X), listed.predict_proba(X))
    mixed = fitted(
        MLPClassifier(
            (6, 5),
            activation=["logistic", "gelu"],
            max_iter=300,
            random_state=0,
            learning_rate_init=0.01,
        )
    )
    assert mixed.score(X, y) > 0.9
    # The first layer's bound is that of logistic, as scikit-learn has it for one activation.
    fresh = MLPClassifier(
        (6, 5),
        activation=["logistic", "relu"],
        random_state=0,
        max_iter=1,
        learning_rate_init=1e-12,
    )
    bound = np.sqrt(2.0 / (4 + 6))
    assert 0.8 * bound < np.abs(fitted(fresh).coefs_[0]).max() <= bound * 1.0001


@pytest.mark.parametrize("name", ["elu", "gelu", "leaky_relu", "silu", "softplus"])
def test_each_further_activation_learns(name):
    model = fitted(
        MLPRegressor(hidden_layer_sizes=(12,), activation=name, max_iter=400, random_state=0),
        RX,
        ry,
    )
    assert model.score(RX, ry) > 0.8
    sparse = scipy.sparse.csr_array(RX)
    assert_close(model.predict(sparse), model.predict(RX))


def huber(y: Any, predicted: Any) -> Any:
    size = gp.ops.abs(predicted - y)
    return gp.ops.where(size <= 1.0, 0.5 * gp.ops.square(size), size - 0.5)


def test_losses_by_name_and_by_function():
    named = fitted(MLPRegressor("huber", (9,), max_iter=15, random_state=0), RX, ry)
    given = fitted(MLPRegressor(huber, (9,), max_iter=15, random_state=0), RX, ry)
    for a, b in zip(named.coefs_, given.coefs_):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    pickle.loads(pickle.dumps(given)).predict(RX)
    absolute = fitted(MLPRegressor("absolute_error", (20,), max_iter=600, random_state=0), RX, ry)
    assert np.abs(absolute.predict(RX) - ry).mean() < 0.3
    lbfgs = fitted(MLPRegressor("huber", (9,), solver="lbfgs", random_state=0), RX, ry)
    assert lbfgs.score(RX, ry) > 0.9


def test_a_loss_function_of_a_classifier():
    def cross_entropy(y: Any, scores: Any) -> Any:
        return -gp.ops.sum(y * gp.ops.log_softmax(scores), -1)

    own = fitted(MLPClassifier((6,), max_iter=12, random_state=0, loss=cross_entropy))
    usual = fitted(MLPClassifier((6,), max_iter=12, random_state=0))
    for a, b in zip(own.coefs_, usual.coefs_):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    with pytest.raises(ValueError, match="expected one loss for each sample"):
        MLPClassifier((6,), loss=lambda y, s: gp.ops.sum(s)).fit(X, y)


def test_clipped_gradients_move_less():
    loose = fitted(
        MLPRegressor(
            hidden_layer_sizes=(6,), solver="sgd", max_iter=5, random_state=0, max_grad_norm=1e9
        ),
        RX,
        ry,
    )
    plain = fitted(
        MLPRegressor(hidden_layer_sizes=(6,), solver="sgd", max_iter=5, random_state=0), RX, ry
    )
    for a, b in zip(loose.coefs_, plain.coefs_):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    arguments: dict[str, Any] = {"solver": "sgd", "momentum": 0.0, "max_iter": 1, "random_state": 0}
    before = fitted(
        MLPRegressor(hidden_layer_sizes=(6,), learning_rate_init=1e-300, **arguments), RX, ry
    )
    tight = fitted(
        MLPRegressor(
            hidden_layer_sizes=(6,), learning_rate_init=1.0, max_grad_norm=0.01, **arguments
        ),
        RX,
        ry,
    )
    moved = [
        a - b
        for n in ("coefs_", "intercepts_")
        for a, b in zip(getattr(tight, n), getattr(before, n))
    ]
    norm = np.sqrt(sum(np.sum(m**2) for m in moved))
    assert 0.0099 < norm < 0.0101


def test_a_progress_bar_is_shown_if_asked_for(capsys):
    fitted(MLPClassifier((3,), max_iter=4, random_state=0, progress_bar=True))
    assert "4/4" in capsys.readouterr().err
    fitted(MLPClassifier((3,), max_iter=4, random_state=0))
    assert capsys.readouterr().err == ""


def test_conversion_both_ways():
    ours = fitted(
        MLPClassifier((5,), max_iter=9, random_state=0, class_weight={0: 2.0, 1: 1.0, 2: 1.0})
    )
    theirs = ours.to_sklearn()
    assert type(theirs) is stock.MLPClassifier
    assert_same(theirs.predict_proba(X), ours.predict_proba(X))
    back = MLPClassifier.from_sklearn(theirs)
    for model in (theirs, back):
        model.partial_fit(X, y)
    for a, b in zip(theirs.coefs_, back.coefs_):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    assert np.abs(ours.coefs_[0] - back.coefs_[0]).max() > 0  # nothing is shared
    with pytest.raises(ValueError, match="scikit-learn has no activation='gelu'"):
        MLPClassifier(activation="gelu").to_sklearn()
    with pytest.raises(TypeError, match="expected a scikit-learn MLPRegressor"):
        MLPRegressor.from_sklearn(theirs)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"activation": "rleu"}, "activation"),
        ({"activation": ["relu", "relu"]}, "2 names, but there are 1 hidden layers"),
        ({"activation": ["rleu"]}, "Did you mean 'relu'"),
        ({"dropout": 1.5}, "dropout"),
        ({"dropout": [0.1, 0.2]}, "expected a number in"),
        ({"dropout": 0.2, "solver": "lbfgs"}, "dropout needs solver"),
        ({"loss": "log_los"}, "loss"),
    ],
)
def test_wrong_arguments_of_estimators_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        MLPClassifier((4,), **arguments).fit(X, y)


class Recorder:
    """A callback that keeps what it was told, and stops after some epochs."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.losses: list[float] = []
        self.stop_after = stop_after
        self.state = ""

    def setup(self, estimator: Any, context: Any) -> None:
        self.state = "set up"

    def teardown(self, estimator: Any, context: Any) -> None:
        self.state = "torn down"

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.begun.append(context.task_name)

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None
    ) -> bool:
        self.ended.append(context.task_name)
        if context.task_name == "epoch":
            self.losses.append(estimator.loss_)
            assert fitted_estimator.predict(X[:3]).shape == (3,)
        return len(self.losses) >= self.stop_after


def test_callbacks_are_called_and_may_stop():
    seen = Recorder()
    model = MLPClassifier((4,), max_iter=6, random_state=0).set_callbacks(seen)
    fitted(model)
    assert seen.begun == ["fit", *["epoch"] * 6] and seen.ended == [*["epoch"] * 6, "fit"]
    assert seen.losses == model.loss_curve_ and seen.state == "torn down"
    stopped = MLPClassifier((4,), max_iter=6, random_state=0).set_callbacks(Recorder(2)).fit(X, y)
    assert stopped.n_iter_ == 2 and stopped.loss_curve_ == model.loss_curve_[:2]
    same(model, fitted(MLPClassifier((4,), max_iter=6, random_state=0)))


def test_scikit_learns_own_callback():
    monitor = ScoringMonitor(scoring="accuracy")
    model = MLPClassifier((4,), max_iter=5, random_state=0).set_callbacks(monitor)
    fitted(model)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 5 and scores[-1] == model.score(X, y)


def test_interrupted_training_keeps_weights_and_state(monkeypatch):
    calls = {"n": 0}
    original = data.Rows.run

    def run(self: Any, *rest: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == 3:
            raise KeyboardInterrupt
        return original(self, *rest)

    monkeypatch.setattr(data.Rows, "run", run)
    model = MLPClassifier((4,), max_iter=50, random_state=0, early_stopping=False, verbose=True)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    assert model.n_iter_ == 2 == len(model.loss_curve_)
    assert model._optimizer.t == 2


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_ctrl_c_within_a_call_of_several_epochs(monkeypatch, solver):
    """Whole epochs count, and the weights are those of the whole steps that were made."""
    options = {"hidden_layer_sizes": (4,), "random_state": 0, "batch_size": 16, "tol": 0.0}
    steps = -(-len(X) // 16)
    monkeypatch.setattr(Pace, "steps_in", lambda self, seconds, workers: 1)
    monkeypatch.setattr(stochastic, "CALL_SECONDS", 1e9)
    whole = fitted(MLPClassifier(solver=solver, max_iter=8, n_iter_no_change=50, **options))
    looks, look = [0], Pauses.look

    def pressed(self: Any) -> None:
        looks[0] += 1
        if looks[0] == 5 * steps + 4:
            os.kill(os.getpid(), signal.SIGINT)
        look(self)

    monkeypatch.setattr(Pauses, "look", pressed)
    model = MLPClassifier(solver=solver, max_iter=8, n_iter_no_change=50, **options)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    assert model.n_iter_ == 5
    assert model.loss_curve_ == whole.loss_curve_[:5]
    assert model.t_ == 5 * len(X)
    if solver == "adam":
        # One look beside those after steps, at the end of the first call.
        assert model._optimizer.t == 5 * steps + 3


def test_large_sparse_data_are_made_dense_chunk_by_chunk(monkeypatch):
    rng = np.random.default_rng(0)
    S = scipy.sparse.random_array((57, 9), density=0.4, rng=rng, format="csc")
    t = rng.normal(size=57)
    whole = fitted(
        MLPRegressor(hidden_layer_sizes=(5,), max_iter=6, batch_size=8, random_state=0), S, t
    )
    monkeypatch.setattr(data, "DENSE_BYTES", 0)
    monkeypatch.setattr(data, "CHUNK_BYTES", 8 * 9 * 8 * 2)
    chunked = fitted(
        MLPRegressor(hidden_layer_sizes=(5,), max_iter=6, batch_size=8, random_state=0), S, t
    )
    same(whole, chunked)
    assert whole.loss_curve_ == chunked.loss_curve_


def test_very_sparse_data_are_left_to_scikit_learn():
    reset_report()
    S = scipy.sparse.random_array(
        (20, 5000), density=0.001, rng=np.random.default_rng(0), format="csr"
    )
    t = np.arange(20.0)
    fitted(MLPRegressor(hidden_layer_sizes=(2,), max_iter=2, random_state=0), S, t)
    (kind,) = log.counts()
    assert kind.where == log.STOCK and "sparse" in kind.reason
    with pytest.raises(ValueError, match="dropout cannot be used here: sparse data"):
        MLPRegressor(hidden_layer_sizes=(2,), dropout=0.5).fit(S, t)


class Counting(MLPClassifier):
    """A subclass with a backward pass of its own."""

    calls = 0

    def _backprop(self, *args: Any) -> Any:
        type(self).calls += 1
        return super()._backprop(*args)


def test_a_subclass_that_replaces_the_computation_is_obeyed():
    model = fitted(Counting((3,), max_iter=2, random_state=0))
    assert Counting.calls == 2
    theirs = fitted(stock.MLPClassifier((3,), max_iter=2, random_state=0))
    same(model, theirs)


def test_engines_are_shared_by_fits_of_one_kind_and_fits_stay_apart():
    from gpubp.sklearn.engine import MAX_IDLE, pool

    pool.clear()
    first = fitted(MLPClassifier((4,), max_iter=5, random_state=0, alpha=0.1))
    fitted(MLPClassifier((4,), max_iter=5, random_state=1, alpha=0.3, learning_rate_init=0.1))
    assert sum(map(len, pool._idle.values())) == 1
    same(first, fitted(MLPClassifier((4,), max_iter=5, random_state=0, alpha=0.1)))
    for size in range(1, MAX_IDLE + 4):
        fitted(MLPClassifier((size,), max_iter=1, random_state=0))
    assert sum(map(len, pool._idle.values())) == MAX_IDLE


class Pinball:
    """A loss with a number that can be changed."""

    def __init__(self, q: float) -> None:
        self.q = q

    def __call__(self, y: Any, p: Any) -> Any:
        return gp.ops.maximum(self.q * (y - p), (self.q - 1.0) * (y - p))


share = 0.9


def pinball_of_a_global(y: Any, p: Any) -> Any:
    return gp.ops.maximum(share * (y - p), (share - 1.0) * (y - p))


@pytest.mark.parametrize("way", ["attribute", "global", "closure", "default"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_a_loss_that_has_changed_is_traced_again(solver: str, way: str):
    """No step of a user's loss is kept for another fit, or another estimator."""
    global share
    X, t = make_regression(60, 5, random_state=0)
    t = t / 100

    def fit(loss: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = MLPRegressor(hidden_layer_sizes=(4,), solver=solver, loss=loss, max_iter=12)
            model.set_params(random_state=0)
            return model.fit(X, t)

    expected, share = fit(Pinball(0.1)), 0.9

    def closed(y: Any, p: Any) -> Any:
        return gp.ops.maximum(q * (y - p), (q - 1.0) * (y - p))

    def default(y: Any, p: Any, q: float = 0.9) -> Any:
        return gp.ops.maximum(q * (y - p), (q - 1.0) * (y - p))

    q = 0.9
    ways: dict[str, Any] = {"closure": closed, "default": default, "global": pinball_of_a_global}
    loss = ways.get(way) or Pinball(0.9)
    before = fit(loss)
    q = share = 0.1
    default.__defaults__ = (0.1,)
    if way == "attribute":
        loss.q = 0.1
    same(fit(loss), expected)
    assert not np.allclose(before.coefs_[0], expected.coefs_[0])


def test_fits_in_several_threads_at_once():
    def fit(seed: int) -> Any:
        return MLPClassifier((6,), max_iter=8, n_iter_no_change=9, random_state=seed).fit(X, y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(fit, range(8)))
        for seed, model in enumerate(together):
            same(model, fit(seed))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_can_fit_whoever_held_the_locks():
    from gpubp.sklearn.engine import pool

    model = fitted(MLPClassifier((4,), max_iter=5, random_state=0))
    with pool._lock, log._lock:
        child = os.fork()
        if child == 0:
            again = fitted(MLPClassifier((4,), max_iter=5, random_state=0))
            os._exit(0 if np.array_equal(again.coefs_[0], model.coefs_[0]) else 1)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child waits for a lock")
    assert os.waitstatus_to_exitcode(status) == 0
