"""MLPClassifier and MLPRegressor: scikit-learn's own classes with another engine.

They inherit parameters, validation, tags, messages and attributes, and replace what computes:
training by batches and the loss of L-BFGS. Where gpubp cannot take a fit, scikit-learn's code runs,
and the report says why.
"""

from __future__ import annotations

import copy
import os
import time
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from sklearn.callback import CallbackSupportMixin
from sklearn.neural_network import _multilayer_perceptron as stock
from sklearn.neural_network._base import ACTIVATIONS as OUTPUTS
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.utils import compute_sample_weight
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_consistent_length, validate_data

from gpubp.backends import default_backend_name
from gpubp.sklearn import log, options
from gpubp.sklearn.callbacks import Hooks
from gpubp.sklearn.data import DENSE_BYTES, is_sparse, too_sparse
from gpubp.sklearn.lbfgs import Problem
from gpubp.sklearn.network import ACTIVATIONS, STOCK_ACTIVATIONS, Network
from gpubp.sklearn.stochastic import fit_stochastic

_REPLACED = ("_backprop", "_forward_pass", "_compute_loss_grad")
_OPTIMIZERS = (AdamOptimizer, SGDOptimizer)
E = TypeVar("E", bound="_Accelerated")


class _Accelerated(options.Keywords, CallbackSupportMixin):  # type: ignore[misc]
    """What both estimators share. Stands before scikit-learn's class in the bases."""

    _stock: type
    activation: Any

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:
        options.activations(self)
        options.dropout(self)
        sample_weight = self._weighted(y, sample_weight, incremental)
        epochs = 0 if self.solver == "lbfgs" else 1 if incremental else self.max_iter
        self._hooks = Hooks(self, X, y, sample_weight, epochs)
        try:
            self._hooks.begin_fit()
            super()._fit(X, y, sample_weight=sample_weight, incremental=incremental)
            self._hooks.end_fit()
        finally:
            del self._hooks
        return self

    def _weighted(self, y: Any, sample_weight: Any, incremental: bool) -> Any:
        """Sample weights with the classes' weights in them."""
        given = getattr(self, "class_weight", None)
        if given is None:
            return sample_weight
        if incremental and given == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit: a part does not tell "
                "how often the classes occur. Use compute_class_weight('balanced', classes=..., "
                "y=...) on all labels and pass the result as a dict."
            )
        by_class = compute_sample_weight(given, y)
        if sample_weight is None:
            return by_class
        check_consistent_length(by_class, sample_weight)
        return by_class * np.asarray(sample_weight)

    def _fit_stochastic(
        self, X: Any, y: Any, sample_weight: Any, *buffers: Any, **named: Any
    ) -> None:
        incremental = bool(named["incremental"] if "incremental" in named else buffers[-1])
        network = self._network(X, X.dtype, sample_weight is not None)
        reason = self._why_stock(network, X, y)
        start = time.perf_counter()
        if reason:
            super()._fit_stochastic(X, y, sample_weight, *buffers, **named)
            where, seconds = log.STOCK, time.perf_counter() - start
        else:
            ran = fit_stochastic(self, network, X, y, sample_weight, incremental)
            where, seconds = f"gpubp ({ran.where})", ran.seconds
        method = "partial_fit" if incremental else "fit"
        log.note(log.Kind(type(self).__name__, method, where, reason), seconds)

    def _fit_lbfgs(self, X: Any, y: Any, sample_weight: Any, *buffers: Any) -> None:
        network = self._network(X, self._lbfgs_type(X), sample_weight is not None)
        reason = self._why_stock(network, X, y)
        if is_sparse(X) and np.prod(X.shape) * 8 > DENSE_BYTES:
            reason = reason or "L-BFGS on sparse data too large to be made dense"
        start = time.perf_counter()
        problem = None if reason else self._make_problem(network, X, y, sample_weight)
        where = log.STOCK if problem is None else f"gpubp ({problem.backend_name})"
        self._problem = problem
        try:
            super()._fit_lbfgs(X, y, sample_weight, *buffers)
        finally:
            del self._problem
        kind = log.Kind(type(self).__name__, "fit", where, reason)
        log.note(kind, time.perf_counter() - start)

    def _loss_grad_lbfgs(
        self, packed_coef_inter: Any, X: Any, y: Any, sample_weight: Any, *buffers: Any
    ) -> Any:
        if "_problem" in vars(self):
            problem = self._problem
        else:
            network = self._network(X, self._lbfgs_type(X), sample_weight is not None)
            problem = self._make_problem(network, X, y, sample_weight)
        if problem is None:
            return super()._loss_grad_lbfgs(packed_coef_inter, X, y, sample_weight, *buffers)
        return problem(packed_coef_inter)

    def _lbfgs_type(self, X: Any) -> Any:
        return np.result_type(X.dtype, *[W.dtype for W in self.coefs_])

    def _make_problem(self, network: Network, X: Any, y: Any, weights: Any) -> Problem:
        return Problem(network, X, y, weights, self.alpha, self.backend, self.device)

    def _network(self, X: Any, dtype: Any, weighted: bool) -> Network:
        return Network(
            (X.shape[1], *[W.shape[1] for W in self.coefs_]),
            options.activations(self),
            self.out_activation_,
            self.loss,
            np.dtype(dtype).name,
            weighted,
            self.alpha != 0,
            options.dropout(self),
        )

    def _why_stock(self, network: Network, X: Any, y: Any) -> str:
        """Why scikit-learn's own code has to run; "" if gpubp's does.

        Raises:
            ValueError: it has to, but cannot do what the arguments ask for.
        """
        reason = self._obstacle(network, X, y)
        beyond = options.beyond_stock(self)
        if reason and beyond:
            raise ValueError(f"{', '.join(beyond)} cannot be used here: {reason}.")
        return reason

    def _obstacle(self, network: Network, X: Any, y: Any) -> str:
        for name in _REPLACED:
            if getattr(type(self), name) is not getattr(stock.BaseMultilayerPerceptron, name):
                return f"the class overrides {name}"
        if too_sparse(X):
            return "sparse data with many features, few of them set"
        if not self._runs_fast():
            return "no backend but the NumPy reference is available"
        if len(network.activations) != len(self.coefs_) - 1:
            return "hidden_layer_sizes are not those of the weights"
        if [W.shape for W in self.coefs_] != network.shapes:
            return "the weights do not fit the data"
        if self.solver == "lbfgs":
            return ""
        if any(a.dtype != X.dtype for a in (*self.coefs_, *self.intercepts_)):
            return f"the weights are {self.coefs_[0].dtype}, the data {X.dtype}"
        if not isinstance(getattr(self, "_optimizer", None), (type(None), *_OPTIMIZERS)):
            return "an optimizer object of another kind"
        if network.dtype == "float32" and not np.isfinite(y.astype(np.float32)).all():
            return "targets are too large for float32"
        return ""

    def _runs_fast(self) -> bool:
        asked = self.backend not in (None, "auto") or os.environ.get("GPUBP_BACKEND")
        return bool(asked) or default_backend_name(self.device) != "numpy"

    def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> Any:
        """scikit-learn's rule asks the activation; with several, that of the layer at hand."""
        if isinstance(self.activation, str):
            return super()._init_coef(fan_in, fan_out, dtype)
        names, position = self.activation, len(self.coefs_)
        try:
            self.activation = str(names[min(position, len(names) - 1)]) if len(names) else "relu"
            return super()._init_coef(fan_in, fan_out, dtype)
        finally:
            self.activation = names

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Any:
        if isinstance(self.activation, str) and self.activation in STOCK_ACTIVATIONS:
            return super()._forward_pass_fast(X, check_input=check_input)
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        names = options.activations(self)
        for i, (W, b) in enumerate(zip(self.coefs_, self.intercepts_)):
            X = safe_sparse_dot(X, W) + b
            X = ACTIVATIONS[names[i]](X) if i < len(names) else X
        OUTPUTS[self.out_activation_](X)
        return X

    def to_sklearn(self) -> Any:
        """A stock scikit-learn estimator with the same arguments and fitted attributes.

        Arguments that only matter while training (dropout, class_weight, ...) are left behind.

        Raises:
            ValueError: the activation or the loss is none of scikit-learn's.
        """
        foreign = [n for n in options.beyond_stock(self) if n in ("activation", "loss")]
        if foreign:
            raise ValueError(f"scikit-learn has no {foreign[0]}={getattr(self, foreign[0])!r}.")
        return _converted(self, self._stock)

    @classmethod
    def from_sklearn(cls: type[E], estimator: Any) -> E:
        """gpubp's estimator with the arguments and fitted attributes of a stock one.

        Raises:
            TypeError: another kind of estimator.
        """
        if not isinstance(estimator, cls._stock):
            raise TypeError(
                f"expected a scikit-learn {cls._stock.__name__}, got {type(estimator).__name__}."
            )
        found: E = _converted(estimator, cls)
        return found


