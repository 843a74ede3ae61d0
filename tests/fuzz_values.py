"""Values for calls that are wrong, or nearly right: numbers, arrays, names, files, objects.

`Draw.value(name)` gives what an argument of that name might get: mostly something plausible, so
that calls come far; often enough anything at all.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.optim import lr_scheduler

SHAPES = [(), (0,), (1,), (3,), (4,), (2, 3), (4, 3), (3, 2), (0, 3), (4, 0), (2, 1), (2, 3, 4)]
SHAPES += [(1, 1, 1, 1), (2, 2, 2, 2, 2)]
DTYPES = ["float32", "float64", "int64", "int32", "bool", "float16", "uint8", "int8", "complex64"]
DTYPES += [">f8", ">i4", "uint64", "U3", "O", "datetime64[s]", "longdouble"]
NUMBERS: list[Any] = [0, 1, 2, 3, 5, -1, -7, 0.5, 1.5, 1e-3, -0.5, 1e30, 10**30, float("nan")]
NUMBERS += [float("inf"), True, False, np.float32(0.5), np.int64(2), np.float64("nan"), 2 + 1j]
NUMBERS += [np.bool_(True)]
NAMES = [
    "",
    "x",
    "mean",
    "sum",
    "none",
    "relu",
    "accuracy",
    "numpy",
    "numba",
    "cupy",
    "cpu",
    "cuda",
]
NAMES += ["cuda:7", "float32", "auto", "step", "epoch", "tanh", "same", "a.b", "loss", "val_loss"]


def _function(*args: Any) -> Any:
    return args[0] if args else None


class _Refusing:
    """An object that takes part in nothing."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")


class Draw(random.Random):
    """A source of values; everything follows from the seed.

    Args:
        seed: an int.
        folder: for files.
    """

    def __new__(cls, seed: int, folder: Path) -> Draw:
        return super().__new__(cls, seed)

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed)
        self.folder = folder
        self.numbers = np.random.default_rng(seed)

    def array(self, shape: Any = None, dtype: str | None = None) -> Any:
        """Of a good dtype most often; now and then with numbers that are not finite."""
        shape = self.choice(SHAPES) if shape is None else shape
        dtype = dtype or self.choice(DTYPES[:5] * 4 + DTYPES)
        if dtype == "datetime64[s]":
            return np.zeros(shape, dtype)
        if dtype in ("O", "U3"):
            return np.full(shape, self.choice(["a", "7"]), dtype)
        made = self.numbers.normal(0, 2, shape)
        if np.dtype(dtype).kind in "iu":
            made = self.numbers.integers(-1 if self.random() < 0.2 else 0, 3, shape)
        found = np.asarray(made).astype(dtype)
        if found.size and found.dtype.kind == "f" and self.random() < 0.1:
            found.flat[0] = self.choice([np.nan, np.inf, -np.inf])
        return np.ma.masked_array(found) if self.random() < 0.03 else found

    def shape(self) -> Any:
        return self.choice(
            [(2, 3), (3,), 3, (), (-1,), (2, -1), (0,), [2, 3], (2.0,), None, (-1, -1)]
        )

    def axis(self) -> Any:
        return self.choice(
            [0, 1, -1, None, (0, 1), (0, 0), 5, -9, 1.0, "x", True, [0], np.int64(0)]
        )

    def option(self, **known: Any) -> Any:
        return self.choice(list(known.values()))

    def anything(self) -> Any:
        """Of any kind."""
        kinds: list[Callable[[], Any]] = [
            lambda: self.choice(NUMBERS),
            lambda: self.choice(NAMES),
            lambda: self.array(),
            lambda: self.array(),
            self.shape,
            self.axis,
            lambda: None,
            lambda: self.choice(
                [[], {}, (), set(), b"x", ..., slice(0, 2), _function, int, object()]
            ),
            lambda: self.choice([[1, 2], [[1.0, 2.0], [3.0]], ["a"], [None], {"a": 1}, {1: "a"}]),
            lambda: self.choice([nn.Linear(3, 2), nn.Linear, nn.ReLU(), _Refusing(), nn]),
            lambda: nn.Parameter(np.ones((3, 2), np.float32)),
            lambda: self.path(),
            lambda: iter([1, 2]),
        ]
        return self.choice(kinds)()

    def path(self) -> Any:
        """Files that are there and hold something else, folders, files that are not there."""
        there = sorted(self.folder.iterdir())
        missing = [self.folder / "missing", self.folder / "no" / "where", Path(os.devnull), ""]
        return self.choice([*there, *map(str, there), *missing, 3, None, b"\0", "a\0b"])

    def params(self) -> Any:
        model = nn.Linear(3, 2)
        good = [model.parameters(), list(model.parameters()), [model.weight]]
        groups = [[{"params": [model.weight], "lr": self.choice(NUMBERS)}, {"params": model.bias}]]
        bad = [
            [],
            [{}],
            [{"params": []}],
            [{"lr": 1}],
            model,
            [model.weight] * 2,
            [1],
            None,
            [None],
        ]
        return self.choice(good * 6 + groups * 2 + bad)

    def optimizer(self) -> Any:
        model = nn.Linear(3, 2)
        name = self.choice(["SGD", "Adam", "RMSprop", "Rprop", "Lion"])
        if self.random() < 0.1:
            return self.anything()
        return getattr(optim, name)(model.parameters(), lr=0.1)

    def schedules(self) -> Any:
        found = self.optimizer()
        if not isinstance(found, optim.Optimizer):
            return [found]
        made = [lr_scheduler.StepLR(found, 2), lr_scheduler.ExponentialLR(found, 0.9)]
        return self.choice([made, made[:1], [], made * 2, None, [found]])

    def value(self, name: str) -> Any:
        """For an argument of this name."""
        if self.random() < 0.25:
            return self.anything()
        for part, draw in PLAUSIBLE.items():
            if name == part or (part.endswith("*") and name.startswith(part[:-1])):
                return draw(self)
        return self.anything()


