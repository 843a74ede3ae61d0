"""Values and gradients to the last digits, far from 0 and near it, against wider arithmetic.

Every function of one number whose derivative could be lost in a difference of near numbers: on a
grid of tiny, ordinary and huge inputs of both signs, relative, wherever the true result is a normal
number; below that within a few of the smallest steps. The gradients of `sigmoid` and `tanh` are
PyTorch's, made of the output, and so not here in the tail where the output is 1 or -1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from registered import BACKENDS as ON_HOST
from scipy.special import erf, erfcx, expit, log1p, ndtr
from test_integers import BACKENDS, ON_ALL

import gpubp as gp
from gpubp import nn, ops, optim

Wide = NDArray[np.float64]
Function = Callable[[Wide], Wide]
ROOT = np.sqrt(2.0 / np.pi)
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
BOUND = 1e-5  # relative, in float32


def _density(x: Wide) -> Wide:
    return np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)


def _softplus(x: Wide) -> Wide:
    return np.maximum(x, 0) + log1p(np.exp(-np.abs(x)))


def _mish_slope(x: Wide) -> Wide:
    t = np.tanh(_softplus(x))
    return t + x * (1 - t * t) * expit(x)


def _share(x: Wide) -> Wide:
    return expit(2 * ROOT * (x + 0.044715 * x**3))


def _share_slope(x: Wide) -> Wide:
    rest = expit(-2 * ROOT * (x + 0.044715 * x**3))
    near = np.clip(x, -1e3, 1e3)
    return _share(x) * (1 + 2 * near * rest * ROOT * (1 + 3 * 0.044715 * near * near))


def _where_negative(made: Function, scale: float = 1.0) -> Function:
    return lambda x: np.where(x > 0, scale, made(np.minimum(x, 0)))


EXACT: dict[str, tuple[Callable[[Any], Any], Function, Function]] = {
    "exp": (ops.exp, np.exp, np.exp),
    "expm1": (ops.expm1, np.expm1, np.exp),
    "erf": (ops.erf, erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
    "elu": (
        lambda x: ops.elu(x, 0.5),
        lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0))),
        _where_negative(lambda x: 0.5 * np.exp(x)),
    ),
    "celu": (
        lambda x: ops.celu(x, 2.0),
        lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0) / 2)),
        _where_negative(lambda x: np.exp(x / 2)),
    ),
    "selu": (
        ops.selu,
        lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0))),
        _where_negative(lambda x: SELU_SCALE * SELU_ALPHA * np.exp(x), SELU_SCALE),
    ),
    "gelu": (ops.gelu, lambda x: x * ndtr(x), lambda x: ndtr(x) + x * _density(x)),
    "gelu tanh": (lambda x: ops.gelu(x, "tanh"), lambda x: x * _share(x), _share_slope),
    "silu": (
        ops.silu,
        lambda x: x * expit(x),
        lambda x: expit(x) * (1 + x * expit(-x)),
    ),
    "mish": (ops.mish, lambda x: x * np.tanh(_softplus(x)), _mish_slope),
    "softplus": (lambda x: ops.softplus(x, 1.0, 1e9), _softplus, expit),
    "logsigmoid": (ops.logsigmoid, lambda x: -_softplus(-x), lambda x: expit(-x)),
    "softsign": (ops.softsign, lambda x: x / (1 + abs(x)), lambda x: (1 / (1 + abs(x))) ** 2),
    "tanhshrink": (ops.tanhshrink, lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2),
    "sigmoid": (ops.sigmoid, expit, lambda x: expit(x) * expit(-x)),
    "tanh": (ops.tanh, np.tanh, lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2),
}
# What is left out: (values, gradients) as conditions on x.
LEFT_OUT: dict[str, tuple[Callable[[Wide], Any], Callable[[Wide], Any]]] = {
    # Where the derivative itself goes through 0.
    "gelu": (lambda x: x != x, lambda x: (x > -0.85) & (x < -0.65)),
    "gelu tanh": (lambda x: x != x, lambda x: (x > -0.85) & (x < -0.65)),
    "silu": (lambda x: x != x, lambda x: (x > -1.35) & (x < -1.2)),
    "mish": (lambda x: x != x, lambda x: (x > -1.3) & (x < -1.1)),
    "tanhshrink": (lambda x: abs(x) < 1, lambda x: x != x),  # x - tanh(x) as PyTorch has it
    "sigmoid": (lambda x: x != x, lambda x: x > 3),
    "tanh": (lambda x: x != x, lambda x: abs(x) > 2),
}


def grid() -> NDArray[np.float32]:
    """Both signs of tiny, ordinary and huge numbers, most where exponentials fade."""
    sizes = np.concatenate([
        np.logspace(-37, -2, 80), np.logspace(-2, 3, 400), np.linspace(0.01, 110, 500),
        np.logspace(3, 37, 40),
    ])  # fmt: skip
    return np.concatenate([-sizes[::-1], sizes]).astype(np.float32)


def assert_digits(
    found: Any, exact: Wide, x: Wide, what: str, bound: float = BOUND, dtype: Any = np.float32
) -> None:
    """Relative where the exact value is normal, else in the smallest steps."""
    info = np.finfo(dtype)
    found = np.asarray(found, np.float64)
    normal = (np.abs(exact) >= info.tiny) & (np.abs(exact) <= info.max)
    error = np.abs(found[normal] - exact[normal]) / np.abs(exact[normal])
    worst = int(np.argmax(error))
    assert error[worst] <= bound, f"{what}: {error[worst]:.1e} at {x[normal][worst]}"
    small = np.abs(exact) < info.tiny
    # A factor that is denormal itself meets up to x^3 (the tanh form of GELU).
    steps = 4 * float(info.smallest_subnormal) * np.clip(np.abs(x[small]), 1, 20) ** 3
    excess = np.abs(found[small] - exact[small]) - (steps + bound * np.abs(exact[small]))
    assert (excess <= 0).all(), f"{what}: denormal numbers are lost"


@ON_ALL
@pytest.mark.parametrize("name", EXACT)
def test_values_and_gradients(name: str, backend: str) -> None:
    fn, value, slope = EXACT[name]
    x = grid()
    wide = x.astype(np.float64)
    target = BACKENDS[backend]()
    plain = gp.Options(verify=False)
    with np.errstate(all="ignore"):
        values = gp.compile(fn, backend=target, options=plain)(x)
        both = gp.compile(gp.grad(lambda z: ops.sum(fn(z))), backend=target, options=plain)(x)
        pairs = (("value", values, value(wide)), ("gradient", both, slope(wide)))
    nothing: Callable[[Wide], Any] = lambda x: x != x  # noqa: E731
    for (what, found, exact), left_out in zip(pairs, LEFT_OUT.get(name, (nothing, nothing))):
        kept = ~left_out(wide)
        assert_digits(found[kept], exact[kept], wide[kept], f"{what} of {name}")


@pytest.mark.parametrize("name", EXACT)
def test_tails_keep_digits_in_scalar_groups(name: str) -> None:
    """The interpreter of scalar groups has formulas of its own."""
    fn, value, slope = EXACT[name]
    x = grid()[::60]
    wide = x.astype(np.float64)
    values, gradients = gp.compile(fn, backend="numba"), gp.compile(gp.grad(fn), backend="numba")
    with np.errstate(all="ignore"):
        pairs = ((values, value(wide)), (gradients, slope(wide)))
    nothing: Callable[[Wide], Any] = lambda x: x != x  # noqa: E731
    for (compiled, exact), left_out in zip(pairs, LEFT_OUT.get(name, (nothing, nothing))):
        kept = ~left_out(wide)
        found = np.array([compiled(v) for v in x[kept]])
        assert_digits(found, exact[kept], wide[kept], f"{name} of numbers")


@ON_ALL
@pytest.mark.parametrize("name", ["expm1", "elu", "celu", "selu", "gelu tanh", "silu", "softplus"])
def test_gradients_in_float64(name: str, backend: str) -> None:
    """From -708, where e^x is the smallest normal number; longdouble where it is wider."""
    fn, _, slope = EXACT[name]
    x = np.concatenate([-np.logspace(-300, -1, 60), -np.linspace(0.1, 700, 300)])
    if name == "gelu tanh":
        x = x[x > -20]
    with np.errstate(all="ignore"):
        found = gp.compile(gp.grad(lambda z: ops.sum(fn(z))), backend=BACKENDS[backend]())(x)
        exact = slope(x)
    near_zero = np.abs(exact) < 1e-3 if name == "gelu tanh" else np.zeros(len(x), bool)
    assert_digits(found[~near_zero], exact[~near_zero], x[~near_zero], name, 1e-12, np.float64)


@pytest.mark.parametrize("backend", ON_HOST)
def test_the_tail_of_gelu_in_float64(backend: str) -> None:
    x = np.linspace(-37.0, -1.0, 400)
    mills = erfcx(-x / np.sqrt(2)) / 2  # Phi(x) = mills * e^(-x^2 / 2)
    power = np.exp(-0.5 * x.astype(np.longdouble) ** 2).astype(np.float64)
    exact = x * mills * power
    found = gp.compile(ops.gelu, backend=backend)(x)
    assert_digits(found, exact, x, "gelu", 1e-12, np.float64)
    slope = mills * power + x * power / np.sqrt(2 * np.pi)
    gradient = gp.compile(gp.grad(lambda z: ops.sum(ops.gelu(z))), backend=backend)(x)
    assert_digits(gradient, slope, x, "gelu's gradient", 1e-12, np.float64)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1023])
@pytest.mark.parametrize("name", ["gelu", "exp", "sigmoid"])
def test_tails_keep_digits_at_every_width(name: str, size: int) -> None:
    """Vectors with and without a far lane, and what is left of them; in place of the input too."""
    fn, value, slope = EXACT[name]
    rng = np.random.default_rng(size)
    for scale in (0.5, 3.0, 40.0):
        x = (rng.normal(size=size) * scale).astype(np.float32)
        wide = x.astype(np.float64)
        kept = wide < 3 if name == "sigmoid" else np.ones(size, bool)
        twice = gp.compile(lambda z: fn(fn(z * 1.0)), backend="numba")(x)
        first = value(wide).astype(np.float32).astype(np.float64)
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(twice, value(first).astype(np.float32), 2e-5, 1e-37)
        found = gp.compile(gp.grad(lambda z: ops.sum(fn(z))), backend="numba")(x)
        far = np.abs(slope(wide)) > 1e-2 if name == "gelu" else kept
        if (kept & far).any():
            assert_digits(found[kept & far], slope(wide)[kept & far], wide[kept & far], name)


@ON_ALL
@pytest.mark.parametrize("columns", [3, 16, 37])
@pytest.mark.parametrize("name", ["gelu", "sigmoid", "elu", "tanh"])
def test_tails_keep_digits_behind_products(name: str, columns: int, backend: str) -> None:
    """In the registers of a product: forward, and the gradient that follows the next one."""
    fn, value, slope = EXACT[name]
    at = np.linspace(-14.0, 2.5 if name != "tanh" else -1.0, columns)
    if name == "tanh":
        at = np.linspace(-2.0, 1.5, columns)
    layer = nn.Linear(2, columns)
    layer.weight.value = np.zeros((columns, 2))
    layer.bias.value = at.astype(np.float32)
    head = nn.Linear(columns, columns, bias=False)
    head.weight.value = np.eye(columns)
    model = nn.Sequential(layer, _Applied(fn), head)
    x = np.ones((5, 2), np.float32)
    wide = at.astype(np.float32).astype(np.float64)
    target = BACKENDS[backend]()
    outputs = gp.compile(model, backend=target)(x)
    assert_digits(outputs[0], value(wide), wide, name)
    step = gp.compile_step(
        lambda x: ops.sum(model(x)), optim.SGD(model.parameters(), lr=1.0), backend=target
    )
    step(x)
    moved = (at.astype(np.float32) - layer.bias.value) / 5
    kept = np.abs(slope(wide)) > 1e-2  # what a float32 bias of this size can show
    np.testing.assert_allclose(moved[kept], slope(wide)[kept], rtol=1e-3)


class _Applied(nn.Module):
    def __init__(self, fn: Callable[[Any], Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Any) -> Any:
        return self.fn(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_leaves_numbers_as_they_are_does_so_to_the_bit(dtype: str) -> None:
    """Of activations that are the identity somewhere; a comparison of both sees the last bit."""
    x = np.random.default_rng(0).uniform(0.01, 60.0, 2000).astype(dtype)
    for fn in (
        lambda x: ops.celu(x, 1.3),
        lambda x: ops.elu(x, 0.7),
        lambda x: ops.leaky_relu(x, 0.3),
        lambda x: ops.hardshrink(x, 0.005),
    ):
        for backend in ("numpy", "numba"):
            np.testing.assert_array_equal(gp.compile(fn, backend=backend)(x), x)
    large = x + 100
    soft = gp.compile(lambda x: ops.softplus(x, 1.3, 20.0))
    np.testing.assert_array_equal(soft(large), large)
