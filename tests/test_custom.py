"""Custom ops: eager, traced, differentiated, and misused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.compiler.grad import grad
from gpubp.compiler.trace import evaluate_graph, trace
from gpubp.errors import DTypeError, GradientError, ShapeError, TraceError

cube = ops.custom_op(
    "cube",
    lambda x, scale=1.0: (scale * x**3).astype(x.dtype),
    vjp=lambda g, y, x, scale=1.0: g * (3.0 * scale) * ops.square(x),
)
outer = ops.custom_op(
    "outer_product",
    np.outer,
    vjp=lambda g, y, a, b: (ops.matmul(g, b), ops.matmul(a, g)),
    infer=lambda a, b: ((*a.shape, *b.shape), a.dtype),
)


def test_eager_and_traced_agree() -> None:
    x = np.array([1.0, -2.0], np.float32)
    assert_same(cube(x, scale=2.0), np.array([2.0, -16.0], np.float32))
    graph, _ = trace(lambda a: cube(a, scale=2.0), [x])
    assert_same(evaluate_graph(graph, [x])[0], cube(x, scale=2.0))


def test_gradients_of_every_order() -> None:
    x = np.array([1.0, -2.0])
    first = grad(lambda a: ops.sum(cube(a, scale=2.0)))
    assert_close(first(x), 6.0 * x**2)
    assert_close(grad(lambda a: ops.sum(first(a)))(x), 12.0 * x)


def test_shape_rule_and_several_inputs() -> None:
    a, b, w = np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0]), np.ones((2, 3))
    found = grad(lambda p, q: ops.sum(outer(p, q) * w), argnums=(0, 1))(a, b)
    assert_close(found[0], np.full(2, 12.0))
    assert_close(found[1], np.full(3, 3.0))


def test_a_constant_cotangent_is_accepted() -> None:
    flat = ops.custom_op("flat", lambda x: x * 0, vjp=lambda g, y, x: np.zeros(x.shape))
    assert_same(grad(lambda x: ops.sum(flat(x)))(np.ones(2)), np.zeros(2))


def test_inputs_are_read_only() -> None:
    def forward(x: Any) -> Any:
        x += 1
        return x

    with pytest.raises(ValueError, match="read-only"):
        ops.custom_op("in_place", forward)(np.ones(2))


def test_the_result_is_memory_of_its_own() -> None:
    x = np.ones(2)
    assert not np.shares_memory(ops.custom_op("same", lambda a: a)(x), x)


def test_wrong_custom_ops_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="built-in"):
        ops.custom_op("add", np.add)
    with pytest.raises(ShapeError, match=r"float64\[1\].*float64\[2\]"):
        ops.custom_op("shorter", lambda x: x[:1])(np.ones(2))
    with pytest.raises(DTypeError, match=r"float64\[2\].*float32\[2\]"):
        ops.custom_op("wider", lambda x: x.astype(np.float64))(np.ones(2, np.float32))
    with pytest.raises(TraceError, match="hashable"):
        cube(np.ones(2), scale=[1.0])
    with pytest.raises(ShapeError, match="at least one array"):
        cube()
    one = ops.custom_op("one_of_two", lambda a, b: a, vjp=lambda g, y, a, b: (g,))
    with pytest.raises(GradientError, match="1 cotangents for 2 inputs"):
        grad(lambda a: ops.sum(one(a, a)))(np.ones(2))


@pytest.mark.parametrize("backend", ["numpy", 1, 3])
def test_an_op_that_raises_stops_the_run_at_its_step(backend: str | int) -> None:
    """The weights are those of the steps before, on any number of workers."""
    calls: list[int] = []

    def forward(x: NDArray[Any]) -> NDArray[Any]:
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("the third call")
        return x * 2

    op = gp.custom_op("raises_third", forward, vjp=lambda g, y, x: (g * 2.0,))
    X = np.linspace(-1, 1, 192, dtype=np.float32).reshape(48, 4)

    def train(steps: int) -> NDArray[Any]:
        calls.clear()
        gp.manual_seed(0)
        layer = nn.Linear(4, 4)
        target = NumbaBackend(workers=backend) if isinstance(backend, int) else backend
        step = gp.compile_step(
            lambda x: ops.mean(ops.square(op(layer(x)))),
            optim.SGD(layer.parameters(), lr=0.1),
            backend=target,
        )
        if steps < 3:
            step.run(X[: 8 * steps], batch_size=8, shuffle=False)
        else:
            with pytest.raises(ValueError, match="the third call"):
                step.run(X, batch_size=8, shuffle=False)
            assert len(calls) == 3
        return layer.weight.numpy()

    assert_same(train(6), train(2))
