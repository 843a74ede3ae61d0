"""Attention beyond its rows in `specs`: whole programs, workers, dropout, arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import MAKERS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu import NumbaBackend, disassemble
from gpubp.errors import ArgumentError, DataError, DTypeError, ShapeError

RNG = np.random.default_rng(3)
attend = ops.scaled_dot_product_attention


def _x(*shape: int) -> Any:
    return (0.5 * RNG.standard_normal(shape)).astype(np.float32)


QKV = _x(3, 70, 3, 4, 8)
WEIGHT = _x(3, 70, 32)
HEADS = _x(2, 4, 5, 3)
MASK = np.where(RNG.random((70, 70)) < 0.3, -np.inf, RNG.normal(size=(70, 70))).astype("f")


def _parts(qkv: Any) -> list[Any]:
    return [ops.swapaxes(qkv[:, :, i], 1, 2) for i in range(3)]


def _joined(q: Any, k: Any, v: Any, **options: Any) -> Any:
    out = ops.swapaxes(attend(q, k, v, **options), 1, 2)
    return ops.reshape(out, (3, 70, 32))


def _both(qkv: Any) -> Any:
    def loss(q: Any, k: Any, v: Any) -> Any:
        return ops.sum(_joined(q, k, v, is_causal=True) * WEIGHT)

    q, k, v = _parts(qkv)
    return _joined(q, k, v, is_causal=True), gp.grad(loss, argnums=(0, 1, 2))(q, k, v)


def _program(fn: Any, *args: Any) -> Any:
    compiled = gp.compile(fn, backend="numba")
    compiled(*args)
    return compiled._runner.last.program


def test_heads_are_read_and_written_where_they_are() -> None:
    """Of one array of queries, keys and values: nothing is copied, a pass makes all it can."""

    def squared(qkv: Any) -> Any:
        return ops.square(_joined(*_parts(qkv), is_causal=True))

    program = _program(squared, QKV)
    assert [part.name for part in program.parts] == ["attention", "square"]
    names = [part.name for part in _program(_both, QKV).parts]
    assert "attention+attention_sums" in names
    assert "attention_query_grad+attention_key_grad+attention_value_grad" in names
    assert "attention" in disassemble.listing(program)


def test_no_array_of_scores_is_kept() -> None:
    """Memory grows with the length, not with its square."""
    needed = []
    for length in (256, 512):
        x = np.zeros((1, 2, length, 16), np.float32)
        program = _program(gp.grad(lambda x: ops.sum(attend(x, x, x))), x)
        needed.append(sum(b.nbytes for b in program.buffers if b.kind == "arena"))
    assert needed[1] <= 2 * needed[0]


@pytest.mark.parametrize("mask", [None, MASK, MASK > 0], ids=["none", "floats", "booleans"])
def test_workers_agree_bit_for_bit(mask: Any) -> None:
    def both(*x: Any) -> Any:
        run = lambda *x: attend(*x, attn_mask=mask, enable_gqa=True)  # noqa: E731
        return run(*x), gp.grad(lambda *x: ops.sum(ops.sin(run(*x))), argnums=(0, 1, 2))(*x)

    q, k, v = (QKV[:, :, i].swapaxes(1, 2) for i in range(3))
    args = [np.ascontiguousarray(x) for x in (q, k[:, :2], v[:, :2])]
    for given in (args, [x[:1] for x in args]):  # one sequence: heads are shared
        found = [gp.compile(both, backend=NumbaBackend(workers=n))(*given) for n in (1, 2, 3)]
        expected = gp.compile(both, backend="numpy")(*given)
        for out in found[1:]:
            assert_same(out[0], found[0][0])
            for a, b in zip(out[1], found[0][1], strict=True):
                assert_same(a, b)
        assert_close(found[0][0], expected[0])


@pytest.mark.parametrize("backend", MAKERS)
def test_queries_that_see_no_key_give_zero(backend: str) -> None:
    mask = np.ones((5, 5), bool)
    mask[2] = False

    def both(x: Any) -> Any:
        return attend(x, x, x, mask), gp.grad(lambda q: ops.sum(attend(q, x, x, mask)))(x)

    for found in gp.compile(both, backend=MAKERS[backend]())(HEADS):
        assert not found[:, :, 2].any()
        assert np.isfinite(found).all()
        assert found[:, :, 3].any()


def test_weights_are_dropped() -> None:
    """Of values that are all 1, a result is the weight that is kept, over 1 - p."""
    gp.manual_seed(0)
    ones = np.ones((2, 4, 500, 3), np.float32)
    q = _x(2, 4, 500, 3)
    run = gp.compile(lambda q: attend(q, q, ones, dropout_p=0.25, is_causal=True))
    first, second = run(q), run(q)
    assert abs(first.mean() - 1.0) < 0.02
    assert (first != second).any()
    assert_same(attend(q, q, ones, dropout_p=1.0), np.zeros_like(ones))
    few = attend(HEADS, HEADS[:, :2], HEADS[:, :1], dropout_p=1e-12, enable_gqa=True)
    assert_close(few, attend(HEADS, HEADS[:, :2], HEADS[:, :1], enable_gqa=True))


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda x: attend(x[0, 0, 0], x, x), ShapeError, "at least two axes"),
    (lambda x: attend(x, x[..., :2], x), ShapeError, "one size E"),
    (lambda x: attend(x, x, x[:, :, :3]), ShapeError, "one number S of keys"),
    (lambda x: attend(x, x[:, :2], x[:, :2]), ShapeError, "enable_gqa=True"),
    (lambda x: attend(x, x[:, :3], x[:, :3], enable_gqa=True), ShapeError, "do not divide the 4"),
    (lambda x: attend(x, x[:, :0], x, enable_gqa=True), ShapeError, "do not divide the 4"),
    (lambda x: attend(x, x, x, np.ones((5, 4), bool)), ShapeError, "does not broadcast"),
    (lambda x: attend(x, x, x, np.ones((3, 2, 4, 5, 5), bool)), ShapeError, "does not broadcast"),
    (lambda x: attend(x, x, x, np.ones((5, 5), int)), DTypeError, "booleans or floats"),
    (lambda x: attend(x, x, x, dropout_p=1.5), DataError, r"in \[0, 1\]"),
    (lambda x: attend(x, x, x, dropout_p=float("nan")), DataError, "dropout_p"),
    (lambda x: attend(x, x, x, scale=float("inf")), DataError, "scale"),
    (lambda x: attend(x, x, x, scale="large"), DataError, "finite number"),
    (lambda x: attend(x, x, x, is_causal=x), ArgumentError, "True or False"),
    (lambda x: attend(x, x, x, enable_gqa="yes"), ArgumentError, "True or False"),
]


@pytest.mark.parametrize("at", range(len(BAD)))
def test_arguments_that_cannot_be_are_refused(at: int) -> None:
    call, error, words = BAD[at]
    for run in (call, gp.compile(call, backend="numpy")):
        with pytest.raises(error, match=words):
            run(HEADS)
