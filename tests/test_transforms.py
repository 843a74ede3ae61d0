"""gp.jvp, jacrev, jacfwd, hessian, checkpoint; functional calls; named and static arguments."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
from registered import MAKERS
from tolerances import GRADIENT_ATOL, GRADIENT_RTOL, GRADIENT_STEP, assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import (
    ArgumentError,
    DTypeError,
    GpubpError,
    GradientError,
    ShapeError,
    UnknownNameError,
)

RNG = np.random.default_rng(0)
X, W, V = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5)), RNG.normal(size=(3, 4))
ROW = gp.nn.Linear(4, 2)


def _smooth(x: Any, w: Any) -> Any:
    return {"a": ops.tanh(x @ w).sum(axis=1), "b": (ops.exp(x).mean(), ops.softmax(x @ w)[:2])}


def _near(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, GRADIENT_RTOL, GRADIENT_ATOL)


def _difference(fn: Any, x: Any, v: Any) -> list[Any]:
    high, low = ([r["a"], *r["b"]] for r in (fn(x + GRADIENT_STEP * v), fn(x - GRADIENT_STEP * v)))
    return [(h - b) / (2 * GRADIENT_STEP) for h, b in zip(high, low, strict=True)]


@pytest.mark.parametrize("backend", MAKERS)
def test_a_tangent_is_the_derivative_along_it(backend: str) -> None:
    along = gp.compile(
        lambda x, v: gp.jvp(lambda z: _smooth(z, W), (x,), (v,)), backend=MAKERS[backend]()
    )
    out, moved = along(X, V)
    assert_close(out["a"], _smooth(X, W)["a"])
    found = [moved["a"], *moved["b"]]
    for one, expected in zip(found, _difference(lambda z: _smooth(z, W), X, V), strict=True):
        _near(one, expected)


def test_tangents_of_trees_with_aux_and_without_a_path() -> None:
    def fn(p: Any, x: Any) -> Any:
        return (p["w"] * x).sum(), x.shape[0] * ops.sum(p["w"])

    p, x = {"w": X, "unused": W}, V
    out, moved, aux = gp.jvp(fn, (p, x), ({"w": V, "unused": W}, X), has_aux=True)
    assert_close(out, (X * V).sum())
    assert_close(moved, (V * V + X * X).sum())
    assert_close(aux, 3 * X.sum())
    _, none = gp.jvp(lambda z: ops.stop_gradient(z) * 2.0, (X,), (V,))
    assert_same(none, np.zeros_like(X))


@pytest.mark.parametrize("make", [gp.jacrev, gp.jacfwd])
def test_jacobians_nest_outputs_over_arguments(make: Any) -> None:
    found = make(_smooth, (0, 1))(X, W)
    for i, arg in enumerate((X, W)):
        for at in np.ndindex(*arg.shape):
            unit = np.zeros_like(arg)
            unit[at] = 1.0
            one = lambda z, i=i: _smooth(*((z, W) if i == 0 else (X, z)))  # noqa: E731
            expected = _difference(one, arg, unit)
            key = (..., *at)
            mine = [found["a"][i][key], *[b[i][key] for b in found["b"]]]
            for a, b in zip(mine, expected, strict=True):
                _near(a, b)
    assert make(lambda p: p["w"].sum())({"w": X})["w"].shape == X.shape
    value, aux = make(lambda x: (x * x, x.sum()), has_aux=True)(X[0])
    assert_close(value, np.diag(2.0 * X[0]))
    assert_close(aux, X[0].sum())


def test_hessian_equals_differences_of_gradients() -> None:
    fn = lambda x: ops.tanh(x @ W).sum() * ops.exp(x).sum()  # noqa: E731
    found = gp.compile(gp.hessian(fn))(X)
    g = gp.grad(fn)
    for at in np.ndindex(*X.shape):
        unit = np.zeros_like(X)
        unit[at] = GRADIENT_STEP
        np.testing.assert_allclose(
            found[(..., *at)], (g(X + unit) - g(X - unit)) / (2 * GRADIENT_STEP), 1e-5, 1e-6
        )
    both = gp.hessian(lambda a, b: (a * a * b).sum(), (0, 1))(X[0], V[0])
    assert_close(both[0][1], np.diag(2.0 * X[0]))


def _deep(block: Any) -> Any:
    def loss(ws: Any, x: Any) -> Any:
        for i in range(0, len(ws), 2):
            x = block(x, ws[i], ws[i + 1])
        return x.sum()

    return loss


def _block(x: Any, a: Any, b: Any) -> Any:
    for w in (a, b):
        x = ops.tanh(ops.tanh(x @ w) * 2.0 + ops.sin(x))
    return x


WEIGHTS = [RNG.normal(size=(16, 16)).astype(np.float32) / 4 for _ in range(8)]
ROWS = RNG.normal(size=(64, 16)).astype(np.float32)


@pytest.mark.parametrize("backend", MAKERS)
def test_a_checkpoint_gives_the_same_bits_from_less_memory(backend: str) -> None:
    kept = gp.compile(gp.grad(_deep(_block)), backend=MAKERS[backend]())
    again = gp.compile(gp.grad(_deep(gp.checkpoint(_block))), backend=MAKERS[backend]())
    for a, b in zip(kept(WEIGHTS, ROWS), again(WEIGHTS, ROWS), strict=True):
        assert_same(b, a)
    before, after = (f._runner.last.program.arena_bytes for f in (kept, again))
    assert after < 0.6 * before


def test_checkpoints_nest_take_modules_and_have_second_derivatives() -> None:
    w = WEIGHTS[:2]
    inner = gp.checkpoint(lambda x, a, b: gp.checkpoint(_block)(x, a, b) * 2.0)
    plain = lambda x: (_block(x, *w) * 2.0).sum()  # noqa: E731
    ours = lambda x: inner(x, *w).sum()  # noqa: E731
    twice = lambda f: gp.grad(lambda x: (gp.grad(f)(x) ** 2).sum())(ROWS[:3])  # noqa: E731
    assert_close(twice(ours), twice(plain))
    model = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    gp.manual_seed(0)
    one = gp.compile_step(lambda x: model(x).sum(), gp.optim.SGD(model.parameters(), lr=0.1))
    state = model.state_dict()
    one(ROWS)
    first = model.state_dict()
    model.load_state_dict(state)
    gp.manual_seed(0)
    saved = gp.checkpoint(model)
    gp.compile_step(lambda x: saved(x).sum(), gp.optim.SGD(model.parameters(), lr=0.1))(ROWS)
    for name, value in model.state_dict().items():
        assert_close(value, first[name])


def test_a_functional_call_leaves_the_module_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = model.state_dict()
    x = X.astype(np.float32)
    state = {k: v + 1 for k, v in before.items()}
    out = nn.functional_call(model, state, (x,))
    other = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    other.load_state_dict(state)
    assert_close(out, other(x))
    for name, value in model.state_dict().items():
        assert_same(value, before[name])
    assert_close(
        nn.functional_call(model[0], {"bias": before["0.bias"] * 0}, x), x @ before["0.weight"].T
    )


@pytest.mark.parametrize("make", ["grad", "jacrev", "jacfwd", "vmap", "checkpoint", "hessian"])
def test_what_a_transformed_function_reads_is_a_fact(make: str) -> None:
    scale = types.SimpleNamespace(by=2.0)
    one = lambda x: ops.square(x).sum() * scale.by  # noqa: E731
    compiled = gp.compile(getattr(gp, make)(one))
    before = compiled(X)
    scale.by = 6.0
    assert_close(compiled(X), 3.0 * before)


def test_gradients_of_functions_with_arguments_by_name() -> None:
    fn = lambda x, *, by, power=1: (x * by["k"]).sum() ** power  # noqa: E731
    found = gp.grad(fn)(X, by={"k": V})
    assert_close(found, V)
    value, found = gp.value_and_grad(fn)(X, by={"k": V}, power=2)
    assert_close(value, (X * V).sum() ** 2)
    outer = gp.grad(lambda v: gp.grad(fn)(X, by={"k": v}, power=1).sum())(V)
    assert_close(outer, np.ones_like(V))


@dataclasses.dataclass(frozen=True)
class _Settings:
    by: Any


class _Pair(NamedTuple):
    by: Any


@pytest.mark.parametrize("pack", [lambda v: v, lambda v: (v,), lambda v: ((v,),), _Settings, _Pair])
def test_static_arguments_that_python_calls_equal_have_programs_of_their_own(pack: Any) -> None:
    def fn(x: Any, setting: Any) -> Any:
        value = setting
        while isinstance(value, tuple):
            value = value[0]
        value = value.by if isinstance(value, _Settings) else value
        return (
            x
            + {bool: 10.0, int: 20.0, float: 30.0, np.float32: 40.0}[type(value)]
            + (1.0 if np.signbit(value) else 0.0)
        )

    compiled = gp.compile(fn, static_argnames="setting")
    x = np.zeros(1)
    for _ in range(2):
        for value in (1, True, 1.0, np.float32(1), 0, False, 0.0, -0.0):
            assert compiled(x, setting=pack(value)) == fn(x, pack(value)), value


def test_named_and_static_arguments_of_compiled_functions() -> None:
    calls = []

    def fn(x: Any, mode: str, k: int = 1, *, y: Any = None) -> Any:
        calls.append(mode)
        for _ in range(k):
            x = ops.tanh(x) if mode == "tanh" else x * 2.0
        return x if y is None else x + y["a"]

    compiled = gp.compile(fn, static_argnums=1, static_argnames="k")
    assert_close(compiled(X, "tanh"), np.tanh(X))
    assert_close(compiled(X, "double", k=3), X * 8.0)
    assert_close(compiled(V, "double", 3), V * 8.0)
    assert_close(compiled(X, mode="double", y={"a": V}), X * 2.0 + V)
    count = len(calls)
    compiled(V, "tanh"), compiled(V, mode="double", y={"a": X})
    assert len(calls) == count
    scale = types.SimpleNamespace(by=2.0)
    scaled = gp.compile(lambda x, *, on: x * scale.by if on else x, static_argnames=("on",))
    assert_close(scaled(X, on=True), X * 2.0)
    scale.by = 3.0
    assert_close(scaled(X, on=True), X * 3.0)
    assert_close(scaled(X, on=False), X)
    assert "instruction" in scaled.report() and "multiply" in scaled.explain(X, on=True)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gp.jvp(ops.exp, X, V), ArgumentError, "tuples"),
        (lambda: gp.jvp(ops.exp, (X,), (W,)), ShapeError, "a tangent is"),
        (lambda: gp.jvp(ops.add, (X, V), (X,)), ArgumentError, "tangents are"),
        (lambda: gp.jvp(ops.exp, (np.arange(3),), (np.arange(3),)), GradientError, "float"),
        (lambda: gp.jacrev(lambda x: ops.argmax(x))(X), GradientError, "has_aux"),
        (lambda: gp.jacfwd(ops.exp, 3)(X), GradientError, "argnums 3"),
        (lambda: gp.hessian(ops.exp, "x")(X), GpubpError, "argnums"),
        (lambda: nn.functional_call(ROW, {"w": X}, X), UnknownNameError, "weight, bias"),
        (lambda: nn.functional_call(ROW, {"bias": X}, X), ShapeError, "bias is"),
        (lambda: nn.functional_call(ROW, {"bias": np.ones(2)}, X), DTypeError, "float32"),
        (lambda: gp.compile(ops.sum, static_argnums=9), ArgumentError, "static_argnums 9"),
        (lambda: gp.compile(ops.sum, static_argnames="q"), ArgumentError, "'q'"),
        (lambda: gp.compile(ops.sum, static_argnums=1)(X, [0]), ArgumentError, "not hashable"),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[GpubpError], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