def _from(*values: Any) -> Callable[[Draw], Any]:
    return lambda d: d.choice(list(values))


def _array(d: Draw) -> Any:
    return d.array()


def _number(d: Draw) -> Any:
    return d.choice(NUMBERS)


_size = _from(1, 2, 3, 4, 0, -1, 2.5, None, "3", True, np.int64(3))
_share = _from(0.0, 0.1, 0.5, 0.9, 1.0, 1.5, -0.1, float("nan"), None, "0.5", True)
_flag = _from(True, False, None, 1, "yes")
_dtype = _from("float32", "float64", "int64", "bool", "float16", "complex64", "x", None, float, 3)

PLAUSIBLE: dict[str, Callable[[Draw], Any]] = {
    **dict.fromkeys(("x", "a", "b", "input*", "target", "logits", "var", "X", "condition"), _array),
    **dict.fromkeys(("x1", "x2", "updates", "value", "exponent", "weight", "pos_weight"), _array),
    **dict.fromkeys(
        ("labels", "indices", "y"),
        lambda d: d.array(dtype=d.choice(["int64", "int32", "float32", "bool"])),
    ),
    "bias": lambda d: d.choice([True, False, d.array((2,), "float32"), d.array(), None]),
    "arrays": lambda d: d.choice(
        [[d.array(), d.array()], [d.array()], d.array(), [], (d.array(),)]
    ),
    "axes": lambda d: d.choice([(0, 1), (1, 0), (0, 0), (0, 2, 1), (1,), None, (0.5, 1)]),
    **dict.fromkeys(("axis", "dim", "first", "second", "start_axis", "end_axis"), Draw.axis),
    **dict.fromkeys(("start_dim", "end_dim", "dimension"), Draw.axis),
    **dict.fromkeys(("shape", "normalized_shape", "unflattened_size", "sizes"), Draw.shape),
    "key": lambda d: d.choice([0, -1, 9, slice(None), (0, 1), ..., None, (slice(0, 2), ...), "a"]),
    **dict.fromkeys(("num*", "in_features", "out_features", "in1_features", "in2_features"), _size),
    **dict.fromkeys(("embedding_dim", "padding_idx", "size", "epochs", "batch_size"), _size),
    **dict.fromkeys(("total*", "step_size*", "T_*", "warmup*", "accumulate", "depth"), _size),
    **dict.fromkeys(
        ("patience", "cooldown", "max_steps", "save_every*", "every", "last_epoch"), _size
    ),
    **dict.fromkeys(("p", "momentum", "eps", "lr", "max_lr", "base_lr", "alpha", "rho"), _share),
    **dict.fromkeys(("gamma", "factor", "weight_decay", "dampening", "validation_split"), _share),
    **dict.fromkeys(("decay", "label_smoothing", "margin", "delta", "beta", "pct_start"), _share),
    **dict.fromkeys(("low", "high", "lambd", "slope", "negative_slope", "threshold"), _number),
    **dict.fromkeys(("max_grad_norm", "max_grad_value", "min_delta", "max_time"), _number),
    "betas": _from(
        (0.9, 0.99), (0.9,), (0.9, 1.0), (-1, 0.5), 0.9, None, ("a", "b"), (0.1, 0.2, 0.3)
    ),
    **dict.fromkeys(("keepdims", "training", "affine", "shuffle", "nesterov", "amsgrad"), _flag),
    **dict.fromkeys(("centered", "maximize", "full", "log_*", "verbose", "strict"), _flag),
    "dtype": _dtype,
    "reduction": _from("mean", "sum", "none", "batchmean", "avg", None, 3),
    "params": Draw.params,
    "optimizer": Draw.optimizer,
    "schedulers": Draw.schedules,
    "milestones": _from([2], [1, 3], [3, 1], [], 2, None, [1.5], ["a"], [-1]),
    **dict.fromkeys(("path", "checkpoint", "resume"), Draw.path),
    **dict.fromkeys(("generator",), lambda d: d.choice([None, gp.Generator(3), 3, "g"])),
    "seed": _from(0, 1, 2**63, -1, 1.5, "1", None, True, np.int64(3)),
    "device": _from("cpu", "auto", "cuda", "cuda:9", "tpu", None, 0, ""),
    "backend": _from("numpy", "numba", None, "cupy", "nope", 3, ops),
    "module": lambda d: d.choice([nn.Linear(3, 2), nn.ReLU(), None, nn.Linear, 3]),
    "modules": lambda d: d.choice([[nn.Linear(3, 2)], [], [3], nn.ReLU(), {"a": nn.ReLU()}, None]),
    "model": lambda d: d.choice(
        [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2)), nn.ReLU(), None, 3]
    ),
    "fn": lambda d: d.choice(
        [ops.sin, lambda x: ops.sum(x), lambda x: x, lambda: 1, _function, None]
    ),
    "lr_lambda": lambda d: d.choice(
        [lambda e: 0.9, [lambda e: 0.5], lambda e: "a", None, 3, lambda: 1]
    ),
    "mode": _from(
        "min", "max", "auto", "triangular", "triangular2", "exp_range", "fan_in", "x", None
    ),
    "monitor": _from("loss", "val_loss", "accuracy", "nope", None, 3),
    "metrics": _from((), ("accuracy",), "accuracy", ("nope",), None, [3], (_function,)),
}
