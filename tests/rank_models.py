"""Random models, losses and steps of the kinds that nn offers, for ranks and for one rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rank_work import parallel, seeded

import gpubp as gp
from gpubp import nn, ops, optim

D = {"dtype": "float64"}
CLASSES = 3
ACTIVATIONS = ("ReLU", "Tanh", "Sigmoid", "GELU", "Softplus", "SiLU", "ELU", "LeakyReLU")
# A gradient that is nothing but rounding must not be made large by its own size.
RULES = {
    "SGD": {"lr": 0.05, "momentum": 0.9},
    "Adam": {"lr": 0.003, "eps": 1e-3},
    "AdamW": {"lr": 0.003, "eps": 1e-3, "weight_decay": 0.1},
    "RMSprop": {"lr": 0.003, "eps": 1e-3},
    "Adagrad": {"lr": 0.01, "eps": 1e-3},
    "NAdam": {"lr": 0.003, "eps": 1e-3},
}


@dataclass
class Case:
    """One random training.

    Attributes:
        make: the model.
        X, y: the data.
        loss_fn: of outputs and y.
        rule: of optim.
        step: options of the step.
        sharing: of `DataParallel`.
        batch_size: uneven last batches, of one row too.
        backend: that runs it.
        by_rows: outputs of a row are of that row alone, and what is computed does not depend on
            the number of ranks.
        draws: random numbers are drawn.
    """

    make: Callable[[], nn.Module]
    X: Any
    y: Any
    loss_fn: Any
    rule: str
    step: dict[str, Any] = field(default_factory=dict)
    sharing: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    backend: str = "numpy"
    by_rows: bool = True
    draws: bool = False


class Last(nn.Module):
    """A recurrent layer's last output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0][:, -1]


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: Any) -> Any:
        return ops.mean(x, axis=1)


def case(seed: int, size: int) -> Case:
    """The training of a seed.

    Args:
        seed: any.
        size: how many ranks it will have.
    """
    rng = np.random.default_rng(seed)
    samples = int(rng.integers(max(5, size), 30))
    kind = ["dense", "image", "signal", "recurrent", "tokens"][seed % 5]
    norm = bool(rng.random() < 0.5)
    drops = bool(rng.random() < 0.25)
    batch_norm = norm and kind in ("dense", "image", "signal") and bool(rng.random() < 0.5)
    body, X = KINDS[kind](rng, samples, norm, batch_norm, drops)
    loss_fn, y = _loss(rng, samples)
    found = Case(body, X, y, loss_fn, str(rng.choice(list(RULES))), draws=drops)
    _choose_sharing(found, rng, size, batch_norm)
    found.batch_size = int(rng.integers(1, samples + 1))
    if batch_norm:
        _even_enough(found, rng, 2 * size)
        if found.sharing.get("deterministic"):  # of twelve pieces, some have one row
            found.sharing, found.by_rows = {}, False
    elif "average_every" in found.sharing:  # each rank updates with rows of its own
        _even_enough(found, rng, size)
    found.backend = ["numpy", "numba"][int(rng.integers(8)) == 0]
    return found


def _choose_sharing(found: Case, rng: np.random.Generator, size: int, batch_norm: bool) -> None:
    way = rng.choice(["plain", "sharded", "bucketed", "both", "local", "deterministic"])
    if batch_norm and way != "local" and rng.random() < 0.6:
        way = "synchronised"
    found.sharing = {
        "plain": {},
        "sharded": {"shard_optimizer": True},
        "bucketed": {"bucket_cap_mb": 1e-4},
        "both": {"shard_optimizer": True, "bucket_cap_mb": 1e-4},
        "local": {"average_every": int(rng.integers(1, 4))},
        "deterministic": {"deterministic": True},
        "synchronised": {"sync_batch_norm": True},
    }[str(way)]
    alike = not batch_norm or way == "synchronised"
    found.by_rows = alike and not found.draws and way != "local"
    scaled = bool(rng.random() < 0.3)
    found.step = {"accumulate": 1 if scaled else int(rng.integers(1, 4))}
    if scaled:
        found.step["loss_scale"] = [8.0, "dynamic"][int(rng.integers(2))]
    if rng.random() < 0.4:
        found.step["max_grad_norm"] = float(rng.uniform(0.01, 1))
    if rng.random() < 0.3:
        found.step["max_grad_value"] = float(rng.uniform(0.001, 0.1))


def _even_enough(found: Case, rng: np.random.Generator, least: int) -> None:
    """No batch has fewer rows. (Statistics of one row are none.)"""
    if len(found.X) < least:
        found.X = np.resize(found.X, (least, *found.X.shape[1:]))
        found.y = np.resize(found.y, (least, *found.y.shape[1:]))
    samples = len(found.X)
    able = [b for b in range(least, samples + 1) if not 0 < samples % b < least]
    found.batch_size = int(rng.choice(able))


def _between(rng: np.random.Generator, norm: Any, drops: bool) -> list[Callable[[], nn.Module]]:
    name = str(rng.choice(ACTIVATIONS))
    made: list[Any] = [norm] if norm is not None else []
    made.append(lambda: getattr(nn, name)())
    if drops:
        made.append(lambda: nn.Dropout(0.3))
    return made


def _stacked(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*[layer() for layer in layers])


