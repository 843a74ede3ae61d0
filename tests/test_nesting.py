"""Programs called by custom ops inside of other programs: right, or refused with a reason."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from registered import with_workers
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import NestingError

BACKENDS = with_workers(1, 3)
X = np.arange(12.0).reshape(3, 4)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return BACKENDS[request.param]()


def _op(forward: Callable[[Any], Any]) -> Any:
    return gp.custom_op("calling", forward, vjp=lambda g, y, x: g)


def _around(inner: Callable[[Any], Any], backend: Any) -> Any:
    """A function whose own values stand in memory while its custom op calls `inner`."""
    op = _op(inner)

    def outer(x: Any) -> Any:
        product = ops.matmul(x, ops.transpose(x))
        return ops.sum(product) + ops.sum(op(x) * x) + ops.sum(ops.exp(-product) * product)

    return gp.compile(outer, backend=backend)


def _expected(inner: Any) -> Any:
    product = X @ X.T
    return product.sum() + (inner * X).sum() + (np.exp(-product) * product).sum()


@pytest.mark.parametrize("calls", [1, 2], ids=["first call", "bound call"])
def test_a_function_inside_of_itself_is_refused(backend: Any, calls: int) -> None:
    depth = [0]

    def inner(x: Any) -> Any:
        if depth[0] == 0:
            return x
        depth[0] -= 1
        return x * fn(x[::-1])

    fn = _around(inner, backend)
    for _ in range(calls):
        np.testing.assert_allclose(fn(X), _expected(X))
    for _ in range(2):
        depth[0] = 1
        with pytest.raises(NestingError, match="outer was called by a custom op inside of its own"):
            fn(X)
        depth[0] = 0
        np.testing.assert_allclose(fn(X), _expected(X))


def test_an_error_that_the_op_catches_has_disturbed_nothing(backend: Any) -> None:
    refused = []

    def inner(x: Any) -> Any:
        for other in (x, x[:2], np.ones((7, 4))):
            try:
                fn(other)
            except NestingError as error:
                refused.append(error)
        return x

    fn = _around(inner, backend)
    for _ in range(3):
        np.testing.assert_allclose(fn(X), _expected(X))
    assert len(refused) == 9


def test_another_function_inside_is_right(backend: Any) -> None:
    square = gp.compile(lambda x: ops.matmul(x, ops.transpose(x)), backend=backend)
    fn = _around(lambda x: x * square(x[::-1]).sum(), backend)
    for _ in range(3):
        np.testing.assert_allclose(fn(X), _expected(X * (X[::-1] @ X[::-1].T).sum()))


def test_a_function_that_comes_back_through_another_is_refused(backend: Any) -> None:
    second = gp.compile(lambda x: _op(lambda v: np.array(first(v)) + 0.0 * v)(x), backend=backend)
    first = _around(lambda x: second(x), backend)
    for _ in range(2):
        with pytest.raises(NestingError, match="outer was called by a custom op inside"):
            first(X)


def _trained(inner: Callable[[Any], Any], backend: Any, seed: int = 1) -> tuple[Any, Any]:
    gp.manual_seed(seed)
    model, op = nn.Linear(4, 2, dtype=np.float64), _op(inner)
    step = gp.compile_step(
        lambda x: ops.mean(ops.square(model(op(x)))), optim.SGD(model.parameters(), 0.01),
        backend=backend,
    )  # fmt: skip
    return model, step


@pytest.mark.parametrize("how", ["call", "run", "prepare"])
def test_a_step_inside_of_itself_is_refused(backend: Any, how: str) -> None:
    inside = [False]

    def inner(x: Any) -> Any:
        if inside[0]:
            inside[0] = False
            {"call": step, "run": lambda v: step.run(v, batch_size=1), "prepare": step.prepare}[
                how
            ](x[:2].copy())
        return x

    model, step = _trained(inner, backend)
    twin, other = _trained(lambda x: x, backend)
    step(X), other(X)
    order = step.state_dict()["rng"]
    for go in (step, lambda x: step.run(x, batch_size=3, shuffle=False)):
        inside[0] = True
        with pytest.raises(NestingError, match="a step was called by a custom op inside of its"):
            go(X)
    assert step.state_dict()["rng"] == order
    twin.load_state_dict(model.state_dict())
    assert_same(step(X), other(X))
    assert_same(model.weight.value, twin.weight.value)


def test_what_writes_parameters_that_the_outer_program_uses_is_refused(backend: Any) -> None:
    gp.manual_seed(0)
    model = nn.Linear(4, 4, dtype=np.float64)
    predict = gp.compile(model, backend=backend)
    step = gp.compile_step(
        lambda x: ops.mean(ops.square(model(x))), optim.SGD(model.parameters()), backend=backend
    )
    for inside, around in ((step, predict), (predict, step)):
        op = _op(lambda x, inside=inside: (inside(x), x)[1])

        def fn(x: Any, op: Any = op) -> Any:
            return ops.mean(ops.square(model(op(x))))

        if around is predict:
            outer: Any = gp.compile(fn, backend=backend)
        else:
            outer = gp.compile_step(fn, optim.SGD(model.parameters()), backend=backend)
        before = model.weight.value.copy()
        with pytest.raises(NestingError, match=r"both use bias, weight, which one of them writes"):
            outer(X)
        if around is predict:
            assert_same(model.weight.value, before)


def test_what_reads_the_same_parameters_is_right(backend: Any) -> None:
    gp.manual_seed(0)
    model = nn.Linear(4, 4, dtype=np.float64)
    predict = gp.compile(model, backend=backend)
    op = _op(lambda x: predict(x) + 1.0)
    fn = gp.compile(lambda x: model(op(x)), backend=backend)
    for _ in range(2):
        np.testing.assert_allclose(fn(X), model(model(X) + 1.0))


def test_draws_from_the_same_generator_are_refused(backend: Any) -> None:
    mine, other = gp.Generator(1), gp.Generator(2)
    for generator in (other, mine):
        draw = gp.compile(
            lambda x, g=generator: x + ops.uniform((3, 4), generator=g), backend=backend
        )
        op = _op(lambda x, draw=draw: np.asarray(draw(x), x.dtype))
        fn = gp.compile(
            lambda x, op=op: op(x) + ops.uniform((3, 4), "float64", generator=mine), backend=backend
        )
        if generator is mine:
            with pytest.raises(NestingError, match="both use rng"):
                fn(X)
        else:
            assert np.isfinite(fn(X)).all()


def test_threads_take_turns(backend: Any) -> None:
    """A second thread calls the function while the first is in its custom op."""
    entered, results = threading.Event(), {}

    def inner(x: Any) -> Any:
        if x[0, 0] == 0.0 and not entered.is_set():
            entered.set()
            gate.wait(0.2)
        return x

    gate = threading.Event()
    fn = _around(inner, backend)
    fn(X + 1.0)

    def second() -> None:
        entered.wait(60)
        results["second"] = fn(X + 1.0)

    thread = threading.Thread(target=second)
    thread.start()
    results["first"] = fn(X)
    thread.join(60)
    assert not thread.is_alive()
    np.testing.assert_allclose(results["first"], _expected(X))
    assert_same(results["second"], fn(X + 1.0))


def test_threads_that_would_wait_for_each_other_are_told(backend: Any) -> None:
    both = threading.Barrier(2)
    functions: list[Any] = []
    errors: list[BaseException] = []

    def calling(other: int) -> Callable[[Any], Any]:
        def inner(x: Any) -> Any:
            if x[0, 0] < 0:
                both.wait(60)
                return x * functions[other](X)
            return x

        return inner

    functions += [_around(calling(1), backend), _around(calling(0), backend)]
    for fn in functions:
        fn(X)

    def work(fn: Any) -> None:
        try:
            fn(-X - 1.0)
        except NestingError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(fn,), daemon=True) for fn in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert errors
    assert "neither would ever go on" in str(errors[0])
    for fn in functions:
        np.testing.assert_allclose(fn(X), _expected(X))
