"""By how much activations change the spread of what goes through them."""

from __future__ import annotations

import math

from gpubp.arguments import checked
from gpubp.errors import unknown_name

_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0 / (1.0 + 0.01**2)),
    "selu": 0.75,
}


@checked
def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much an activation should scale the spread of the weights before it.

    Args:
        nonlinearity: "linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu" or "conv1d" to
            "conv3d".
        param: the negative slope of "leaky_relu"; default 0.01.

    Raises:
        UnknownNameError: another name.
    """
    if nonlinearity not in _GAINS:
        raise unknown_name("nonlinearity", nonlinearity, _GAINS)
    if nonlinearity == "leaky_relu" and param is not None:
        return math.sqrt(2.0 / (1.0 + param**2))
    return _GAINS[nonlinearity]
