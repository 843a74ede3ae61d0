"""How a model is called with what `fit` was given for X."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from gpubp.errors import ArgumentError
from gpubp.nn.module import Module


def outputs_of(model: Any, X: Any) -> Any:
    """The model's outputs.

    Args:
        model: the model.
        X: an array: the argument of `forward`. A tuple: its positional arguments, where it takes so
            many; else one argument. A dict: its keyword arguments, where it has parameters of these
            names and needs no others; else one argument.

    Raises:
        ArgumentError: a tuple or dict that fits in neither way.
    """
    if isinstance(X, Mapping) and _takes(model, (), X):
        return model(**X)
    if isinstance(X, tuple) and _takes(model, X, {}):
        return model(*X)
    if isinstance(X, (tuple, Mapping)) and not _takes(model, (X,), {}):
        parts = f"a dict of {', '.join(map(repr, X))}" if isinstance(X, Mapping) else "a tuple"
        raise ArgumentError(
            f"X is {parts} ({len(X)} arrays), which does not fit the arguments of "
            f"{type(model).__name__}.forward{_signature(model)}."
        )
    return model(X)


def _signature(model: Any) -> inspect.Signature:
    return inspect.signature(model.forward if isinstance(model, Module) else model)


def _takes(model: Any, args: tuple[Any, ...], kwargs: Mapping[Any, Any]) -> bool:
    if not all(isinstance(key, str) for key in kwargs):
        return False
    try:
        _signature(model).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return False
    return True
