"""What names of the traced code stand for: closures, globals, what is behind them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.core.bindings import Bindings, use_of
from gpubp.core.facts import Facts
from gpubp.errors import TraceError

X = np.random.default_rng(0).uniform(-2.0, 2.0, (6, 4)).astype(np.float32)
START = """
class Settings:
    factor = 2.0

class Part(nn.Module):
    def forward(self, x):
        return act(x) * number

def act(x):
    return ops.relu(x) + inner(x)

def inner(x):
    return x * table["by"] + sum(numbers) + Settings.factor * array

def unused(x):
    return other

table, numbers, number, array, other = {"by": 3.0}, [1.0, 2.0], 1.5, np.ones(4, "float32"), 1.0
net = nn.Linear(4, 4)
inside = nn.Sequential(Part(), nn.Tanh())
"""
FUNCTIONS = {
    "a lambda": "lambda x: inner(net(x)) + act(x) * number",
    "a module": "Part()",
    "a module inside of gpubp's": "inside",
    "a function inside of one": "lambda x: (lambda z: act(z) + number)(net(x))",
    "a gradient": "lambda x: gp.grad(lambda z: ops.sum(ops.square(act(z))))(x) * number",
}
CHANGES = {
    "a number": "number = 4.0",
    "a function": "def act(x):\n    return ops.tanh(x) + inner(x)",
    "a function that a function calls": "def inner(x):\n    return -x",
    "a module": "net = nn.Linear(4, 4)",
    "an item of a dict": "table['by'] = 5.0",
    "another dict": "table = {'by': 6.0}",
    "a longer list": "numbers.append(7.0)",
    "another array": "array = np.full(4, 8.0, 'float32')",
    "an element of an array": "array[1] = 9.0",
    "an attribute of a class": "Settings.factor = 10.0",
}


def _scope() -> dict[str, Any]:
    found: dict[str, Any] = {"np": np, "gp": gp, "nn": nn, "ops": ops, "__name__": "users"}
    exec(compile(ast.parse(START), "<users>", "exec"), found)
    return found


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("way", FUNCTIONS)
def test_globals_that_change(way: str, what: str) -> None:
    scope = _scope()
    fn = eval(FUNCTIONS[way], scope)
    f = gp.compile(fn, backend="numpy")
    f(X)
    exec(CHANGES[what], scope)
    expected = gp.compile(fn, backend="numpy")(X)
    np.testing.assert_array_equal(f(X), expected)
    if way != "a gradient":
        np.testing.assert_allclose(f(X), np.asarray(fn(X)), 1e-5, 1e-5)


def test_steps_and_trainers_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = _scope()
    y = np.zeros((6, 4), np.float32)
    loss: Callable[..., Any] = eval("lambda z, t: ops.mean(ops.square(z * number - t))", scope)
    model = nn.Linear(4, 4)
    step = gp.compile_step(lambda x, t: loss(model(x), t), optim.SGD(model.parameters(), lr=0.0))
    trainer = gp.Trainer(model, loss, optim.SGD(model.parameters(), lr=0.0))
    for number in (1.5, 0.5, 2.5):
        scope["number"] = number
        expected = np.mean(np.square(np.asarray(model(X)) * number))
        np.testing.assert_allclose(step(X, y), expected, 1e-5)
        np.testing.assert_allclose(step.run(X, y, batch_size=6)[0], expected, 1e-5)
        np.testing.assert_allclose(trainer.evaluate(X, y)["loss"], expected, 1e-5)
        fitted = trainer.fit(X, y, batch_size=6, verbose=False)["loss"][-1]
        np.testing.assert_allclose(fitted, expected, 1e-5)


def test_closures_that_are_bound_anew() -> None:
    by, layer, options = 2.0, nn.Linear(4, 4), {"rates": [1.0]}
    f = gp.compile(lambda x: layer(x) * by * options["rates"][0])

    def holds() -> None:
        expected = np.asarray(layer(X)) * np.float32(by * options["rates"][0])
        np.testing.assert_allclose(f(X), expected, 1e-5, 1e-6)

    holds()
    by = 3.0
    holds()
    layer = nn.Linear(4, 4)
    holds()
    options["rates"][0] = 4.0
    holds()
    options = {"rates": [5.0]}
    holds()


def test_equal_values_cost_no_trace() -> None:
    traced: list[int] = []
    by, name = 2.0, "relu"

    def fn(x: Any) -> Any:
        traced.append(1)
        return getattr(ops, name)(x) * by

    f = gp.compile(fn)
    for number in ("2.0", "2.0", "2.0", "3.0", "3.0"):
        by, name = float(number), "".join(["re", "lu"])
        np.testing.assert_allclose(f(X), np.maximum(X, 0) * np.float32(by))
    assert len(traced) == 2


def test_what_the_code_changes_itself_is_none() -> None:
    """Counters and lists of what was traced; two functions share them."""
    calls, seen, made = 0, [], {}

    def fn(x: Any) -> Any:
        nonlocal calls
        calls += 1
        seen.append(x.shape)
        made[x.shape] = calls
        return x * 2.0

    f, g = gp.compile(fn), gp.compile(lambda x: fn(x) + 1.0)
    for _ in range(3):
        for rows in (6, 5):
            np.testing.assert_array_equal(f(X[:rows]), X[:rows] * 2)
            np.testing.assert_array_equal(g(X[:rows]), X[:rows] * 2 + 1)
    assert calls == len(seen) == 4


def test_attributes_of_the_same_name_are_no_globals() -> None:
    scope = _scope()
    scope["traced"] = []
    exec("def fn(x):\n    traced.append(1)\n    return x * box.other", scope)
    scope["box"] = nn.Module()
    scope["box"].other = 2.0
    f = gp.compile(scope["fn"])
    for i in range(3):
        scope["other"] = float(i)
        np.testing.assert_array_equal(f(X), X * 2)
    assert len(scope["traced"]) == 1


def test_another_class_of_a_module() -> None:
    class Twice(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 2.0

    layer = nn.Linear(4, 4)
    f = gp.compile(nn.Sequential(layer))
    before = f(X)
    layer.__class__ = Twice
    np.testing.assert_allclose(f(X), 2 * before, 1e-6)


def test_arrays_are_not_kept_alive_by_their_names() -> None:
    import weakref

    array = np.ones(4, np.float32)
    gone = weakref.ref(array)
    f = gp.compile(lambda x: x * array)
    f(X)
    array = np.full(4, 2.0, np.float32)
    assert gone() is None
    np.testing.assert_array_equal(f(X), X * 2)


def test_how_code_uses_names() -> None:
    lines = [
        "global bound",
        "bound = 1",
        "table[x.shape] = 1",
        "names.append(x.attribute)",
        "return [inside for _ in loaded]",
    ]
    scope: dict[str, Any] = {}
    exec("def fn(x):\n    " + "\n    ".join(lines), scope)
    use = use_of(scope["fn"].__code__)
    assert use == ({"table", "names", "inside", "loaded"}, {"bound"}, {"table", "names"})


def test_a_name_that_is_gone() -> None:
    scope: dict[str, Any] = {}
    exec("def outer():\n    by = 2.0\n    def fn(x): return x * by\n    return fn", scope)
    fn = scope["outer"]()
    f = gp.compile(fn)
    f(X)
    del fn.__closure__[0].cell_contents
    with pytest.raises(NameError, match="by"):
        f(X)


def test_nothing_is_compared_where_no_name_is_used() -> None:
    assert Bindings().hold() and Facts().hold()


def test_traced_arrays_are_not_written_into() -> None:
    def fn(x: Any) -> Any:
        x[0] = 1.0
        return x

    with pytest.raises(TraceError, match="cannot be written into"):
        gp.compile(fn)(X)
