"""Loops in programs: gp.scan and its gradients, gp.while_loop, gp.cond."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.backends.numpy import NumpyBackend
from gpubp.errors import ArgumentError, DTypeError, GradientError, ShapeError, TraceError

VERIFIED = gp.Options(verify=True)
Fn = Callable[..., Any]


class Unrolled(NumpyBackend):
    """Runs no loops: they come written out."""

    runs_loops = False


class UnrolledNative(NumbaBackend):
    runs_loops = False


def cell(h: Any, c: Any, x: Any, w: Any, u: Any, b: Any) -> tuple[Any, Any]:
    z = x @ w + h @ u.T + b
    n = z.shape[1] // 4
    i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def lstm(loop: Fn = gp.scan, reverse: bool = False) -> Fn:
    def loss(x: Any, w: Any, u: Any, b: Any, h: Any, c: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            h, c = cell(*carry, x, w, u, b)
            return (h, c), (h, x + 1.0)

        (h, c), (ys, xs) = loop(body, (h, c), x, reverse=reverse)
        return ops.sum(ys * ys) + ops.sum(h * c) + ops.sum(xs * ys[..., :3])

    return loss


def attention(loop: Fn = gp.scan, reverse: bool = False) -> Fn:
    """A body with batched products, a reduction and a softmax, whose rows belong together."""

    def loss(x: Any, w: Any, u: Any, b: Any, h: Any, c: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            scores = ops.softmax(carry @ ops.transpose(carry) * 0.3, -1)
            new = scores @ ops.tanh(carry @ u[:6] + b[:6]) + ops.mean(x) * c[0, 0]
            return new, ops.sum(new, axis=0)

        last, ys = loop(body, h, x, reverse=reverse)
        return ops.sum(last * h) + ops.sum(ys * ys)

    return loss


def nested(loop: Fn = gp.scan, reverse: bool = False) -> Fn:
    def loss(x: Any, w: Any, u: Any, b: Any, h: Any, c: Any) -> Any:
        def outer(carry: Any, x: Any) -> Any:
            def inner(state: Any, row: Any) -> Any:
                state = ops.tanh(state @ u[:6] + row[0] * carry)
                return state, state * h

            state, ys = loop(inner, carry, x, reverse=not reverse)
            return state + c, ops.sum(ys, 0)

        last, ys = loop(outer, h, x, reverse=reverse)
        return ops.sum(last * last) + ops.sum(ys * c)

    return loss


def by_hand(fn: Fn, carry: Any, xs: Any, reverse: bool = False) -> Any:
    """What gp.scan is, in Python."""
    found: dict[int, Any] = {}
    rounds = range(len(xs))
    for t in reversed(rounds) if reverse else rounds:
        carry, found[t] = fn(carry, xs[t])
    if isinstance(found[0], tuple):
        return carry, tuple(ops.stack([found[t][i] for t in rounds]) for i in range(len(found[0])))
    return carry, ops.stack([found[t] for t in rounds])


def arrays(dtype: str) -> list[Any]:
    shapes = (5, 4, 3), (3, 24), (24, 6), (24,), (4, 6), (4, 6)
    return [
        (np.random.default_rng(k).standard_normal(s) / 2).astype(dtype)
        for k, s in enumerate(shapes)
    ]


def slopes(loss: Fn) -> Fn:
    return gp.value_and_grad(loss, argnums=(0, 1, 2, 3, 4, 5))


def run(fn: Fn, backend: Any, dtype: str) -> list[Any]:
    value, found = gp.compile(fn, backend=backend, options=VERIFIED)(*arrays(dtype))
    return [value, *found]


LOSSES = {"lstm": lstm, "attention": attention, "nested": nested}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loop_is_what_python_would_do(name: str, reverse: bool) -> None:
    mine = slopes(LOSSES[name](reverse=reverse))(*arrays("float64"))
    plain = slopes(LOSSES[name](by_hand, reverse))(*arrays("float64"))
    for a, b in zip([mine[0], *mine[1]], [plain[0], *plain[1]], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loop_gives_the_bits_of_the_loop_written_out(name: str, dtype: str) -> None:
    fn = slopes(LOSSES[name]())
    mine, written_out = run(fn, NumbaBackend(), dtype), run(fn, UnrolledNative(), dtype)
    for a, b in zip(mine, written_out, strict=True):
        assert_same(a, b)
    # On some processors NumPy's products with a turned matrix differ in their last bits from those
    # with a copy of it (OpenBLAS), which is what a loop reads.
    for a, b in zip(run(fn, NumpyBackend(), dtype), run(fn, Unrolled(), dtype), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("name", LOSSES)
def test_workers_change_no_bit_of_a_loop(name: str) -> None:
    fn = slopes(LOSSES[name](reverse=True))
    one = run(fn, NumbaBackend(workers=1), "float32")
    for workers in (2, 3):
        for a, b in zip(run(fn, NumbaBackend(workers=workers), "float32"), one, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("name", LOSSES)
def test_second_order_of_loops(name: str) -> None:
    def second(loop: Fn) -> Any:
        def total(*args: Any) -> Any:
            found = gp.grad(LOSSES[name](loop), argnums=(0, 2, 4))(*args)
            return ops.sum(found[0] ** 2) + ops.sum(found[1] ** 2) + ops.sum(found[2] ** 2)

        return gp.grad(total, argnums=(0, 2, 4))(*arrays("float64"))

    for a, b in zip(second(gp.scan), second(by_hand), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_workers_run_all_rounds_for_their_rows_without_a_barrier() -> None:
    fn = gp.compile(slopes(lstm()), backend=NumbaBackend(workers=2))
    fn(*arrays("float32"))
    loops = [p for p in fn._runner.last.program.parts if p.body_program is not None]
    assert [p.rows for p in loops] == [4, 4]
    assert all(p.body_program.program.syncs == 1 for p in loops if p.body_program)


def test_the_size_of_a_program_does_not_follow_the_length() -> None:
    def program(length: int) -> Any:
        fn = gp.compile(slopes(lstm()), backend="numpy")
        fn(np.ones((length, 4, 3), np.float32), *arrays("float32")[1:])
        return fn._runner.last.program

    short, long = program(3), program(300)
    assert len(short.parts) == len(long.parts)
    assert "loop" in str(long)


def test_products_of_all_rounds_make_the_weights_gradient_at_once() -> None:
    fn = gp.compile(slopes(lstm()), backend="numpy")
    fn(*arrays("float32"))
    inside = [p.body_program.program for p in fn._runner.last.program.parts if p.body_program]
    shapes = [c.shape for program in inside for p in program.parts for c in p.body]
    assert (3, 24) not in shapes and (24, 6) not in shapes and (6, 24) not in shapes


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_what_the_body_assigns_is_carried(backend: str) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("rounds", np.zeros((), np.float32))

        def forward(self, x: Any) -> Any:
            def body(carry: Any, x: Any) -> Any:
                ops.assign(self.rounds, self.rounds + 1.0)
                return carry + x * self.rounds, None

            return gp.scan(body, np.zeros(2, np.float32), x)[0]

    model = Counter()
    fn = gp.compile(model, backend=backend, options=VERIFIED)
    assert_same(fn(np.ones((3, 2), np.float32)), np.full(2, 6, np.float32))
    assert model.rounds.value == 3
    assert_same(fn(np.ones((3, 2), np.float32)), np.full(2, 15, np.float32))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_random_numbers_differ_from_round_to_round(backend: str) -> None:
    def draws(x: Any) -> Any:
        return gp.scan(lambda c, v: (c, gp.ops.random.uniform((4,)) + v), x[0], x)[1]

    fn = gp.compile(draws, backend=backend)
    gp.manual_seed(1)
    first = fn(np.zeros((6, 4), np.float32))
    second = fn(np.zeros((6, 4), np.float32))
    assert len(np.unique(np.concatenate([first, second]))) == 48


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_no_rounds_leave_the_carry(backend: str) -> None:
    fn = gp.compile(slopes(lstm()), backend=backend, options=VERIFIED)
    x, *rest = arrays("float32")
    value, found = fn(x[:0], *rest)
    np.testing.assert_allclose(value, np.sum(rest[3] * rest[4]), rtol=1e-5)
    assert_same(found[4], rest[4])
    assert_same(found[1], np.zeros_like(rest[0]))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_integers_and_constants_pass_through_a_loop(backend: str) -> None:
    def count(x: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            return (carry[0] + 1, carry[1]), (carry[0], x, 2.5)

        return gp.scan(body, (np.int64(7), x[0]), x, reverse=True)

    x = np.arange(6.0).reshape(3, 2)
    (n, same), (seen, xs, constant) = gp.compile(count, backend=backend, options=VERIFIED)(x)
    assert n == 10 and seen.tolist() == [9, 8, 7] and constant.tolist() == [2.5] * 3
    assert_same(same, x[0])
    assert_same(xs, x)


def test_loops_without_arrays_need_a_length() -> None:
    def powers(carry: Any, _: Any) -> Any:
        return carry * 2.0, carry

    last, ys = gp.scan(powers, np.float64(1.0), length=4)
    assert last == 16.0 and ys.tolist() == [1.0, 2.0, 4.0, 8.0]
    with pytest.raises(ArgumentError, match="length"):
        gp.scan(powers, np.float64(1.0))
    with pytest.raises(ArgumentError, match="at least 0"):
        gp.scan(powers, np.float64(1.0), length=-1)


X = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (lambda c, x: c, ArgumentError, r"must return \(carry, y\)"),
        (lambda c, x: ((c, c), x), ArgumentError, "returned a carry"),
        (lambda c, x: (c[:1], x), ShapeError, r"float32\[1\] where it was given float32\[2\]"),
        (lambda c, x: (c > 0.0, x), DTypeError, "keeps its type"),
    ],
)
def test_bodies_that_cannot_work(body: Fn, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gp.scan(body, X[0], X)
    with pytest.raises(error, match=message):
        gp.compile(lambda x: gp.scan(body, x[0], x))(X)


def test_whole_numbers_that_are_carried_stay_whole() -> None:
    # Half of each 1.5 was once cut off, without a word.
    with pytest.raises(DTypeError, match=r"where it was given int64\[\]"):
        gp.compile(lambda x: gp.scan(lambda c, _: (c + 1.5, None), 0, x)[0])(X)
    with pytest.raises(DTypeError, match=r"where it was given int64\[\]"):
        gp.while_loop(lambda c: c < 3, lambda c: c + 1.5, 0)
    assert gp.scan(lambda c, _: (c + 1, None), 0, X)[0] == 3
    assert gp.scan(lambda c, _: (c * 0.5 + 1, None), 0.25, X)[0] == 1.78125


def test_arrays_of_different_lengths() -> None:
    with pytest.raises(ShapeError, match="expected 3 elements"):
        gp.scan(lambda c, x: (c, None), X[0], (X, X[:2]))
    with pytest.raises(ShapeError, match="expected 4 elements"):
        gp.scan(lambda c, x: (c, None), X[0], X, length=4)
    with pytest.raises(ShapeError, match="first axis"):
        gp.scan(lambda c, x: (c, None), X[0], np.float32(1.0))


def test_a_bodys_arrays_cannot_be_kept() -> None:
    kept = []

    def body(carry: Any, x: Any) -> Any:
        kept.append(x)
        return carry, None

    with pytest.raises(TraceError, match="outside the function"):
        gp.compile(lambda x: gp.scan(body, x[0], x)[0] + kept[0])(X)


def root(x: Any) -> Any:
    def going(carry: Any) -> Any:
        return ops.max(ops.abs(carry[0] * carry[0] - x)) > 1e-9

    return gp.while_loop(going, lambda c: ((c[0] + x / c[0]) * 0.5, c[1] + 1), (x, np.int64(0)))


@pytest.mark.parametrize("backend", ["numpy", "numba", "at once"])
def test_loops_end_when_the_condition_says_so(backend: str) -> None:
    x = np.array([2.0, 9.0, 100.0])
    fn = root if backend == "at once" else gp.compile(root, backend=backend, options=VERIFIED)
    found, rounds = fn(x)
    np.testing.assert_allclose(found, np.sqrt(x), rtol=1e-12)
    carry, wanted = x, 0
    while np.max(np.abs(carry * carry - x)) > 1e-9:
        carry, wanted = (carry + x / carry) * 0.5, wanted + 1
    assert rounds == wanted
    assert fn(np.ones(3))[1] == 0


def choose(x: Any) -> Any:
    return gp.cond(ops.sum(x) > 0, lambda v: (v * 2.0, v[0]), lambda v: (v - 1.0, v[1]), x)


@pytest.mark.parametrize("backend", [NumpyBackend(), NumbaBackend(), Unrolled(), None])
def test_one_of_two_functions(backend: Any) -> None:
    fn = choose if backend is None else gp.compile(choose, backend=backend, options=VERIFIED)
    x = np.array([3.0, 4.0])
    for given, wanted in ((x, (x * 2, x[0])), (-x, (-x - 1, -x[1]))):
        for a, b in zip(fn(given), wanted, strict=True):
            assert_same(a, np.asarray(b))
    assert gp.cond(True, lambda v: v, lambda v: None, 3.0) == 3.0


def test_only_one_of_two_functions_is_computed() -> None:
    calls: list[int] = []
    noted = ops.custom_op("noted", lambda x: calls.append(1) or x)
    fn = gp.compile(lambda x: gp.cond(ops.sum(x) > 0, noted, lambda v: v, x), backend="numba")
    fn(np.ones(2))
    fn(-np.ones(2))
    assert calls == [1]


def test_conditions_and_branches_that_cannot_work() -> None:
    with pytest.raises(ArgumentError, match=r"a bool of shape \(\)"):
        gp.cond(X > 0.0, lambda x: x, lambda x: x, X)
    with pytest.raises(ArgumentError, match="same structure"):
        gp.compile(lambda x: gp.cond(ops.sum(x) > 0, lambda v: v, lambda v: (v, v), x))(X)
    with pytest.raises(ShapeError, match="false_fun"):
        gp.compile(lambda x: gp.cond(ops.sum(x) > 0, lambda v: v, lambda v: v[0], x))(X)
    with pytest.raises(ArgumentError, match="while_loop: cond_fun"):
        gp.while_loop(lambda c: c > 0.0, lambda c: c, X)


def test_loops_of_unknown_length_have_no_gradient() -> None:
    with pytest.raises(GradientError, match=r"gp\.scan"):
        gp.grad(lambda x: ops.sum(root(x)[0]))(np.array([2.0]))


def test_loops_print_and_are_json() -> None:
    fn = gp.compile(slopes(lstm()), backend=NumbaBackend(workers=1))
    fn(*arrays("float32"))
    program = fn._runner.last.program
    assert json.loads(json.dumps(program.to_dict())) == program.to_dict()
    assert "      |   0 " in str(program)
    assert "rounds=5 reverse=1 by_rows=1" in NumbaBackend().listing(program)
