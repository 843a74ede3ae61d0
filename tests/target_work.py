"""What `test_targets.py` runs in processes of other targets: python target_work.py FILE DTYPE."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from numpy.typing import NDArray
from products import FORWARD, Weights, operands
from test_fastmath import BOUNDS, compiled, points

import gpubp as gp
from gpubp import nn
from gpubp.backends.numba_cpu import target

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}
# Without Adam: it divides gradients by their own size, and so enlarges the rounding of small ones.
TRAINED = [(rule, name) for rule in ("sgd", "momentum") for name in ACTIVATIONS]


def trained(rule: str, activation: str, dtype: str, backend: str) -> list[NDArray[Any]]:
    """Losses and parameters of three steps."""
    model = mlp(ACTIVATIONS[activation], dtype)
    step = classifier_step(OPTIMIZERS[rule], model, backend=backend)
    x, y = digits(dtype, 37)
    losses = np.array([step(x, y) for _ in range(3)])
    return [losses, *model.state_dict().values()]


def products(backend: str) -> list[NDArray[Any]]:
    """Epilogues at the edges of tiles of several widths."""
    found: list[NDArray[Any]] = []
    for m, n in ((5, 3), (6, 4), (7, 8), (13, 9), (8, 33), (9, 100)):
        for fn in FORWARD.values():
            result = gp.compile(fn, backend=backend)(*operands(m, n, 7))
            found += result if isinstance(result, tuple) else [result]
    return found


def updated(dtype: str, backend: str) -> list[NDArray[Any]]:
    """Weights after three steps of Adam on gradients without cancellation."""
    weights = Weights([(5, 3), (6, 4), (7, 8), (13, 9), (8, 33), (9, 100)], 7, dtype)
    step, _ = weights.step(OPTIMIZERS["adam"], backend=backend)
    for _ in range(3):
        step(*weights.batch)
    return [p.value for p in weights.params]


def fast(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Every fiftieth of the points that `test_fastmath` looks at, and the function there."""
    low, high = BOUNDS[name][2]
    x = points(low, high)[::50].copy()
    return x, compiled(name)(x)


def everything(dtype: str) -> dict[str, NDArray[Any]]:
    """All results by name; products and fast functions are of float32 alone."""
    found = {"target": np.array([target.lanes("float32"), target.tile_rows(), target.has_fma()])}
    for rule, activation in TRAINED:
        for i, array in enumerate(trained(rule, activation, dtype, "numba")):
            found[f"{rule} {activation} {i}"] = array
    for i, array in enumerate(updated(dtype, "numba")):
        found[f"adam {i}"] = array
    if dtype != "float32":
        return found
    for i, array in enumerate(products("numba")):
        found[f"product {i}"] = array
    for name in BOUNDS:
        found[f"points {name}"], found[f"fast {name}"] = fast(name)
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **everything(sys.argv[2]))  # type: ignore[arg-type]
