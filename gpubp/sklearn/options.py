"""The arguments that scikit-learn's estimators do not have: their rules, checks and meaning."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from gpubp.errors import unknown_name
from gpubp.sklearn.network import ACTIVATIONS, STOCK_ACTIVATIONS

STOCK_LOSSES = ("log_loss", "squared_error", "poisson")

# Name: (default, what scikit-learn's validation accepts).
COMMON: dict[str, tuple[Any, list[Any]]] = {
    "backend": (None, [str, None]),
    "device": (None, [str, None]),
    "dropout": (0.0, [Interval(Real, 0, 1, closed="left"), "array-like"]),
    "max_grad_norm": (None, [Interval(Real, 0, None, closed="neither"), None]),
    "progress_bar": (False, ["boolean"]),
}
CLASSIFIER: dict[str, tuple[Any, list[Any]]] = {
    **COMMON,
    "class_weight": (None, [dict, StrOptions({"balanced"}), None]),
    "loss": ("log_loss", [StrOptions({"log_loss"}), callable]),
}
REGRESSOR = COMMON
REGRESSOR_LOSS = [StrOptions({"squared_error", "poisson", "absolute_error", "huber"}), callable]
ACTIVATION = [StrOptions(set(ACTIVATIONS)), "array-like"]


class Keywords:
    """What type checkers know of the estimators' arguments; of scikit-learn's, that there are."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *of_sklearn: Any,
            activation: str | Sequence[str] = "relu",
            loss: str | Callable[..., Any] = ...,
            backend: str | None = None,
            device: str | None = None,
            dropout: float | Sequence[float] = 0.0,
            max_grad_norm: float | None = None,
            progress_bar: bool = False,
            class_weight: Mapping[Any, float] | str | None = None,
            **named: Any,
        ) -> None: ...


def constructor(stock: type, extras: Mapping[str, tuple[Any, list[Any]]]) -> Callable[..., None]:
    """scikit-learn's `__init__` with more keyword arguments, and the signature that says so."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name, default) for name, (default, _) in extras.items()}
        stock.__init__(self, *args, **kwargs)  # type: ignore[misc]
        for name, value in given.items():
            setattr(self, name, value)

    known = inspect.signature(stock.__init__)  # type: ignore[misc]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, (default, _) in extras.items()
    ]
    init.__signature__ = known.replace(  # type: ignore[attr-defined]
        parameters=[*known.parameters.values(), *more]
    )
    init.__name__ = "__init__"
    return init


def hidden_layers(estimator: Any) -> int:
    """How many hidden layers the arguments ask for."""
    return int(np.size(estimator.hidden_layer_sizes))


def activations(estimator: Any) -> tuple[str, ...]:
    """The activation of each hidden layer.

    Raises:
        ValueError: not one name for each layer.
        UnknownNameError: an activation that does not exist.
    """
    count = hidden_layers(estimator)
    given = estimator.activation
    names = (given,) * count if isinstance(given, str) else tuple(map(str, given))
    for name in names:
        if name not in ACTIVATIONS:
            raise unknown_name("activation", name, ACTIVATIONS)
    if len(names) != count:
        raise ValueError(
            f"activation has {len(names)} names, but there are {count} hidden layers; give one "
            "name for each, or one for all."
        )
    return names


def dropout(estimator: Any) -> tuple[float, ...]:
    """The dropout probability of each hidden layer; () if none drops anything.

    Raises:
        ValueError: not one number for each layer, one outside [0, 1), or solver "lbfgs".
    """
    given = estimator.dropout
    count = hidden_layers(estimator)
    rates = (float(given),) * count if np.ndim(given) == 0 else tuple(map(float, given))
    if len(rates) != count or not all(0.0 <= rate < 1.0 for rate in rates):
        raise ValueError(
            f"dropout is {given!r}; expected a number in [0, 1), or one for each of the {count} "
            "hidden layers."
        )
    if not any(rates):
        return ()
    if estimator.solver == "lbfgs":
        raise ValueError("dropout needs solver 'sgd' or 'adam': 'lbfgs' wants one fixed loss.")
    return rates


def beyond_stock(estimator: Any) -> list[str]:
    """The arguments in use that scikit-learn's own code cannot do."""
    used = []
    if not isinstance(estimator.activation, str) or estimator.activation not in STOCK_ACTIVATIONS:
        used.append("activation")
    if estimator.loss not in STOCK_LOSSES:
        used.append("loss")
    if dropout(estimator):
        used.append("dropout")
    if estimator.max_grad_norm is not None:
        used.append("max_grad_norm")
    return used
