"""gp.vmap of functions with loops: one loop of all samples, beside the loop of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, ops
from gpubp.core import tree
from gpubp.errors import TraceError

RNG = np.random.default_rng(0)
W = RNG.standard_normal((3, 3)) / 2
LSTM = nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, dtype="float64")
Fn = Callable[..., Any]


def r(*shape: int) -> Any:
    return RNG.standard_normal(shape) / 2


def mix(c: Any, v: Any) -> Any:
    return ops.tanh(c @ W + v), c


def nested(x: Any) -> Any:
    def outer(c: Any, v: Any) -> Any:
        return gp.scan(lambda a, b: (ops.tanh(a * b + c), a + v), v, x)

    return gp.scan(outer, x[0], x)


def late(x: Any) -> Any:
    """A carry that is the same at first, and differs from the second round on."""
    start = np.zeros(3), np.zeros(3)
    return gp.scan(lambda c, v: ((c[1], c[1] * 0.5 + v), c[0]), start, x)


def partly(s: Any) -> Any:
    """A carry, and values of rounds, that are the same for all samples."""
    start = np.ones(3), np.zeros(())

    def body(c: Any, v: Any) -> Any:
        return (c[0] * s, c[1] + 1.0), (c[1], c[0] * c[1], v * 2.0)

    (end, count), ys = gp.scan(body, start, np.arange(12.0).reshape(4, 3))
    return end, count * 2.0, ys


def squares(x: Any) -> Any:
    """A loop whose length the program finds out, inside of one that it knows, and around one."""

    def grown(q: Any) -> Any:
        return gp.scan(lambda c, t: (c + t * t, None), q, x)[0]

    more = gp.while_loop(lambda q: ops.sum(q) < 4.0, grown, ops.abs(x[0]) + 0.5)
    return gp.scan(
        lambda c, v: (gp.cond(ops.sum(v) > 0, lambda q: q * 2.0, lambda q: q - 1.0, c), c), more, x
    )


CASES: dict[str, tuple[Fn, tuple[Any, ...]]] = {
    "rows": (lambda x: gp.scan(mix, x[0], x), (r(4, 5, 3),)),
    "reverse": (lambda x: gp.scan(mix, x[0], x, reverse=True), (r(4, 5, 3),)),
    "weights": (
        lambda x, w: gp.scan(lambda c, v: (ops.tanh(c @ w + v), c), x[0], x),
        (r(4, 5, 2, 3), r(4, 3, 3)),
    ),
    "late": (late, (r(4, 5, 3),)),
    "partly": (partly, (r(5),)),
    "nested": (nested, (r(3, 4, 2),)),
    "unknown lengths": (squares, (r(3, 4, 2),)),
    "vmap": (gp.vmap(nested), (r(2, 3, 4, 2),)),
    "no rounds": (lambda x: gp.scan(lambda c, v: (c * v, c), np.ones(2), x[:0]), (r(3, 4, 2),)),
    "gradient": (gp.grad(lambda x: ops.sum(ops.sin(nested(x)[1]))), (r(3, 4, 2),)),
    "jacobian": (gp.jacobian(lambda x: gp.scan(mix, x[0], x)), (r(3, 4, 3),)),
    "hessian": (gp.hessian(lambda x: ops.sum(gp.scan(mix, x[0], x)[0])), (r(2, 3, 3),)),
    "recomputed": (
        gp.grad(lambda x: ops.sum(gp.scan(gp.checkpoint(mix), x[0], x)[0])),
        (r(3, 4, 3),),
    ),
    "indices": (
        lambda x, i: gp.scan(lambda c, k: (ops.gather(c, k, 0) * 0.9, ops.sum(c)), x, i),
        (r(3, 4, 2), RNG.integers(0, 4, (3, 5, 4))),
    ),
    "layer": (lambda x, n: LSTM(x, None, n), (r(3, 5, 2, 3), np.array([[5, 1], [2, 3], [4, 4]]))),
}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_a_loop_of_all_samples_is_that_of_each(name: str, backend: str) -> None:
    fn, args = CASES[name]
    each = [tree.flatten(fn(*[a[i] for a in args]))[0] for i in range(len(args[0]))]
    made = gp.compile(gp.vmap(fn), backend=backend, options=gp.Options(verify=True))
    for found in (gp.vmap(fn)(*args), made(*args)):
        for a, *b in zip(tree.flatten(found)[0], *each, strict=True):
            assert_close(a, np.stack(b))


def test_as_many_samples_as_one_likes() -> None:
    """And one loop, however many there are."""
    fn = gp.compile(gp.vmap(lambda x: gp.scan(mix, x[0], x)[0]), backend="numpy")
    for count in (0, 3, 300):
        x = r(count, 4, 3)
        assert fn(x).shape == (count, 3)
        assert [p.kernel for p in fn._runner.last.program.parts].count("loop") == 1


def test_gradients_from_outside() -> None:
    x = r(3, 3, 2)
    inside = gp.grad(lambda x: sum(ops.sum(ops.sin(nested(x[i])[0])) for i in range(3)))(x)
    outside = gp.grad(lambda x: ops.sum(ops.sin(gp.vmap(nested)(x)[0])))
    assert_close(outside(x), inside)
    assert_close(gp.compile(outside, backend="numba")(x), inside)


def noisy(x: Any) -> Any:
    def body(c: Any, v: Any) -> Any:
        dropped = nn.functional.dropout(v, 0.5, True)
        return c + dropped, dropped

    return gp.scan(body, x * 0.0, ops.stack([x, x, x]))[1]


def apart(x: Any) -> Any:
    """Numbers of a loop in which there is nothing of the sample."""
    return x + gp.scan(lambda c, _: (c + ops.uniform((64,)), None), np.zeros(64, "f4"), length=2)[0]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("fn", [noisy, apart])
def test_random_numbers_of_a_loop_are_asked_for(fn: Fn, backend: str) -> None:
    x = np.ones((4, 64), np.float32)
    with pytest.raises(TraceError, match="draws random numbers"):
        gp.compile(gp.vmap(fn), backend=backend)(x)
    for randomness, kinds in (("same", 1), ("different", 4)):
        drawn = gp.compile(gp.vmap(fn, randomness=randomness), backend=backend)
        first, second = drawn(x), drawn(x)
        assert len({row.tobytes() for row in first}) == kinds
        assert not np.array_equal(first, second)  # the generator has moved on


def test_rounds_draw_numbers_of_their_own() -> None:
    drawn = gp.vmap(noisy, randomness="different")(np.ones((4, 64), np.float32))
    assert len({row.tobytes() for row in drawn.reshape(12, 64)}) == 12
    assert 0.3 < np.mean(drawn == 0) < 0.7


def test_unknown_lengths_and_random_numbers_are_refused() -> None:
    def fn(x: Any) -> Any:
        return gp.while_loop(lambda c: ops.sum(c) < 9.0, lambda c: c + ops.uniform((2,)), x)

    for randomness in ("same", "different"):
        with pytest.raises(TraceError, match="draws random numbers"):
            gp.vmap(fn, randomness=randomness)(np.ones((3, 2), np.float32))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_verify_ends_where_a_loop_on_zeros_does_not(backend: str) -> None:
    def doubled(x: Any) -> Any:
        return gp.while_loop(lambda c: ops.sum(c) < 100.0, lambda c: c * 2.0, x)

    def each(x: Any) -> Any:
        return gp.scan(lambda c, v: (c, doubled(v)), x[0], x)[1]

    verified = gp.Options(verify=True)
    x = np.array([[3.0, 4.0], [100.0, 0.0]])
    wanted = np.array([[48.0, 64.0], [100.0, 0.0]])
    assert_close(gp.compile(doubled, backend=backend, options=verified)(x[0]), wanted[0])
    assert_close(gp.compile(each, backend=backend, options=verified)(x), wanted)
