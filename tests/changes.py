"""Modules of every kind, their inputs, and changes of everything that can be changed of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn
from gpubp.errors import GpubpError

RNG = np.random.default_rng(0)
X = RNG.uniform(-2.0, 2.0, (6, 4)).astype(np.float32)
P = RNG.uniform(0.1, 0.9, (6, 4)).astype(np.float32)
Y = np.array([0, 1, 2, 3, 1, 0])
SIGNS = np.array([1, -1, 1, 1, -1, -1])
WEIGHT = [0.5, 1.0, 2.0, 3.0]

Inputs = tuple[Any, ...]
Change = Callable[[Any], Any]

_ELEMENTWISE = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Flatten",
    "Identity",
    "Dropout",
]

MODULES: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    **{name: (getattr(nn, name), (X,)) for name in _ELEMENTWISE},
    "Threshold": (lambda: nn.Threshold(0.5, 2.0), (X,)),
    "Softmax": (lambda: nn.Softmax(0), (X,)),
    "Softmin": (lambda: nn.Softmin(0), (X,)),
    "LogSoftmax": (lambda: nn.LogSoftmax(0), (X,)),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 2)), (X,)),
    "Linear": (lambda: nn.Linear(4, 4), (X,)),
    "Bilinear": (lambda: nn.Bilinear(4, 4, 4), (X, P)),
    "Embedding": (lambda: nn.Embedding(4, 3, 1), (Y,)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), (X,)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (X,)),
    "RMSNorm": (lambda: nn.RMSNorm(4), (X,)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5)), (X,)),
    "CrossEntropyLoss": (lambda: nn.CrossEntropyLoss(WEIGHT), (X, Y)),
    "CrossEntropyLoss of probabilities": (nn.CrossEntropyLoss, (X, P)),
    "NLLLoss": (lambda: nn.NLLLoss(WEIGHT), (X, Y)),
    "MultiMarginLoss": (nn.MultiMarginLoss, (X, Y)),
    "BCELoss": (lambda: nn.BCELoss(WEIGHT), (P, P[::-1].copy())),
    "BCEWithLogitsLoss": (lambda: nn.BCEWithLogitsLoss(WEIGHT, pos_weight=WEIGHT), (X, P)),
    "MultiLabelSoftMarginLoss": (lambda: nn.MultiLabelSoftMarginLoss(WEIGHT), (X, P)),
    "SoftMarginLoss": (nn.SoftMarginLoss, (X[:, 0], SIGNS)),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss, (X[:, 0], SIGNS)),
    "MarginRankingLoss": (nn.MarginRankingLoss, (X[:, 0], X[:, 1], SIGNS)),
    "CosineEmbeddingLoss": (nn.CosineEmbeddingLoss, (X, P, SIGNS)),
    "MSELoss": (nn.MSELoss, (X, P)),
    "L1Loss": (nn.L1Loss, (X, P)),
    "SmoothL1Loss": (nn.SmoothL1Loss, (X, P)),
    "HuberLoss": (nn.HuberLoss, (X, P)),
    "KLDivLoss": (nn.KLDivLoss, (X, P)),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, (X, P)),
    "GaussianNLLLoss": (nn.GaussianNLLLoss, (X, P, P)),
}


def _values(value: Any) -> list[Any]:
    """Other values for an attribute, some of them good."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, 1]
    if isinstance(value, float):
        return [0.5 * value + 0.2, 0.0]
    if isinstance(value, str):
        return ["mean", "sum", "none", "batchmean", "tanh"]
    if isinstance(value, tuple):
        return [(2, 2, 1), (1, *value), value[:1]]
    return [1, 0.3, True]


def _set(name: str, value: Any) -> Change:
    return lambda module: setattr(module, name, value)


def _new_slot(name: str, factor: float) -> Change:
    def change(module: nn.Module) -> None:
        slot = getattr(module, name)
        setattr(module, name, type(slot)(slot.value * factor + factor))

    return change


def changes(module: nn.Module) -> Iterator[tuple[str, Change]]:
    """(what, change) for every attribute, parameter, buffer and layer of a module."""
    for name, value in vars(module).items():
        if not name.startswith("_"):
            for other in _values(value):
                yield f"{name} = {other!r}", _set(name, other)
    for name, slot in {**module._parameters, **module._buffers}.items():
        if slot is not None:
            yield f"{name} = new", _new_slot(name, 2)
            yield f"{name} = None", _set(name, None)
    for name in module._modules:
        yield f"{name} = ReLU", _set(name, nn.ReLU())
        yield f"del {name}", lambda m, name=name: delattr(m, name)
        yield f"_modules[{name}]", lambda m, name=name: m._modules.update({name: nn.ReLU()})
    yield "eval()", lambda m: m.eval()
    yield "forward", _set("forward", lambda *inputs: inputs[0] * 3.0)


def outcome(call: Callable[..., Any], inputs: Inputs) -> Any:
    """What a call gives: an array, or the type of what it raises."""
    gp.manual_seed(3)
    try:
        return np.asarray(call(*inputs))
    except (GpubpError, TypeError, ValueError, IndexError, AttributeError) as error:
        return type(error)


def compiled_after(
    make: Callable[[], nn.Module], inputs: Inputs, change: Change, backend: str
) -> tuple[Any, Any, Any]:
    """What a program gives that is older than a change, a new one, and the module called plainly.

    All three start from copies of one module that was changed after its first call.
    """
    module = make()
    f = gp.compile(module, backend=backend)
    f(*inputs)
    change(module)
    fresh, plain = copy.deepcopy(module), copy.deepcopy(module)
    return (
        outcome(f, inputs),
        outcome(gp.compile(fresh, backend=backend), inputs),
        outcome(plain, inputs),
    )


def alike(a: Any, b: Any) -> bool:
    """Two outcomes are the same error, or the same numbers, bit for bit."""
    if isinstance(a, type) or isinstance(b, type):
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
