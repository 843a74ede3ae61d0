"""Transposes move past what does not mind them: the same values, and no copies between layers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim

BACKENDS = ("numpy", "numba")
Draw = np.random.Generator


def _grow(rng: Draw, x: Any) -> Any:
    """One more op, drawn by chance; ranks from 3 on."""
    ndim, axis = len(x.shape), int(rng.integers(len(x.shape)))
    choices: list[Callable[[], Any]] = [
        lambda: ops.transpose(x, rng.permutation(ndim).tolist()),
        lambda: ops.tanh(x) + x,
        lambda: x * np.linspace(0.5, 1.5, x.shape[-1]),
        lambda: x - ops.mean(x, axis, keepdims=True),
        lambda: x + ops.transpose(ops.sum(x, (0, 1), keepdims=True), list(range(ndim))),
        lambda: ops.concat([x, ops.sin(x)], axis) if x.size < 400 else x,
        lambda: ops.gather(x, np.array([0, x.shape[axis] - 1, 0]), axis),
        lambda: x[
            tuple(
                slice(0, max(1, n - 1)) if i == axis else slice(None, None, -1)
                for i, n in enumerate(x.shape)
            )
        ],
        lambda: ops.sum(x, axis) if ndim > 3 else ops.stop_gradient(x) * x,
        lambda: ops.max(x, axis, keepdims=True) + x,
        lambda: ops.astype(ops.argmax(x, axis, keepdims=True), "float64") * x,
        lambda: ops.broadcast_to(ops.sum(x, axis, keepdims=True), x.shape) * 0.1,
    ]
    return choices[int(rng.integers(len(choices)))]()


def _chain(seed: int) -> Callable[..., Any]:
    def f(x: Any) -> Any:
        rng = np.random.default_rng(seed)
        y = ops.transpose(x, rng.permutation(4).tolist())
        for _ in range(7):
            y = _grow(rng, y)
        return y

    return f


@pytest.mark.parametrize("seed", range(40))
def test_chains_of_transposes_keep_their_values_and_gradients(seed: int) -> None:
    x, f = np.random.default_rng(seed).normal(size=(2, 3, 4, 2)), _chain(seed)
    expected = f(x)
    slope = gp.compile(gp.grad(lambda x: ops.sum(ops.sin(f(x)))), backend="numpy")(x)
    for backend in BACKENDS:
        found = gp.compile(f, backend=backend)(x)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        again = gp.compile(gp.grad(lambda x: ops.sum(ops.sin(f(x)))), backend=backend)(x)
        np.testing.assert_allclose(again, slope, rtol=1e-11, atol=1e-12)


class _Net(nn.Module):
    """Two convolutions with biases, a normalisation and a residual sum between."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.first = nn.Parameter(rng.normal(size=(4, 2, 3, 3)).astype("f4"))
        self.second = nn.Parameter(rng.normal(size=(4, 4, 3, 3)).astype("f4"))
        self.scale = nn.Parameter(np.ones(4, "f4"))

    def forward(self, x: Any) -> Any:
        y = ops.relu(ops.conv2d(x, self.first, padding=1))
        mean = ops.mean(y, (0, 2, 3), keepdims=True)
        z = (y - mean) * ops.reshape(self.scale, (1, -1, 1, 1))
        z = ops.tanh(z) + ops.conv2d(z, self.second, padding=1)
        return ops.mean(z, (2, 3))


def test_images_stay_channels_last_from_layer_to_layer() -> None:
    model, loss = _Net(), nn.CrossEntropyLoss()
    step = gp.compile_step(lambda x, t: loss(model(x), t), optim.SGD(model.parameters(), lr=0.1))
    images, labels = np.zeros((3, 2, 6, 5), "f4"), np.zeros(3, np.int64)
    graph = step.explain(images, labels, after="axis_order")
    made = dict(re.findall(r"(%\d+) = (\w+)\(", graph))
    turned = re.findall(r"transpose\((%\d+), .* : float32\[3, 6, 5, \d\]", graph)
    assert sorted(made[x] for x in turned) == ["broadcast_to", "broadcast_to", "input"]


def test_a_slot_that_is_updated_stays_as_it_is() -> None:
    weight = nn.Parameter(np.ones((2, 3, 4), "f4"))

    def loss(x: Any) -> Any:
        return ops.sum(ops.transpose(x, (2, 0, 1)) * weight)

    step = gp.compile_step(loss, optim.SGD([weight], lr=0.5))
    step(np.arange(24, dtype="f4").reshape(3, 4, 2))
    expected = 1 - 0.5 * np.arange(24, dtype="f4").reshape(3, 4, 2).transpose(2, 0, 1)
    np.testing.assert_array_equal(weight.numpy(), expected)
    assert not any("copy" in part.name for part in step.program.parts)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_turned_images_of_width_one_are_those_of_their_numbers(backend: str) -> None:
    """torch's are not (findings/torch_batch_norm_gradient_of_width_one.sh)."""
    sequences = np.random.default_rng(0).standard_normal((2, 4, 3))
    weights = np.arange(12.0)
    layer = nn.BatchNorm2d(3, dtype=np.float64)
    before = layer.bias.value.copy()

    def loss(x: gp.Array) -> gp.Array:
        images = ops.reshape(ops.transpose(x, (0, 2, 1)), (2, 3, 4, 1))
        return ops.sum(ops.reshape(layer(images), (2, 12)) * weights)

    gp.compile_step(loss, optim.SGD(layer.parameters(), lr=1.0), backend=backend)(sequences)
    np.testing.assert_allclose(before - layer.bias.value, 2 * weights.reshape(3, 4).sum(1))
