"""Programs of matrix products, and what the CPU backend makes of them: for several tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.epilogues import find_epilogue
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_matmul import encode_matmul
from gpubp.compiler.parts import Part
from gpubp.compiler.program import Program
from gpubp.core import bind
from gpubp.ops.spec import SPECS

M = (1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 31, 64, 97)
N = (1, 2, 7, 8, 9, 15, 16, 17, 33, 100)


def sizes() -> list[tuple[int, int]]:
    """Each of M with three of N, each of N with four or five of M."""
    return [(m, N[(3 * i + 4 * turn) % len(N)]) for turn in range(3) for i, m in enumerate(M)]


def found_epilogues(program: Program | None) -> list[str | None]:
    """The epilogue of each product, None where a chain or nothing follows it."""
    assert program is not None
    parts = [p for p in program.parts if p.kernel == "matmul"]
    found = [find_epilogue(p, words.epilogues(_dtype(p))) for p in parts]
    return [None if e is None else e.name for e in found]


def _dtype(part: Part) -> str:
    assert part.anchor is not None
    return part.body[part.anchor].dtype.name


def encoded(program: Program | None) -> list[list[int]]:
    """The words of each product."""
    assert program is not None
    return [encode_matmul(p, {})[1] for p in program.parts if p.kernel == "matmul"]


def _then(name: str) -> Callable[..., Any]:
    return lambda a, b, row, saved: getattr(ops, name)(a @ b + row)


def _grad(name: str, **attrs: Any) -> Callable[..., Any]:
    spec = SPECS[name]
    return lambda a, b, row, saved: bind(spec, a @ b, saved, **attrs)


def _kept(a: Any, b: Any, row: Any, saved: Any) -> Any:
    total = a @ b + row
    return ops.gelu(total), total


# What each epilogue computes, from A (m, k), B (k, n), a row (n) and a saved matrix (m, n).
FORWARD: dict[str, Callable[..., Any]] = {
    "bias": lambda a, b, row, saved: a @ b + row,
    "bias_relu": _then("relu"),
    "bias_sigmoid": _then("sigmoid"),
    "bias_tanh": _then("tanh"),
    "bias_gelu": _kept,
    "relu_grad": _grad("relu_grad"),
    "sigmoid_grad": _grad("sigmoid_grad"),
    "tanh_grad": _grad("tanh_grad"),
    "gelu_grad": _grad("gelu_grad", approximate="none"),
}


def operands(m: int, n: int, k: int, dtype: str = "float32") -> tuple[np.ndarray, ...]:
    """A, B, a row and a saved matrix; entries of |A| |B| are about 1."""
    rng = np.random.default_rng([m, n, k])
    arrays = (
        rng.normal(size=(m, k)),
        rng.normal(size=(k, n)) / max(k, 1),
        rng.normal(size=n),
        rng.normal(size=(m, n)),
    )
    return tuple(a.astype(dtype) for a in arrays)


class Weights:
    """Weights whose gradients are products of the batches: X.T @ T, without cancellation."""

    def __init__(self, shapes: list[tuple[int, int]], k: int, dtype: str) -> None:
        rng = np.random.default_rng(k)
        self.params = [
            nn.Parameter(rng.normal(size=shape).astype(dtype), name=f"w{i}")
            for i, shape in enumerate(shapes)
        ]
        self.batch = [
            rng.uniform(0.5, 1.5, size=(k, size)).astype(dtype) for s in shapes for size in s
        ]

    def loss(self, *batch: Any) -> Any:
        """Its gradient with respect to weight i is X_i.T @ T_i."""
        terms = [ops.sum((x @ w) * t) for w, x, t in zip(self.params, batch[::2], batch[1::2])]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def step(self, make: Callable[[Any], Any], **options: Any) -> tuple[gp.step.Step, Any]:
        """A compiled step and its optimiser."""
        optimizer = make(self.params)
        return gp.compile_step(self.loss, optimizer, **options), optimizer
