"""gp.vjp: a pullback is a value, and a hundred pulls cost a hundred times what one costs."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.compiler import pullbacks
from gpubp.errors import GradientError, ShapeError, TraceError

RNG = np.random.default_rng(0)
ONES = np.ones(3)


def _captured() -> tuple[Callable[..., Any], list[Any], Callable[[], None]]:
    scale = np.array([1.0, 2.0, 3.0] * 10)
    return lambda x: ops.square(x) * scale, [np.ones(30)], lambda: scale.fill(9.0)


def _argument() -> tuple[Callable[..., Any], list[Any], Callable[[], None]]:
    x = np.array([1.0, 2.0, 3.0])
    return lambda z: ops.square(z) * z, [x], lambda: x.fill(10.0)


def _view_of_an_argument() -> tuple[Callable[..., Any], list[Any], Callable[[], None]]:
    x = np.arange(12.0).reshape(3, 4)
    return lambda z: ops.square(ops.transpose(z)[1:]), [x[:, ::-1]], lambda: x.fill(10.0)


def _parameter() -> tuple[Callable[..., Any], list[Any], Callable[[], None]]:
    p = nn.Parameter(np.array([2.0, 3.0, 4.0]))
    return lambda z: z * p * ops.exp(p), [ONES.copy()], lambda: p.value.fill(7.0)


def _parameter_as_argument() -> tuple[Callable[..., Any], list[Any], Callable[[], None]]:
    p = nn.Parameter(np.array([2.0, 3.0, 4.0]))
    return lambda z: ops.square(z) * z, [p], lambda: p.value.fill(7.0)


def _module() -> tuple[Callable[..., Any], list[Any], Callable[[], None]]:
    gp.manual_seed(0)
    layer = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))

    def change() -> None:
        for slot in (*layer.parameters(), *layer.buffers()):
            slot.value = np.ones(slot.shape)
        layer.eval()

    return layer, [np.sin(np.arange(24.0, dtype=np.float32)).reshape(6, 4)], change


def _user_rule() -> tuple[Callable[..., Any], list[Any], Callable[[], None]]:
    slope = nn.Parameter(np.array([2.0]))
    op = gp.custom_op("sloped", lambda x: x * 2.0, vjp=lambda g, y, x: g * slope)
    return op, [ONES.copy()], lambda: slope.value.fill(50.0)


def _nested() -> tuple[Callable[..., Any], list[Any], Callable[[], None]]:
    x, p = np.array([0.1, 0.2, 0.3]), nn.Parameter(np.array([2.0, 3.0, 4.0]))

    def fn(z: Any) -> Any:
        out, pull = gp.vjp(lambda v: ops.sin(v) * p * z, z)
        return out + pull(z)[0]

    return fn, [x], lambda: (x.fill(5.0), p.value.fill(5.0), None)[2]


CASES = [
    _captured, _argument, _view_of_an_argument, _parameter, _parameter_as_argument, _module,
    _user_rule, _nested,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__[1:])
def test_later_changes_do_not_reach_a_pullback(case: Any) -> None:
    fn, primals, change = case()
    out, pull = gp.vjp(fn, *primals)
    fn2, primals2, _ = case()
    _, wanted_pull = gp.vjp(fn2, *primals2)
    g = RNG.normal(size=out.shape).astype(out.dtype)
    kept, (wanted,) = out.copy(), wanted_pull(g)
    assert np.abs(wanted).max() > 0
    change()
    for _ in range(2):
        (found,) = pull(g)
        assert_same(found, wanted)
        found.fill(77.0)  # nor does what is done with a result
    assert_same(out, kept)
    g.fill(np.nan)
    assert_same(pull(np.zeros_like(g))[0], wanted_pull(np.zeros_like(g))[0])


def test_draws_are_part_of_the_pullback() -> None:
    generator = gp.Generator(3)
    x = np.ones((20, 30))
    out, pull = gp.vjp(lambda a: ops.dropout(a, 0.4, generator=generator), x)
    ops.uniform(3, generator=generator)
    generator.manual_seed(99)
    assert_same(pull(x)[0], out)
    assert list(generator.state.value) == [99, 0]


def test_a_hundred_pulls_keep_no_memory_and_do_the_same_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    apply = pullbacks.applied

    def counted(spec: Any, *rest: Any) -> Any:
        calls.append(spec.name)
        return apply(spec, *rest)

    monkeypatch.setattr(pullbacks, "applied", counted)
    x, g = RNG.normal(size=5000), np.ones(5000)
    _, pull = gp.vjp(lambda a: ops.sin(a) * ops.exp(a) * 2.0, x)
    (wanted,) = pull(g)
    each = len(calls)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            (found,) = pull(g)
        calls_made = len(calls)
        calls.clear()
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert calls_made == 101 * each
    assert kept < 2 * g.nbytes  # the last result, and not a hundred
    assert_same(found, wanted)
    assert {"sin", "cos", "exp"}.isdisjoint(calls)


def test_a_pullback_keeps_only_what_it_needs() -> None:
    x = np.zeros(1 << 16)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        out, pull = gp.vjp(lambda a: ops.sum(a * 3.0 + 1.0), x)
        assert tracemalloc.get_traced_memory()[0] - before < x.nbytes // 4
    finally:
        tracemalloc.stop()
    assert_same(pull(np.float64(2.0))[0], np.full(x.shape, 6.0))
    assert out == x.size


def test_threads_pull_at_once() -> None:
    x = RNG.normal(size=(40, 40))
    _, pull = gp.vjp(lambda a: ops.matmul(ops.tanh(a), a), x)
    seeds = [RNG.normal(size=(40, 40)) for _ in range(4)]
    wanted = [pull(g)[0] for g in seeds]
    right: list[bool] = []

    def work(i: int) -> None:
        right.append(all(np.array_equal(pull(seeds[i])[0], wanted[i]) for _ in range(30)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert right == [True] * 4


def test_a_pullback_is_called_in_traces() -> None:
    """It is linear, so it has a gradient and can be compiled; what it holds is a constant there."""
    x = RNG.normal(size=5)
    p = nn.Parameter(RNG.normal(size=5))
    _, pull = gp.vjp(lambda a: ops.sin(a) * p, x)
    slope = np.cos(x) * p.value
    p.value[...] = 0.0
    compiled = gp.compile(lambda g: pull(g)[0] * 2.0)
    g = RNG.normal(size=5)
    for _ in range(2):
        assert_close(compiled(g), 2.0 * slope * g)
    assert_close(gp.grad(lambda g: ops.sum(pull(g)[0] * g))(g), 2.0 * slope * g)
    with pytest.raises(ShapeError, match=r"cotangent is float64\[2\].*output is float64\[5\]"):
        compiled(np.ones(2))


@pytest.mark.parametrize("compiled", [False, True])
def test_what_has_aux_sets_aside_comes_back_whole(compiled: bool) -> None:
    x = RNG.normal(size=4)

    def fn(a: Any) -> Any:
        return ops.sum(ops.square(a)), {"double": a * 2.0, "given": (np.ones(2), a)}

    def work(a: Any) -> Any:
        out, pull, aux = gp.vjp(fn, a, has_aux=True)
        return out, pull(ops.stop_gradient(out) if compiled else np.ones(()))[0], aux

    out, found, aux = (gp.compile(work) if compiled else work)(x)
    assert_close(out, np.square(x).sum())
    assert_close(found, 2.0 * x * (out if compiled else 1.0))
    assert_close(aux["double"], 2.0 * x)
    assert_same(aux["given"][0], np.ones(2))
    assert_same(aux["given"][1], x)


def test_values_without_a_gradient_can_be_had() -> None:
    op = gp.custom_op("no_rule_here", lambda x: x + 1.0)
    out, pull = gp.vjp(op, ONES)
    assert_same(out, ONES + 1.0)
    for _ in range(2):
        with pytest.raises(GradientError, match="no_rule_here has no gradient"):
            pull(ONES)


def test_a_pullback_of_a_trace_is_of_no_use_after_it() -> None:
    kept: list[Any] = []

    def fn(a: Any) -> Any:
        out, pull = gp.vjp(ops.sin, a)
        kept.append(pull)
        return out

    gp.compile(fn)(ONES)
    for call in (lambda: kept[0](ONES), lambda: gp.compile(lambda g: kept[0](g)[0])(ONES)):
        with pytest.raises(TraceError, match="made inside a traced function, which has ended"):
            call()


def test_assignments_in_a_trace_do_not_reach_its_pullbacks() -> None:
    state = nn.Buffer(np.array([2.0]))

    def fn(x: Any) -> Any:
        _, pull = gp.vjp(lambda a: ops.square(a) * state, x)
        ops.assign(state, ops.multiply(state, 10.0))
        return pull(x)[0]

    compiled = gp.compile(fn)
    assert_close(compiled(ONES), np.full(3, 4.0))
    assert_close(compiled(ONES), np.full(3, 40.0))
    assert state.value == 200.0
