"""Batches of images that convolutions read where they are, by the order of the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu.indexed_operands import find_indexed_operands


def _losses(backend: str, channels: int, padding: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    weight = nn.Parameter(rng.normal(size=(4, channels, 3, 3)))
    bias = nn.Parameter(np.zeros(4))

    def loss(x: Any, t: Any) -> Any:
        y = ops.relu(ops.conv2d(x, weight, bias, padding=padding))
        return ops.mean(ops.square(ops.mean(y, (1, 2, 3)) - t))

    step = gp.compile_step(loss, optim.SGD([weight, bias], lr=0.1), backend=backend)
    X = rng.normal(size=(22, channels, 6, 5))
    losses = step.run(X, rng.normal(size=22), batch_size=6, epochs=3, shuffle=True, seed=3)
    return np.append(losses, weight.numpy())


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_shuffled_images_train_as_on_the_reference(channels: int, padding: int) -> None:
    expected = _losses("numpy", channels, padding)
    np.testing.assert_allclose(_losses("numba", channels, padding), expected, rtol=1e-11)


@pytest.mark.parametrize(("channels", "in_place"), [(1, True), (3, False)])
def test_only_images_that_are_to_be_turned_are_copied(channels: int, in_place: bool) -> None:
    weight = nn.Parameter(np.ones((2, channels, 3, 3), "f4"))

    def loss(x: Any, t: Any) -> Any:
        return ops.mean(ops.square(ops.mean(ops.conv2d(x, weight), (1, 2, 3)) - t))

    step = gp.compile_step(loss, optim.SGD([weight], lr=0.1), backend="numba")
    images = np.ones((8, channels, 5, 5), "f4")
    step.run(images, np.ones(8, "f4"), batch_size=4)
    program = step.program
    assert program is not None
    in_order = find_indexed_operands(program, 100, 200)
    loads = [p for p in program.parts if p.kernel == "load_batch"]
    batch = next(p.outputs[0][1].value for p in loads if len(p.outputs[0][1].shape) == 4)
    assert (batch in in_order) == in_place
