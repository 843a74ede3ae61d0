"""Functions with a gradient of the user's: as said, on every backend, differentiated again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import ArgumentError, GradientError

X = np.array([0.5, -1.0, 2.0])


def _clipped(x: Any) -> Any:
    return x * 1.0, ops.less(ops.abs(x), 1.0)


CLIPPED = gp.custom_vjp(_clipped, lambda small, g: ops.where(small, g, 0.0))
PRODUCT = gp.custom_vjp(
    lambda a, b: ((a * b, a + b), (a, b)),
    lambda saved, g: (g[0] * saved[1] * 3.0 + g[1], g[0] * saved[0] * 5.0),
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_is_what_the_user_says(backend: str) -> None:
    fn = gp.compile(gp.value_and_grad(lambda x: ops.sum(CLIPPED(x) * 2.0)), backend=backend)
    value, found = fn(X)
    assert_close(value, np.asarray(2 * X.sum()))
    assert_close(found, np.array([2.0, 0.0, 0.0]))
    assert_close(gp.grad(lambda x: ops.sum(CLIPPED(x) * 2.0))(X), found)
    assert_close(CLIPPED(X), X)


def test_several_arguments_and_results_of_which_some_are_used() -> None:
    both = gp.grad(lambda a, b: ops.sum(PRODUCT(a, b)[0]), (0, 1))
    assert [g.tolist() for g in both(X, X + 1)] == [(3 * (X + 1)).tolist(), (5 * X).tolist()]
    last = gp.grad(lambda a, b: ops.sum(PRODUCT(a, b)[1]), (0, 1))
    assert [g.tolist() for g in last(X, X)] == [[1.0] * 3, [0.0] * 3]


def test_a_gradient_is_differentiated_again_through_what_was_saved() -> None:
    cube = gp.custom_vjp(lambda x: (x**3.0, x), lambda x, g: g * 3.0 * x * x)
    assert_close(gp.grad(gp.grad(cube))(2.0), np.asarray(12.0))
    assert_close(gp.hessian(lambda x: ops.sum(cube(x)))(X), np.diag(6 * X))


def test_a_straight_through_result_that_depends_on_nothing_has_its_gradient() -> None:
    ones = gp.custom_vjp(lambda x: (ops.ones_like(x), None), lambda _, g: g * 7.0)
    assert gp.grad(lambda x: ops.sum(ones(x)))(X).tolist() == [7.0] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_stands_in_loops_in_models_and_in_vmap(backend: str) -> None:
    halved = gp.custom_vjp(lambda x: (x * 1.0, None), lambda _, g: g * 0.5)

    def looped(x: Any) -> Any:
        return ops.sum(gp.scan(lambda c, _: (halved(c), None), x, np.arange(3))[0])

    assert_close(gp.compile(gp.grad(looped), backend=backend)(X), np.full(3, 0.125))
    each = gp.vmap(gp.grad(lambda x: ops.sum(halved(x * x))))
    rows = np.stack([X, X + 1])
    assert_close(gp.compile(each, backend=backend)(rows), rows)
    layer = nn.Linear(3, 1, dtype="float64")
    start = layer.weight.value.copy()
    step = gp.compile_step(
        lambda x: ops.sum(halved(layer(x))), optim.SGD([layer.weight], lr=1.0), backend=backend
    )
    step(X[None])
    assert_close(layer.weight.value, start - 0.5 * X[None])


def test_a_gradient_through_vmap_is_refused_from_outside() -> None:
    fn = gp.grad(lambda x: ops.sum(gp.vmap(CLIPPED)(x)))
    with pytest.raises(GradientError, match=r"Take the gradient inside: gp.vmap\(gp.grad"):
        fn(np.stack([X, X]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"expected a pair \(out, saved\)"):
        gp.custom_vjp(lambda x: x, lambda s, g: g)(X)
    for backward, message in (
        (lambda s, g: (g, g), "returned 2 cotangents for 1 arguments"),
        (lambda s, g: g[:2], r"returned float64\[2\] for argument 0, which is float64\[3\]"),
        (lambda s, g: ([g, g],), "returned 2 arrays for argument 0, which has 1"),
    ):
        wrong = gp.custom_vjp(lambda x: (x * 2.0, None), backward)
        with pytest.raises(GradientError, match=message):
            gp.grad(lambda x, w=wrong: ops.sum(w(x)))(X)
