"""Denormal numbers: 0 in training steps of the CPU backend, kept by everything else."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.errors import ArgumentError

TINY = {"float32": 1e-42, "float64": 1e-315}


def trained(backend: Any, dtype: str, loss: Any = None) -> np.ndarray:
    """A weight of 0 after a step with a rate of 1 and a denormal gradient."""
    weight = nn.Parameter(np.zeros(40, dtype))
    tiny = np.full((1, 40), TINY[dtype], dtype)
    fn = loss or (lambda x: ops.sum(x * weight))
    step = gp.compile_step(lambda x: fn(x), optim.SGD([weight], lr=1.0), backend=backend)
    step(tiny)
    step.run(tiny, epochs=1, batch_size=1)
    return np.array(weight.numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_training_step_takes_them_for_0_unless_told_not_to(dtype: str) -> None:
    for workers in (1, 2, 3):
        assert (trained(NumbaBackend(workers), dtype) == 0).all()
        kept = trained(NumbaBackend(workers, flush_denormal=False), dtype)
        np.testing.assert_array_equal(kept, trained("numpy", dtype))
        assert (kept < 0).all()


def test_what_changes_no_state_keeps_them() -> None:
    x = np.full(100, 1e-42, np.float32)
    for workers in (1, 2):
        doubled = gp.compile(lambda x: x * 2, backend=NumbaBackend(workers))(x)
        np.testing.assert_array_equal(doubled, x * 2)
        assert (doubled > 0).all()


def test_a_step_leaves_the_arithmetic_of_its_thread_as_it_was() -> None:
    x = np.full(100, 1e-42, np.float32)
    found: list[bool] = []

    def other() -> None:
        trained("numba", "float32")
        found.append(bool((x * np.float32(2) > 0).all()))

    other()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [True, True]


def test_backends_are_told_with_true_or_false() -> None:
    with pytest.raises(ArgumentError, match="flush_denormal"):
        NumbaBackend(flush_denormal="no")  # type: ignore[arg-type]