def _converted(estimator: Any, cls: Any) -> Any:
    params = estimator.get_params(deep=False)
    known = set(cls._get_param_names())
    made = cls(**{name: value for name, value in params.items() if name in known})
    fitted = {k: v for k, v in vars(estimator).items() if k not in params}
    vars(made).update(copy.deepcopy(fitted))
    return made


class MLPClassifier(_Accelerated, stock.MLPClassifier):  # type: ignore[misc]
    """sklearn.neural_network.MLPClassifier, trained by gpubp's fused step.

    All arguments, attributes and methods are scikit-learn's, and with the same random_state so are
    the results, up to rounding. Beyond scikit-learn's arguments:

    Args:
        activation: also "elu", "gelu", "leaky_relu", "silu", "softplus", or a list with one name
            for each hidden layer.
        backend: a name from `gpubp info`; default: the best one.
        device: "cpu" or "auto".
        dropout: probability of dropping a hidden unit, in [0, 1), or one for each hidden layer.
        max_grad_norm: clip the joint norm of all gradients to this.
        progress_bar: show epochs on stderr.
        class_weight: dict {class: weight} or "balanced", as in other classifiers.
        loss: "log_loss", or a function (y, scores) of traced arrays (n, k), made of `gpubp.ops`,
            that returns one loss for each sample (n,) or each output (n, k). y is one-hot (binary:
            one column), scores are those before softmax or logistic.
    """

    _stock = stock.MLPClassifier
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **stock.MLPClassifier._parameter_constraints,
        "activation": options.ACTIVATION,
        **{name: rule for name, (_, rule) in options.CLASSIFIER.items()},
    }
    if not TYPE_CHECKING:
        __init__ = options.constructor(stock.MLPClassifier, options.CLASSIFIER)


