"""A small classifier, the optimisers to train it with, and its compiled step: for several tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.program import Part, Program

WIDTHS = (64, 100, 50, 10)
BATCH = 32
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=1e-3),
    "adam_decay": lambda p: optim.Adam(p, lr=1e-3, weight_decay=1e-2),
    "sgd_decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=1e-2),
    "momentum_decay": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
}


def mlp(activation: Callable[[], Any] = nn.ReLU, dtype: str = "float32", out: int = 10) -> Any:
    nn.init.manual_seed(3)
    sizes = (*WIDTHS[:-1], out)
    layers: list[Any] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, dtype=dtype), activation()]
    return nn.Sequential(*layers[:-1])


def digits(dtype: str = "float32", samples: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(samples, 64)).astype(dtype), rng.integers(0, 10, samples)


def classifier_step(make: Callable[[Any], Any], model: Any = None, **options: Any) -> Any:
    model = model or mlp()
    loss_fn = nn.CrossEntropyLoss()
    options.setdefault("backend", "numba")
    return gp.compile_step(lambda x, y: loss_fn(model(x), y), make(model.parameters()), **options)


def bank_labels(part: Part, program: Program) -> set[str]:
    buffers = [program.buffers[o.buffer] for _, o in part.outputs]
    return {b.payload.label for b in buffers if b.kind == "bank"}  # type: ignore[union-attr]