def _dense(rng: Any, samples: int, norm: bool, batch_norm: bool, drops: bool) -> Any:
    layers: list[Any] = []
    width = 6
    for wide in rng.integers(1, 10, rng.integers(0, 3)).tolist():
        kind = nn.BatchNorm1d if batch_norm else nn.LayerNorm
        of = (lambda n=wide, kind=kind: kind(n, **D)) if norm else None
        layers.append(lambda a=width, b=wide: nn.Linear(a, b, **D))
        layers += _between(rng, of, drops)
        width = wide
    layers.append(lambda a=width: nn.Linear(a, CLASSES, **D))
    return _stacked(*layers), rng.normal(size=(samples, 6))


def _image(rng: Any, samples: int, norm: bool, batch_norm: bool, drops: bool) -> Any:
    n, stride, padding = int(rng.integers(1, 4)) * 2, *rng.integers(1, 3, 2).tolist()
    of = None
    if norm:
        of = (
            (lambda: nn.BatchNorm2d(n, **D))
            if batch_norm
            else [lambda: nn.GroupNorm(2, n, **D), lambda: nn.InstanceNorm2d(n, **D)][
                int(rng.integers(2))
            ]
        )
    pool = [lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2), lambda: nn.AdaptiveAvgPool2d(2)]
    layers: list[Any] = [lambda: nn.Conv2d(2, n, 3, stride=stride, padding=padding, **D)]
    layers += _between(rng, of, drops)
    layers += [pool[int(rng.integers(3))], lambda: nn.Conv2d(n, n, 1, groups=2, **D), nn.Flatten]
    x = rng.normal(size=(samples, 2, 8, 8))
    width = _width(_stacked(*layers), x)
    return _stacked(*layers, lambda: nn.Linear(width, CLASSES, **D)), x


def _signal(rng: Any, samples: int, norm: bool, batch_norm: bool, drops: bool) -> Any:
    of = None
    if norm:
        of = (lambda: nn.BatchNorm1d(4, **D)) if batch_norm else (lambda: nn.GroupNorm(1, 4, **D))
    layers: list[Any] = [lambda: nn.Conv1d(3, 4, 3, padding=1, **D), *_between(rng, of, drops)]
    up = rng.random() < 0.4
    layers += [(lambda: nn.ConvTranspose1d(4, 2, 2, stride=2, **D)) if up else nn.Identity]
    layers += [lambda: nn.MaxPool1d(2), nn.Flatten]
    x = rng.normal(size=(samples, 3, 10))
    width = _width(_stacked(*layers), x)
    return _stacked(*layers, lambda: nn.Linear(width, CLASSES, **D)), x


def _recurrent(rng: Any, samples: int, norm: bool, batch_norm: bool, drops: bool) -> Any:
    kind = getattr(nn, str(rng.choice(["RNN", "LSTM", "GRU"])))
    both, depth = bool(rng.random() < 0.3), int(rng.integers(1, 3))
    wide = 5 * (2 if both else 1)

    def layer() -> nn.Module:
        return Last(kind(4, 5, depth, batch_first=True, bidirectional=both, **D))

    of = (lambda: nn.LayerNorm(wide, **D)) if norm else None
    between = _between(rng, of, drops)
    made = _stacked(layer, *between, lambda: nn.Linear(wide, CLASSES, **D))
    return made, rng.normal(size=(samples, 6, 4))


def _tokens(rng: Any, samples: int, norm: bool, batch_norm: bool, drops: bool) -> Any:
    def layer() -> nn.Module:  # attention drops by the default generator, which threads share
        return nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=norm, **D)

    layers: list[Any] = [lambda: nn.Embedding(9, 8, **D), *_between(rng, None, drops)]
    layers += [layer] if rng.random() < 0.6 else []
    made = _stacked(*layers, Mean, lambda: nn.Linear(8, CLASSES, **D))
    return made, rng.integers(0, 9, (samples, 5))


KINDS = {
    "dense": _dense,
    "image": _image,
    "signal": _signal,
    "recurrent": _recurrent,
    "tokens": _tokens,
}


def _width(make: Callable[[], nn.Module], x: Any) -> int:
    return int(np.asarray(seeded(make)(x[:2])).shape[1])


def _loss(rng: np.random.Generator, samples: int) -> tuple[Any, Any]:
    labels = rng.integers(0, CLASSES, samples)
    numbers = rng.normal(size=(samples, CLASSES))
    both = rng.integers(0, 2, (samples, CLASSES)).astype(np.float64)
    every = [
        (nn.CrossEntropyLoss(), labels),
        (nn.CrossEntropyLoss(weight=rng.random(CLASSES) + 0.1), labels),
        (nn.CrossEntropyLoss(reduction="sum"), labels),
        (nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1), labels),
        (nn.MSELoss(), numbers),
        (nn.HuberLoss(), numbers),
        (nn.L1Loss(), numbers),
        (nn.BCEWithLogitsLoss(), both),
    ]
    return every[int(rng.integers(len(every)))]


def trained(communicator: Any, asked: Case, seed: int) -> dict[str, Any]:
    """Losses, and the state after two epochs."""
    drawn = gp.Generator(seed)

    def make() -> nn.Module:
        model = asked.make()
        for layer in model.modules():
            if hasattr(layer, "generator"):
                layer.generator = drawn
        return model

    model = seeded(make, seed)
    optimizer = getattr(optim, asked.rule)(model.parameters(), **RULES[asked.rule])
    step = gp.compile_step(
        lambda a, b: asked.loss_fn(model(a), b),
        optimizer,
        communicator=parallel(communicator, **asked.sharing),
        backend=asked.backend,
        **asked.step,
    )
    losses = step.run(asked.X, asked.y, batch_size=asked.batch_size, epochs=2)
    return {"losses": losses, "totals": step.totals, **model.state_dict()}
