"""One row for each optimiser: the options it is tested with, wherever every optimiser is tested.

The last of a row's entries switches on everything that the optimiser has. Those that PyTorch has
are compared with PyTorch's (`oracle/test_torch_optim_db.py`); for the others one step of the
definition stands here, in plain NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Step = Callable[[NDArray[Any], NDArray[Any], dict[str, Any], dict[str, Any]], NDArray[Any]]

ROWS: dict[str, list[dict[str, Any]]] = {
    "ASGD": [{"t0": 2.0, "lambd": 0.01}],
    "Adadelta": [{"lr": 0.5}],
    "Adafactor": [{}, {"eps": (1e-3, 0.1), "d": 1.5, "weight_decay": 0.1, "maximize": True}],
    "Adagrad": [{"lr_decay": 0.1, "initial_accumulator_value": 0.1, "weight_decay": 0.1}],
    "Adam": [{"betas": (0.8, 0.95), "weight_decay": 0.1}, {"amsgrad": True, "weight_decay": 0.1}],
    "AdamW": [{}],
    "Adamax": [{}],
    "Lion": [{"lr": 1e-3, "betas": (0.8, 0.95), "weight_decay": 0.1}],
    "Muon": [{}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "momentum": 0.8}],
    "NAdam": [{"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "RAdam": [{"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "RMSprop": [{}, {"momentum": 0.5, "centered": True, "weight_decay": 0.1}],
    "Rprop": [{}],
    "SparseAdam": [{"betas": (0.8, 0.95), "eps": 1e-3, "maximize": True}],
    "SGD": [
        {},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    ],
}
CASES = [(name, options) for name, row in ROWS.items() for options in row]
OF_MATRICES = {"Muon"}


def taken(name: str, params: Iterable[Any]) -> list[Any]:
    """The parameters that an optimiser takes."""
    return [p for p in params if name not in OF_MATRICES or p.ndim == 2]


def shapes(name: str, *sizes: int) -> list[tuple[int, ...]]:
    """Shapes of parameters that an optimiser takes: vectors, or rows."""
    return [(1, n) if name in OF_MATRICES else (n,) for n in sizes]


def lion(
    w: NDArray[Any], g: NDArray[Any], state: dict[str, Any], options: dict[str, Any]
) -> NDArray[Any]:
    """Chen et al., 2023, algorithm 2."""
    (beta1, beta2), m = options["betas"], state.get("m", 0.0 * g)
    state["m"] = beta2 * m + (1.0 - beta2) * g
    direction = np.sign(beta1 * m + (1.0 - beta1) * g)
    return w - options["lr"] * (direction + options["weight_decay"] * w)


# Of optimisers that PyTorch has not: the weights after one step.
DEFINITIONS: dict[str, Step] = {"Lion": lion}
