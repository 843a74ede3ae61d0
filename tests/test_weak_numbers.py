"""Python's floats that meet only each other: all digits in float64, and no float64 in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.compiler.trace import trace
from gpubp.compiler.views import live_order
from gpubp.core import Array, ArrayType

X = np.array([-1.5, -0.25, 0.5, 2.0])
NUMBERS = np.array([0.1, 0.3, 0.7])


def _of_numbers(x: Any) -> Any:
    return ops.where(x > 0, 0.1, 0.3)


# What each gives times x, with NumPy in float64.
PROGRAMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "where": (_of_numbers, lambda x: np.where(x > 0, 0.1, 0.3)),
    "where of an integer": (lambda x: ops.where(x > 0, 1, 0.3), lambda x: np.where(x > 0, 1, 0.3)),
    "exp": (lambda x: ops.exp(0.1), lambda x: np.exp(0.1)),
    "sqrt of an integer": (lambda x: ops.sqrt(2), lambda x: np.sqrt(2.0)),
    "power": (lambda x: ops.power(0.1, 0.3), lambda x: 0.1**0.3),
    "quotient of integers": (lambda x: ops.divide(1, 3), lambda x: 1 / 3),
    "boolean times": (lambda x: (x > 0) * 0.1, lambda x: (x > 0) * 0.1),
    "integer times": (
        lambda x: ops.astype(x > 0, "int32") * 0.1 + 0.3,
        lambda x: (x > 0) * 0.1 + 0.3,
    ),
    "known integers": (lambda x: np.arange(4) * _as_weak(0.1), lambda x: np.arange(4) * 0.1),
    "stack": (lambda x: ops.sum(ops.stack([0.1, 0.3, 0.7])), lambda x: NUMBERS.sum()),
    "concat": (lambda x: ops.max(ops.concat([ops.stack([0.1]), ops.stack([0.7])])), lambda x: 0.7),
    "known mask": (
        lambda x: ops.where(np.array([True, False, True, False]), 0.1, 0.3),
        lambda x: np.array([0.1, 0.3, 0.1, 0.3]),
    ),
    "chain": (
        lambda x: ops.tanh(ops.square(_of_numbers(x)) + ops.log(0.7)) / 0.3,
        lambda x: np.tanh(np.where(x > 0, 0.1, 0.3) ** 2 + np.log(0.7)) / 0.3,
    ),
    "views": (
        lambda x: ops.reshape(ops.transpose(ops.reshape(_of_numbers(x), (2, 2))), (4,)),
        lambda x: np.where(x > 0, 0.1, 0.3).reshape(2, 2).T.ravel(),
    ),
    "reduction": (lambda x: ops.mean(_of_numbers(x)), lambda x: np.where(x > 0, 0.1, 0.3).mean()),
    "product": (
        lambda x: ops.matmul(ops.reshape(_of_numbers(x), (2, 2)), ops.stack([0.1, 0.7]))[0],
        lambda x: (np.where(x > 0, 0.1, 0.3).reshape(2, 2) @ [0.1, 0.7])[0],
    ),
    "softmax": (
        lambda x: ops.softmax(_of_numbers(x)),
        lambda x: np.exp(np.where(x > 0, 0.1, 0.3)) / np.exp(np.where(x > 0, 0.1, 0.3)).sum(),
    ),
    "gather": (lambda x: _of_numbers(x)[np.array([0, 3, 1, 2])], lambda x: [0.3, 0.1, 0.3, 0.1]),
    "a NumPy function": (lambda x: np.cbrt(ops.exp(0.1)), lambda x: np.cbrt(np.exp(0.1))),
    "Python's float": (
        lambda x: float(ops.exp(0.1)) + int(ops.exp(0.1)),
        lambda x: np.exp(0.1) + 1,
    ),
    "a condition": (lambda x: 0.7 if ops.exp(0.1) > 1.1 else 0.1, lambda x: 0.7),
    "a gradient by a number": (
        lambda x: gp.grad(lambda a: a * a * a)(0.1),
        lambda x: 0.1 * 0.1 * 3,
    ),
    "a gradient through x": (
        lambda x: gp.grad(lambda a: ops.sum(ops.exp(a * x)))(0.1),
        lambda x: np.sum(x * np.exp(0.1 * x)),
    ),
    "a module's number": (
        lambda x: nn.Threshold(0.2, 0.7)(_of_numbers(x)),
        lambda x: [0.3, 0.3, 0.7, 0.7],
    ),
}


def _as_weak(value: float) -> Any:
    return ops.exp(ops.log(value)) * 0.0 + value


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_keep_their_digits(name: str, backend: str) -> None:
    fn, expected = PROGRAMS[name]
    found = gp.compile(lambda x: fn(x) * x, backend=backend)(X)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected(X) * X, 1e-14, 1e-16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_in_float32_stay_there(name: str, backend: str) -> None:
    fn, expected = PROGRAMS[name]
    x = X.astype(np.float32)
    found = gp.compile(lambda x: fn(x) * x, backend=backend)(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(X) * X, 1e-6)
    graph, _ = trace(lambda x: fn(x) * x, [ArrayType((4,), np.dtype(np.float32))])
    if name != "a module's number":  # it compares numbers with each other, in float64
        wide = [n for n in live_order(graph) if n.dtype == np.float64]
        assert all(name.startswith("a gradient") and n.shape == () for n in wide), str(graph)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_keep_their_digits(name: str) -> None:
    fn, expected = PROGRAMS[name]
    found = gp.compile(gp.grad(lambda x: ops.sum(ops.stop_gradient(fn(x) * 1.0) * x)))(X)
    np.testing.assert_allclose(found, np.broadcast_to(expected(X), 4), 1e-14, 1e-16)


def test_the_same_numbers_in_float32_as_before() -> None:
    """Elementwise ops of several elements run in float32 itself, as they would with arrays."""
    x = np.linspace(-2, 2, 64).astype(np.float32)
    low, high = np.float32(0.1), np.float32(0.3)

    def of(a: Any, b: Any) -> Callable[[Any], Any]:
        return lambda x: ops.exp(ops.where(x > 0, a, b) * 0.7) * x

    for backend in BACKENDS:
        assert_same(
            gp.compile(of(0.1, 0.3), backend=backend)(x),
            gp.compile(of(low, high), backend=backend)(x),
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_python_floats_as_arguments(backend: str) -> None:
    f = gp.compile(lambda a, x: ops.exp(a * 2.0) * x, backend=backend)
    for x in (X, X.astype(np.float32)):
        found = f(0.1, x)
        assert found.dtype == x.dtype
        np.testing.assert_allclose(found, np.exp(0.2) * X, 1e-14 if x.dtype == np.float64 else 1e-6)
        gradient = gp.compile(gp.grad(lambda a, x: ops.sum(ops.exp(a * 2.0) * x)), backend=backend)(
            0.1, x
        )
        np.testing.assert_allclose(gradient, 2 * np.exp(0.2) * X.sum(), 1e-14 if x is X else 1e-6)
    assert f(np.float32(0.1), X.astype(np.float32)).dtype == np.float32
    assert f(np.float64(0.1), X.astype(np.float32)).dtype == np.float64, (
        "a NumPy number has a dtype"
    )
    np.testing.assert_allclose(
        gp.compile(lambda a: {"b": a["b"] * 3.0})({"b": 0.1})["b"], 0.1 * 3.0, 1e-16
    )


def test_gradients_at_python_floats() -> None:
    def cube(x: Any) -> Any:
        return x * x * x

    assert gp.grad(cube)(0.1) == pytest.approx(0.03, rel=1e-15)
    assert gp.grad(cube)(0.1).dtype == np.float64
    value, gradient = gp.value_and_grad(cube)(0.1)
    assert (value, gradient) == pytest.approx((0.001, 0.03), rel=1e-15)
    assert gp.grad(gp.grad(cube))(0.1) == pytest.approx(0.6, rel=1e-15)
    value, pull = gp.vjp(cube, 0.1)
    assert value == pytest.approx(0.001, rel=1e-15)
    assert pull(1.0)[0] == pytest.approx(0.03, rel=1e-15)
    both = gp.grad(lambda a, b: ops.exp(a) * b, (0, 1))(0.1, 0.7)
    assert both == pytest.approx((0.7 * np.exp(0.1), np.exp(0.1)), rel=1e-15)


@pytest.mark.parametrize("x", [X, X.astype(np.float32), np.arange(4)], ids=["f8", "f4", "i8"])
def test_how_they_leave_a_program(x: Any) -> None:
    """float64 where all float arrays are, else float32; float64 where there are no arrays."""
    expected = np.float64 if x.dtype == np.float64 else np.float32
    assert gp.compile(_of_numbers)(x).dtype == expected
    assert gp.compile(lambda x: 0.1)(x).dtype == expected
    assert gp.compile(lambda a: ops.exp(a))(0.1) == np.exp(0.1)
    layer = nn.Embedding(4, 2, dtype="float64")
    assert gp.compile(lambda i: (layer(i), ops.where(i > 0, 0.1, 0.3)))(np.arange(4))[1][1] == 0.1


def test_conversions_are_what_they_say() -> None:
    for x in (X, X.astype(np.float32)):
        for dtype in ("float64", "float32", "int64", "bool"):
            found = gp.compile(lambda x, d=dtype: ops.astype(_of_numbers(x) * 10.0, d))(x)
            assert found.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(found, np.where(X > 0, 1.0, 3.0).astype(dtype))
    wide = gp.compile(lambda x, a: ops.astype(a, "float64") * x)(X.astype(np.float32), 0.1)
    assert wide.dtype == np.float64


def test_a_weak_value_shows_what_it_is() -> None:
    def fn(x: Any) -> Any:
        weak = _of_numbers(x)
        assert isinstance(weak, Array) and weak.dtype == np.float64
        assert np.asarray(ops.exp(0.1)) == np.exp(0.1)
        with pytest.raises(gp.errors.TraceError, match="numbers of a traced array"):
            float(weak[0])
        return weak * x

    gp.compile(fn)(X)


def test_custom_ops_get_arrays_with_a_dtype() -> None:
    seen: list[Any] = []

    def scaled(x: Any, by: Any) -> Any:
        seen.append(by.dtype)
        return x * by

    op = gp.custom_op("scaled", scaled)
    for x in (X, X.astype(np.float32)):
        found = gp.compile(lambda x: op(x, ops.exp(0.1)))(x)
        assert found.dtype == x.dtype == seen[-1]
        np.testing.assert_allclose(found, np.exp(0.1) * X, 1e-14 if x is X else 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weak_numbers_in_a_step_take_the_parameters_dtype(dtype: str) -> None:
    """Targets and weights made of numbers: the parameters' dtype decides, also with integers."""
    gp.manual_seed(0)
    layer = nn.Embedding(4, 3, dtype=dtype)
    start = layer.weight.numpy().astype(np.float64)

    def loss(i: Any) -> Any:
        wanted = ops.expand_dims(ops.where(i > 1, 0.1, 0.3), -1)
        return ops.mean(ops.square(layer(i) - wanted)) * ops.exp(0.1)

    step = gp.compile_step(loss, optim.SGD(layer.parameters(), lr=0.1))
    found, i = step(np.arange(4)), np.arange(4)[:, None]
    away = start - np.where(i > 1, 0.1, 0.3)
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(found, np.mean(away**2) * np.exp(0.1), tolerance)
    expected = start - 0.1 * np.exp(0.1) * 2 * away / 12
    np.testing.assert_allclose(layer.weight.value, expected, tolerance, tolerance)
    assert found.dtype == np.dtype(dtype)


