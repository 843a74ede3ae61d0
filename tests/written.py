"""Functions of several results, and faults that let a part leave one of them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpubp as gp
from gpubp import ops
from gpubp.compiler import fuse


def pullbacks(count: int, used: bool, *shape: int) -> tuple[Any, list[NDArray[Any]]]:
    """The value of a softmax cross-entropy (if it is used) and its gradients by so many
    cotangents; with arguments.
    """
    rng = np.random.default_rng(count)
    logits, labels = rng.normal(size=(*shape, 5)), rng.integers(0, 5, shape)
    cotangents = [rng.normal(size=shape) for _ in range(count)]

    def fn(logits: Any, labels: Any, *cotangents: Any) -> Any:
        value, pull = gp.vjp(lambda z: ops.softmax_cross_entropy(z, labels), logits)
        found = [pull(c)[0] for c in cotangents]
        return [value, *found] if used else found

    return fn, [logits, labels, *cotangents]


def join_every_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: all gradients share the forward's pass, whose kernel makes one."""

    def join(work: Any) -> None:
        nodes = [n for n in work.nodes if n.spec.name.startswith("softmax_cross_entropy")]
        for node in nodes[1:]:
            work.merge(work.of[nodes[0].index], work.of[node.index])

    monkeypatch.setattr(fuse, "_join_passes", join)
