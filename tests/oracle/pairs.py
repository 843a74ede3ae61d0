"""Values, gradients and gradients of gradients of one function in gpubp and in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tolerances import ORACLE

import gpubp as gp
from gpubp import ops


def tensor(x: Any, wanted: bool = True) -> Any:
    return torch.from_numpy(np.array(x)).requires_grad_(wanted)


def close(found: Any, expected: Any, what: Any) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape, what
    assert found.dtype == expected.dtype, what
    error = np.abs(found - expected).max(initial=0.0)
    assert error <= ORACLE["float64"] * np.abs(expected).max(initial=1.0), f"{what}: {error}"


def _numbers(tensors: Any, like: Any) -> list[Any]:
    return [
        np.zeros_like(x) if t is None else t.detach().numpy()
        for t, x in zip(tensors, like, strict=True)
    ]


def compare(
    mine: Callable[..., Any],
    theirs: Callable[..., Any],
    *xs: Any,
    backend: str,
    second: bool = False,
    what: Any = "",
) -> None:
    """Values, gradients by all inputs, and gradients of a sum of these."""
    tensors = [tensor(x) for x in xs]
    out = theirs(*tensors)
    expected = out.detach().numpy()
    close(gp.compile(mine, backend=backend)(*xs), expected, what)
    weights = np.random.default_rng(1).standard_normal(expected.shape)
    first = torch.autograd.grad(
        (out * tensor(weights, False)).sum(), tensors, create_graph=second, allow_unused=True
    )
    positions = tuple(range(len(xs)))

    def gradients(*arrays: Any) -> tuple[Any, ...]:
        return gp.grad(lambda *a: ops.sum(mine(*a) * weights), argnums=positions)(*arrays)

    found = gp.compile(gradients, backend=backend)(*xs)
    for i, (a, b) in enumerate(zip(found, _numbers(first, xs), strict=True)):
        close(a, b, (what, f"gradient {i}"))
    if not second:
        return
    others = [np.random.default_rng(2).standard_normal(x.shape) for x in xs]
    total = sum((g.square() * tensor(v, False)).sum() for g, v in zip(first, others, strict=True))
    again = _numbers(torch.autograd.grad(total, tensors, allow_unused=True), xs)

    def twice(*arrays: Any) -> Any:
        terms = [
            ops.sum(ops.square(g) * v) for g, v in zip(gradients(*arrays), others, strict=True)
        ]
        return sum(terms[1:], terms[0])

    found = gp.compile(gp.grad(twice, argnums=positions), backend=backend)(*xs)
    for i, (a, b) in enumerate(zip(found, again, strict=True)):
        close(a, b, (what, f"second gradient {i}"))