class MLPRegressor(_Accelerated, stock.MLPRegressor):  # type: ignore[misc]
    """sklearn.neural_network.MLPRegressor, trained by gpubp's fused step.

    All arguments, attributes and methods are scikit-learn's, and with the same random_state so are
    the results, up to rounding. Beyond scikit-learn's arguments:

    Args:
        loss: also "absolute_error", "huber" (of width 1), or a function (y, predicted) of traced
            arrays (n, k), made of `gpubp.ops`, that returns one loss for each sample (n,) or each
            output (n, k).
        activation: also "elu", "gelu", "leaky_relu", "silu", "softplus", or a list with one name
            for each hidden layer.
        backend: a name from `gpubp info`; default: the best one.
        device: "cpu" or "auto".
        dropout: probability of dropping a hidden unit, in [0, 1), or one for each hidden layer.
        max_grad_norm: clip the joint norm of all gradients to this.
        progress_bar: show epochs on stderr.
    """

    _stock = stock.MLPRegressor
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **stock.MLPRegressor._parameter_constraints,
        "activation": options.ACTIVATION,
        "loss": options.REGRESSOR_LOSS,
        **{name: rule for name, (_, rule) in options.REGRESSOR.items()},
    }
    if not TYPE_CHECKING:
        __init__ = options.constructor(stock.MLPRegressor, options.REGRESSOR)


# Pickles name the public place, so that workers and later versions find the class there.
MLPClassifier.__module__ = MLPRegressor.__module__ = "gpubp.sklearn"
