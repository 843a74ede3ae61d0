"""Every gradient rule against central differences in float64, and the rules of the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from specs import ROWS, Case, gradient_cases
from tolerances import GRADIENT_STEP, assert_close, assert_gradient, assert_same

from gpubp import ops
from gpubp.compiler.grad import grad
from gpubp.compiler.pullbacks import vjp
from gpubp.compiler.trace import evaluate_graph, trace
from gpubp.core import bind
from gpubp.errors import GradientError

differentiable = pytest.mark.parametrize("op", [n for n in sorted(ROWS) if ROWS[n].wrt])


def _function(case: Case, args: Sequence[Any]) -> Callable[..., Any]:
    """The op as a function of the arguments it is differentiated by."""

    def apply(*picked: Any) -> Any:
        full = list(args)
        for i, value in zip(case.row.wrt, picked, strict=True):
            full[i] = value
        return bind(case.row.spec, *full, **case.attrs)

    return apply


def _central(
    f: Callable[[list[Any]], list[Any]], primals: Sequence[Any], weights: Sequence[Any]
) -> list[Any]:
    """The gradient of sum(weights * f) by each primal, one element at a time.

    Results are subtracted before they are summed, so elements that do not change add no rounding.
    """
    out = []
    for k, x in enumerate(primals):
        found = np.zeros_like(x)
        for at in np.ndindex(x.shape):
            step = GRADIENT_STEP * max(1.0, abs(x[at]))
            shifted = []
            for sign in (1.0, -1.0):
                moved = [p.copy() for p in primals]
                moved[k][at] += sign * step
                shifted.append(f(moved))
            width = 2.0 * step
            pairs = zip(weights, *shifted, strict=True)
            found[at] = sum(np.sum(w * (up - down)) for w, up, down in pairs) / width
        out.append(found)
    return out


@differentiable
def test_the_vjp_of_each_op_agrees_with_central_differences(op: str) -> None:
    rng = np.random.default_rng(0)
    tried = 0
    for case in gradient_cases(ROWS[op], most=64):
        args = case.args()
        f = _function(case, args)
        primals = [args[i] for i in case.row.wrt]
        out, pull = vjp(f, *primals)
        assert_same(out, f(*primals), str(case))
        weight = rng.standard_normal(out.shape)
        numeric = _central(lambda p, f=f: [f(*p)], primals, [weight])  # type: ignore[misc]
        for found, expected in zip(pull(weight), numeric, strict=True):
            assert_gradient(found, expected, str(case))
        tried += 1
    assert tried > 0


@differentiable
def test_the_vjp_of_each_op_can_be_differentiated_again(op: str) -> None:
    """The vjp, as a function of cotangent and primals, differentiated once more."""
    rng = np.random.default_rng(1)
    tried = 0
    for case in gradient_cases(ROWS[op], most=20):
        args = case.args()
        f = _function(case, args)
        primals = [args[i] for i in case.row.wrt]
        inputs = [rng.standard_normal(f(*primals).shape), *primals]
        weights = [rng.standard_normal(p.shape) for p in primals]

        def pulled(c: Any, *xs: Any, f: Any = f) -> Any:
            return vjp(f, *xs)[1](c)

        def weighted(*xs: Any, pulled: Any = pulled, weights: Any = weights) -> Any:
            parts = pulled(*xs)
            return sum(ops.sum(g * w) for g, w in zip(parts, weights, strict=True))

        found = grad(weighted, argnums=tuple(range(len(inputs))))(*inputs)
        graph, _ = trace(pulled, inputs)
        numeric = _central(lambda p, g=graph: evaluate_graph(g, p), inputs, weights)  # type: ignore[misc]
        for got, expected in zip(found, numeric, strict=True):
            assert_gradient(got, expected, str(case))
        tried += 1
    assert tried > 0


def _pull(f: Callable[..., Any], *primals: Any) -> tuple[Any, ...]:
    out, pull = vjp(f, *[np.asarray(p, np.float64) for p in primals])
    found: tuple[Any, ...] = pull(np.ones_like(out))
    return found


def test_ties_share_the_gradient() -> None:
    for op in (ops.maximum, ops.minimum):
        for found in _pull(op, [1.0, 2.0], [1.0, 2.0]):
            assert_same(found, np.array([0.5, 0.5]))
    for reduce in (ops.max, ops.min):
        (found,) = _pull(lambda x, r=reduce: r(x, 1), [[2.0, 2.0, 2.0, 2.0]])
        assert_same(found, np.full((1, 4), 0.25))


def test_gradients_of_powers_of_zero_are_torchs() -> None:
    """PyTorch's gradients: d/dx 0^0 = 0, d/dp 0^p = 0 for p >= 0, d/dx 0^1 = 1."""
    to_x, to_p = _pull(ops.power, [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.5])
    assert_same(to_x, np.array([0.0, 1.0, 0.0, 0.0]))
    assert_same(to_p, np.zeros(4))


