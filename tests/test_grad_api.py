"""gp.grad, gp.value_and_grad and gp.vjp on plain functions of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import ops
from gpubp.errors import GradientError, ShapeError, TraceError
from gpubp.ops.random import Generator

RNG = np.random.default_rng(3)
A, B = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))


def _f(a: Any, b: Any) -> Any:
    return ops.sum(ops.square(a) * b)


def test_argnums_choose_the_arguments() -> None:
    assert_close(gp.grad(_f)(A, B), 2 * A * B)
    assert_close(gp.grad(_f, argnums=1)(A, B), A**2)
    assert_close(gp.grad(_f, argnums=-1)(A, B), A**2)
    both = gp.grad(_f, argnums=(1, 0))(A, B)
    assert isinstance(both, tuple)
    assert_close(both[0], A**2)
    assert_close(both[1], 2 * A * B)
    (only,) = gp.grad(_f, argnums=(0,))(A, B)
    assert_close(only, 2 * A * B)


def test_value_and_grad_gives_both() -> None:
    value, gradient = gp.value_and_grad(_f)(A, B)
    assert_close(value, np.sum(A**2 * B))
    assert_close(gradient, 2 * A * B)


def test_gradients_have_the_structure_of_the_argument() -> None:
    def f(params: Any, scale: Any) -> Any:
        (w, [v]), extra = params["layers"], params["extra"]
        return ops.sum(w * v) * scale + ops.sum(extra["x"] * 3.0)

    params = {"layers": (A, [B]), "extra": {"x": A}}
    found, dscale = gp.grad(f, argnums=(0, 1))(params, np.float64(2.0))
    assert list(found) == ["layers", "extra"]
    assert isinstance(found["layers"], tuple)
    assert isinstance(found["layers"][1], list)
    assert_close(found["layers"][0], 2 * B)
    assert_close(found["layers"][1][0], 2 * A)
    assert_close(found["extra"]["x"], np.full((3, 4), 3.0))
    assert_close(dscale, np.sum(A * B))


def test_what_has_aux_sets_aside_is_returned() -> None:
    def f(a: Any) -> Any:
        hidden = ops.sin(a)
        return ops.sum(hidden), {"hidden": hidden, "count": (a > 0).sum()}

    gradient, aux = gp.grad(f, has_aux=True)(A)
    assert_close(gradient, np.cos(A))
    assert_close(aux["hidden"], np.sin(A))
    assert int(aux["count"]) == (A > 0).sum()
    (value, aux), gradient = gp.value_and_grad(f, has_aux=True)(A)
    assert_close(value, np.sin(A).sum())
    assert_close(gradient, np.cos(A))


def test_gradients_of_gradients_are_right() -> None:
    def cube(x: Any) -> Any:
        return x * x * x

    x = np.float64(1.5)
    assert_close(gp.grad(cube)(x), 3 * x**2)
    assert_close(gp.grad(gp.grad(cube))(x), 6 * x)
    assert_close(gp.grad(gp.grad(gp.grad(cube)))(x), np.float64(6.0))
    sixth = gp.grad(gp.grad(lambda v: ops.sum(ops.tanh(v) * ops.sin(v))))
    t, h = np.tanh(x), 1e-4
    plain = lambda v: np.tanh(v) * np.sin(v)  # noqa: E731
    numeric = (plain(x + h) - 2 * t * np.sin(x) + plain(x - h)) / h**2
    assert abs(sixth(x) - numeric) < 1e-6


def test_hessian_vector_product() -> None:
    v = B[0]

    def energy(x: Any) -> Any:
        return ops.sum(ops.exp(x)) + ops.square(ops.sum(x))

    product = gp.grad(lambda x: ops.sum(gp.grad(energy)(x) * v))(A[0])
    assert_close(product, np.exp(A[0]) * v + 2 * v.sum())


@pytest.mark.parametrize("backend", BACKENDS)
def test_inside_compile_with_a_closure_over_a_traced_value(backend: str) -> None:
    def f(a: Any, b: Any) -> Any:
        shared = a * 2.0
        inner = gp.grad(lambda v: ops.sum(shared * v * v + a * v))(b)
        same = gp.grad(lambda v: ops.sum(v * shared))(shared)
        return inner, same

    inner, same = gp.compile(f, backend=backend)(A, B)
    assert_close(inner, 4 * A * B + A)
    assert_close(same, 2 * A)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compile_inside_grad_and_grad_of_compiled(backend: str) -> None:
    compiled = gp.compile(lambda a: ops.square(a) * 3.0, backend=backend)
    assert_close(gp.grad(lambda a: ops.sum(compiled(a)))(A), 6 * A)
    again = gp.compile(gp.grad(lambda a: ops.sum(compiled(a))), backend=backend)
    assert_close(again(A), 6 * A)
    assert_close(compiled(A), 3 * A**2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_higher_order_compiled(backend: str) -> None:
    second = gp.grad(lambda v: ops.sum(gp.grad(lambda u: ops.sum(ops.sin(u)))(v)))
    assert_close(gp.compile(second, backend=backend)(A), -np.sin(A))


def test_gradients_of_unused_arguments_are_zeros() -> None:
    found = gp.grad(lambda a, b: ops.sum(a), argnums=(0, 1))(A, B.astype(np.float32))
    assert_close(found[0], np.ones((3, 4)))
    assert_same(found[1], np.zeros((3, 4), np.float32))
    _, pull = gp.vjp(lambda a, b: a * 2.0, A, B)
    assert_same(pull(np.ones((3, 4)))[1], np.zeros((3, 4)))
    compiled = gp.compile(gp.grad(lambda a, b: ops.sum(a), argnums=1))
    assert_same(compiled(A, B), np.zeros((3, 4)))


def test_a_pullback_may_be_called_again() -> None:
    value, pull = gp.vjp(lambda a, b: ops.matmul(a, ops.transpose(b)), A, B)
    assert_close(value, A @ B.T)
    g = RNG.normal(size=(3, 3))
    for _ in range(2):
        da, db = pull(g)
        assert_close(da, g @ B)
        assert_close(db, g.T @ A)
    with pytest.raises(ShapeError, match=r"cotangent is float64\[2\].*output is float64\[3, 3\]"):
        pull(np.ones(2))


def test_vjp_inside_a_trace() -> None:
    def f(a: Any, g: Any) -> Any:
        value, pull = gp.vjp(lambda v: ops.sin(v) * a, a)
        return value, pull(g)[0]

    value, found = gp.compile(f)(A, B)
    assert_close(value, np.sin(A) * A)
    assert_close(found, B * np.cos(A) * A)


def test_vjp_draws_once() -> None:
    generator = Generator(5)
    ones = np.ones((20, 30))
    value, pull = gp.vjp(lambda a: ops.dropout(a, 0.4, generator=generator), ones)
    assert list(generator.state.value) == [5, 1]
    assert 0 < np.mean(value == 0) < 1
    for _ in range(2):
        (found,) = pull(ones)
        assert_same(found, value)
    assert list(generator.state.value) == [5, 1]


def test_value_and_gradient_share_one_mask() -> None:
    generator = Generator(5)
    ones = np.ones((20, 30))

    def f(a: Any) -> Any:
        dropped = ops.dropout(a, 0.4, generator=generator)
        return ops.sum(dropped), dropped

    gradient, dropped = gp.grad(f, has_aux=True)(ones)
    assert_same(gradient, dropped)
    again, _ = gp.grad(f, has_aux=True)(ones)
    assert not np.array_equal(again, gradient)


@pytest.mark.parametrize(
    ("work", "kind", "message"),
    [
        (lambda: gp.grad(_f, argnums=2)(A, B), GradientError, "argnums 2 is out of range for 2"),
        (lambda: gp.grad(lambda a: a * 2.0)(A), GradientError, r"scalar.*got float64\[3, 4\]"),
        (lambda: gp.grad(ops.sum)(np.arange(3)), GradientError, r"by int64\[3\]"),
        (lambda: gp.grad(lambda a: 1.0)(A), TraceError, "returned 1.0, which does not depend"),
        (lambda: gp.grad(lambda a: ops.sum(A))(A), TraceError, "does not depend"),
    ],
)
def test_what_has_no_gradient(work: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        work()
