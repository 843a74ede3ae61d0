"""A small classifier, the optimisers to train it with, and its compiled step: for several tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.compiler.parts import Part
from gpubp.compiler.program import Program

WIDTHS = (64, 100, 50, 10)
BATCH = 32
SAMPLES, UNEVEN = 150, 61  # for `trained`: two whole batches and one of 28
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=1e-3),
    "adam_decay": lambda p: optim.Adam(p, lr=1e-3, weight_decay=1e-2),
    "sgd_decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=1e-2),
    "momentum_decay": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
}


def mlp(
    activation: Callable[[], Any] = nn.ReLU,
    dtype: str = "float32",
    out: int = 10,
    hidden: tuple[int, ...] = WIDTHS[:-1],
) -> Any:
    nn.init.manual_seed(3)
    layers: list[Any] = []
    for a, b in itertools.pairwise((*hidden, out)):
        layers += [nn.Linear(a, b, dtype=dtype), activation()]
    return nn.Sequential(*layers[:-1])


def digits(
    dtype: str = "float32", samples: int = BATCH, features: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(samples, features)).astype(dtype), rng.integers(0, 10, samples)


def classifier_step(make: Callable[[Any], Any], model: Any = None, **options: Any) -> Any:
    model = model or mlp()
    loss_fn = nn.CrossEntropyLoss()
    options.setdefault("backend", "numba")
    return gp.compile_step(lambda x, y: loss_fn(model(x), y), make(model.parameters()), **options)


def trained(
    backend: Any, widths: tuple[int, ...], activation: Any, rule: str, dtype: str
) -> dict[str, np.ndarray]:
    """Losses and parameters after three epochs, the last batch of each a short one."""
    model = mlp(activation, dtype, hidden=widths)
    norm = 0.1 if rule == "clipped" else None
    make = OPTIMIZERS["adam" if rule == "clipped" else rule]
    step = classifier_step(make, model, backend=backend, max_grad_norm=norm)
    losses = step.run(*digits(dtype, SAMPLES, widths[0]), batch_size=UNEVEN, epochs=3, seed=1)
    return {"losses": losses, **model.state_dict()}


def prepared(backend: Any, widths: tuple[int, ...], dtype: str = "float32") -> tuple[Any, Program]:
    """A step with Adam, and its program for a batch of `UNEVEN` samples."""
    step = classifier_step(OPTIMIZERS["adam"], mlp(dtype=dtype, hidden=widths), backend=backend)
    return step, step.prepare(*digits(dtype, UNEVEN, widths[0]))


def bank_labels(part: Part, program: Program) -> set[str]:
    buffers = [program.buffers[o.buffer] for _, o in part.outputs]
    return {b.payload.label for b in buffers if b.kind == "bank"}  # type: ignore[union-attr]