def test_second_order_of_power_at_zero() -> None:
    def first(x: Any) -> Any:
        return grad(lambda a: ops.sum(ops.power(a, np.array([0.0, 1.0, 2.0, 3.0]))))(x)

    found = grad(lambda x: ops.sum(first(x)))(np.zeros(4))
    assert_same(found, np.array([0.0, 0.0, 2.0, 0.0]))


def test_mixed_derivative_of_power_at_exponent_zero() -> None:
    """d2/dp dx x^p = x^(p-1) (1 + p ln x), which is 1/x at p = 0."""

    def to_x(p: Any) -> Any:
        return ops.sum(grad(lambda a: ops.sum(ops.power(a, p)))(np.array([2.0, 4.0])))

    assert_close(grad(to_x)(np.zeros(2)), np.array([0.5, 0.25]))


def test_negative_bases_with_constant_exponents() -> None:
    (found,) = _pull(lambda x: ops.power(x, 3), [-2.0, 0.0, 2.0])
    assert_close(found, np.array([12.0, 0.0, 12.0]))


def test_gradients_at_kinks_are_torchs() -> None:
    at_zero = [0.0]
    assert_same(_pull(ops.relu, at_zero)[0], np.zeros(1))
    assert_same(_pull(ops.abs, at_zero)[0], np.zeros(1))
    assert_same(_pull(ops.leaky_relu, at_zero)[0], np.array([0.01]))
    assert_same(_pull(ops.elu, at_zero)[0], np.ones(1))
    clipped = _pull(lambda x: ops.clip(x, -1.0, 1.0), [-1.5, -1.0, 0.0, 1.0, 1.5])[0]
    assert_same(clipped, np.array([0.0, 1.0, 1.0, 1.0, 0.0]))


def test_cast_passes_gradients_between_floats_only() -> None:
    found = grad(lambda x: ops.sum(ops.astype(x, "float64") ** 2))(np.ones(2, np.float32))
    assert_same(found, np.full(2, 2.0, np.float32))
    rounded = grad(lambda x: ops.sum(ops.astype(ops.astype(x, "int64"), "float64") + x))(np.ones(2))
    assert_same(rounded, np.ones(2))


def test_nothing_flows_through_stop_gradient() -> None:
    found = grad(lambda x: ops.sum(x * ops.stop_gradient(x)))(np.array([3.0]))
    assert_same(found, np.array([3.0]))


def test_argmax_has_no_gradient() -> None:
    found = grad(lambda x: ops.sum(x * ops.astype(ops.argmax(x), "float64")))(np.array([1.0, 2.0]))
    assert_same(found, np.ones(2))


def test_every_part_of_a_concat_gets_its_gradient() -> None:
    a, b, c = np.ones((2, 1)), np.ones((2, 3)), np.ones((2, 2))
    weight = np.arange(12.0).reshape(2, 6)
    found = vjp(lambda *xs: ops.concat(xs, 1), a, b, c)[1](weight)
    for got, expected in zip(found, np.split(weight, [1, 4], axis=1), strict=True):
        assert_same(got, expected)


def test_repeated_rows_add_up() -> None:
    found = grad(lambda x: ops.sum(x[np.array([1, 1, 2])]))(np.ones((3, 2)))
    assert_same(found, np.array([[0.0, 0.0], [2.0, 2.0], [1.0, 1.0]]))


def test_a_batched_input_gives_one_flat_weight_gradient() -> None:
    x, w = np.ones((5, 2, 3)), np.ones((3, 4))
    graph, _ = trace(lambda w: grad(lambda v: ops.sum(ops.matmul(x, v)))(w), [w])
    products = [n for n in graph.nodes if n.spec.name == "matmul"]
    assert (3, 4) in [n.shape for n in products]
    assert all(len(n.shape) < 3 for n in products if n.shape[-2:] == (3, 4))


def test_gradients_of_linear_sum_over_the_batch() -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s) for s in ((2, 5, 3), (4, 3), (4,)))
    out, pull = vjp(ops.linear, x, w, b)
    g = rng.standard_normal(out.shape)
    to_x, to_w, to_b = pull(g)
    assert_close(to_x, g @ w)
    assert_close(to_w, np.einsum("abo,abi->oi", g, x))
    assert_close(to_b, g.sum((0, 1)))


def test_softmax_over_another_axis_has_its_gradient() -> None:
    x, g = np.random.default_rng(0).standard_normal((2, 4, 3))
    y, pull = vjp(lambda a: ops.softmax(a, 0), x)
    assert_close(pull(g)[0], y * (g - (g * y).sum(0)))


def test_an_op_without_a_rule_says_so() -> None:
    twice = ops.custom_op("twice_without_rule", lambda x: x * 2)
    with pytest.raises(GradientError, match="twice_without_rule"):
        grad(lambda x: ops.sum(twice(x)))(np.ones(2))


def test_a_number_inside_a_trace_can_be_differentiated_by() -> None:
    """Scalar constants are folded, but not the argument of a gradient."""
    graph, _ = trace(lambda x: x * grad(lambda a: a * a * a)(2.0), [np.ones(2, np.float32)])
    assert_same(evaluate_graph(graph, [np.ones(2, np.float32)])[0], np.full(2, 12, np.float32))