def test_states_take_their_dtype() -> None:
    for dtype in ("float32", "float64"):
        buffer = nn.Buffer(np.zeros(4, dtype))

        def fn(x: Any, buffer: nn.Buffer = buffer) -> Any:
            ops.assign(buffer, _of_numbers(x))
            return x

        gp.compile(fn)(X.astype(np.float32))
        np.testing.assert_array_equal(buffer.value, np.where(X > 0, 0.1, 0.3).astype(dtype))


MEASURED: dict[str, Any] = {
    "norm": lambda v: ops.norm(v, 2, 1),
    "normalize": nn.functional.normalize,
    "pairwise_distance": lambda v: nn.functional.pairwise_distance(v, v[::-1]),
    "cosine_similarity": lambda v: nn.functional.cosine_similarity(v, v[::-1]),
    "cdist": lambda v: ops.cdist(v, v[::-1]),
    "cumsum": lambda v: ops.cumsum(v, 1),
    "cumprod": lambda v: ops.cumprod(v, 1),
    "prod": lambda v: ops.prod(v, 1),
    "tril": ops.tril,
    "ones_like": lambda v: v * ops.ones_like(v),
    "full_like": lambda v: v + ops.full_like(v, 0.5),
    "nanmean": lambda v: ops.nanmean(v, 1),
    "binary_cross_entropy": lambda v: nn.functional.binary_cross_entropy(v, v),
    "gaussian_nll_loss": lambda v: nn.functional.gaussian_nll_loss(v, v[::-1], 0.3),
    "multilabel_margin_loss": lambda v: nn.functional.multilabel_margin_loss(
        v, np.array([[0, -1, 1], [2, 1, -1]])
    ),
    "ctc_loss": lambda v: nn.functional.ctc_loss(
        ops.log_softmax(ops.expand_dims(v, 1), 2), np.array([[1]]), np.array([2]), np.array([1])
    ),
    "scatter_reduce": lambda v: ops.scatter_reduce(v, 1, np.array([[0, 0, 2]]), v[:1], "mean"),
    "rotary": lambda v: nn.RotaryEmbedding(2)(v[None, None, :, :2]),
    "rms_norm": lambda v: ops.rms_norm(v, (3,), eps=0.1),
    "nan_to_num": lambda v: ops.nan_to_num(ops.where(v > 0.35, v, np.inf), posinf=0.7),
    "adaptive_avg_pool1d": lambda v: ops.adaptive_avg_pool1d(v[None], 2),
}
DRAWN: dict[str, Any] = {
    "gumbel_softmax": ops.gumbel_softmax,
    "gumbel_softmax hard": lambda v: ops.gumbel_softmax(v, hard=True),
    "rrelu": lambda v: ops.rrelu(ops.negative(v), training=True),
    "dropout": lambda v: ops.dropout(v, 0.5),
    "alpha_dropout": lambda v: nn.functional.alpha_dropout(v, 0.5, training=True),
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_in_the_dtype_of_a_weak_value_is_weak(name: str) -> None:
    counts = np.array([[1, 2, 3], [4, 5, 7]])

    def fn(x: Any) -> Any:
        return DRAWN[name](ops.multiply(x, 0.1))

    for numbers, dtype in ((np.float32, np.float32), (np.float64, np.float64)):
        found = gp.compile(lambda x, u: fn(x) * u, backend="numpy")(counts, numbers(1))
        assert found.dtype == dtype and np.isfinite(found).all()
    assert gp.compile(fn, backend="numpy")(counts).dtype == fn(counts).dtype == np.float32


def test_the_largest_number_is_that_of_the_dtype_to_come() -> None:
    found = gp.compile(lambda x: ops.nan_to_num(ops.where(x > 1, 0.5, np.inf)), backend="numpy")
    assert np.isfinite(found(np.array([1, 2]))).all()


@pytest.mark.parametrize("name", MEASURED)
def test_what_is_made_in_the_dtype_of_a_weak_value_is_weak(name: str) -> None:
    """Integers and Python's floats: float32 as at once, and all digits where they meet float64."""
    counts = np.array([[1, 2, 3], [4, 5, 7]])

    def fn(x: Any) -> Any:
        return MEASURED[name](ops.multiply(x, 0.1))

    assert gp.compile(fn, backend="numpy")(counts).dtype == np.float32
    assert_close(gp.compile(fn, backend="numpy")(counts), fn(counts))
    one = gp.compile(lambda x, u: fn(x) * u, backend="numpy")
    assert one(counts, np.ones((), np.float32)).dtype == np.float32
    assert_close(one(counts, np.ones(())), MEASURED[name](counts * 0.1))


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_a_number_cast_to_float64_has_all_its_digits(backend: str | None) -> None:
    def cast(x: Any) -> Any:
        return ops.astype(0.1, "float64") * x

    found = (cast if backend is None else gp.compile(cast, backend=backend))(np.ones(()))
    assert found.dtype == np.float64 and found == 0.1
    assert ops.astype(0.1, "float32").dtype == np.float32
    assert ops.astype(1.9, "int64") == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_beside_numbers_as_arguments_give_float32_as_at_once(backend: str) -> None:
    product = gp.compile(lambda x, by: x * by, backend=backend)
    counts = np.arange(3)
    for number in (2, 0.5):
        found = product(counts, number)
        assert_same(found, ops.multiply(counts, number))
    assert product(0.1, 0.1).dtype == np.float64, "numbers alone"
    assert product(3, 0.1).dtype == np.float64, "numbers alone"
