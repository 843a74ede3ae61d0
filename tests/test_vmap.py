"""gp.vmap: every op once a sample equals the op on each sample; axes, nesting, errors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from conv_rows import OPS, Geometry, geometry
from registered import MAKERS
from specs import ROWS, covering_cases
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, ops
from gpubp.core import Kind, bind, evaluate
from gpubp.errors import ArgumentError, GpubpError, ShapeError, TraceError
from gpubp.ops.spec import SPECS

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5))
SAMPLES = 3


def _masks(count: int) -> list[tuple[bool, ...]]:
    """Which inputs have samples: all, and one at a time; of few inputs, every choice."""
    every = [m for m in itertools.product((True, False), repeat=count) if any(m)]
    return every if count <= 3 else [m for m in every if sum(m) in (1, count)]


@pytest.mark.parametrize(
    "row", [r for r in ROWS.values() if r.spec.kind is not Kind.RANDOM], ids=lambda r: r.op
)
def test_an_op_of_many_samples_is_the_op_of_each(row: Any) -> None:
    spec = row.spec
    for case in list(covering_cases(row))[:6]:
        rng = np.random.default_rng(1)
        drawn = [row.make(rng, case.shapes, np.dtype(case.dtype)) for _ in range(SAMPLES)]
        for mask in _masks(len(drawn[0])):
            args = [
                np.stack([d[i] for d in drawn]) if own else drawn[0][i]
                for i, own in enumerate(mask)
            ]
            each = [
                [a[s] if own else a for a, own in zip(args, mask, strict=True)]
                for s in range(SAMPLES)
            ]
            expected = np.stack([evaluate(spec, e, case.attrs) for e in each])
            dims = tuple(0 if own else None for own in mask)
            attrs = case.attrs
            found = gp.vmap(lambda *a, _k=attrs: bind(spec, *a, **_k), dims)(*args)
            assert_close(found, expected, f"{case} {mask}")


def test_axes_of_arguments_and_results() -> None:
    tall = RNG.normal(size=(4, 7, 3))
    out = gp.vmap(lambda a, b: (a @ b["w"], a.sum()), (1, {"w": None}), (2, 0))(tall, {"w": X})
    assert_close(out[0], np.einsum("anb,bc->acn", tall, X))
    assert_close(out[1], tall.sum((0, 2)))
    assert_close(gp.vmap(lambda a: a * 2.0, -1, -1)(X), X * 2.0)
    assert_close(gp.vmap(lambda a, *, b: a + b)(X, b=X[0]), X + X[0])
    same, out = gp.vmap(lambda a: (ops.sum(W), a), out_dims=(None, 0))(X)
    assert same.shape == () and out.shape == X.shape
    assert gp.vmap(lambda a: ops.sum(W))(X).shape == (3,)


@pytest.mark.parametrize("backend", MAKERS)
def test_nested_and_compiled_on_every_backend(backend: str) -> None:
    def pairs(a: Any, b: Any) -> Any:
        one = lambda u, v: ops.softmax(u * v).max() + ops.gather(u, ops.argmax(v))  # noqa: E731
        return gp.vmap(gp.vmap(one, (None, 0)), (0, None))(a, b)

    softmax = lambda z: np.exp(z) / np.exp(z).sum()  # noqa: E731
    expected = [[softmax(u * v).max() + u[v.argmax()] for v in X + 1.0] for u in X]
    compiled = gp.compile(pairs, backend=MAKERS[backend]())
    assert_close(compiled(X, X + 1.0), np.array(expected))


def test_gradients_of_a_mapped_function() -> None:
    def total(w: Any) -> Any:
        return gp.vmap(lambda x: ops.tanh(x @ w).sum())(X).sum()

    assert_close(gp.grad(total)(W), gp.grad(lambda w: ops.tanh(X @ w).sum())(W))


def test_random_numbers_are_asked_for() -> None:
    nn.functional.dropout(X)
    noisy = lambda x: x + gp.ops.normal((4,), dtype="float64")  # noqa: E731
    with pytest.raises(TraceError, match="randomness"):
        gp.compile(gp.vmap(noisy))(X)
    same = gp.compile(gp.vmap(noisy, randomness="same"))(0 * X)
    assert np.ptp(same, 0).max() == 0.0
    other = gp.compile(gp.vmap(noisy, randomness="different"))(0 * X)
    assert np.ptp(other, 0).min() > 0.0


def _writes(x: Any) -> Any:
    return nn.BatchNorm1d(4)(x[None] + np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gp.vmap(ops.exp, 3)(X), ShapeError, "in_dims 3"),
        (lambda: gp.vmap(ops.exp, None)(X), ArgumentError, "no argument has samples"),
        (lambda: gp.vmap(ops.add)(X, W), ShapeError, r"\[3, 4\] samples"),
        (lambda: gp.vmap(ops.exp, (0, 0))(X), ArgumentError, "in_dims"),
        (lambda: gp.vmap(ops.exp, 0, None)(X), ArgumentError, "differs from sample"),
        (lambda: gp.vmap(ops.exp, 0, 2)(X), ShapeError, "out_dims 2"),
        (lambda: gp.vmap(ops.exp, 0, 0, "maybe")(X), ArgumentError, "randomness"),
        (lambda: gp.vmap(_writes)(X.astype(np.float32)), TraceError, "parameter or buffer"),
        (
            lambda: gp.vmap(lambda x: gp.while_loop(lambda c: c[0] < 9.0, lambda c: c + 1.0, x))(
                np.zeros((300, 1))
            ),
            TraceError,
            "limit is 256",
        ),
    ],
)
def test_what_cannot_be_mapped_is_refused(call: Any, error: type[GpubpError], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


CONVOLUTIONS: list[Geometry] = [
    geometry((2, 7, 4), (6, 2, 3), stride=2, padding=1, groups=2),
    geometry((1, 5, 4, 3), (2, 3, 2, 2), (2, 1), ((1, 0), (0, 1))),
    geometry((3, 3, 3, 2, 2), (4, 2, 2, 1, 2), dilation=2, padding=1, chunk=2),
]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("which", range(len(CONVOLUTIONS)))
def test_convolutions_with_operands_of_each_sample(which: int, op: str) -> None:
    """What differs from sample to sample: the images, the weights (or results), or both."""
    shapes, attrs = CONVOLUTIONS[which].arguments(op)
    rng = np.random.default_rng(which)

    def one(a: Any, b: Any) -> Any:
        return bind(SPECS[op], a, b, **attrs)

    for own in ((True, False), (False, True), (True, True)):
        args = [rng.normal(size=(3, *s) if o else s) for s, o in zip(shapes, own, strict=True)]
        dims = tuple(0 if o else None for o in own)
        each = [one(*[a[i] if o else a for a, o in zip(args, own, strict=True)]) for i in range(3)]
        assert_close(gp.compile(gp.vmap(one, dims), backend="numpy")(*args), np.stack(each))


@pytest.mark.parametrize("backend", MAKERS)
def test_many_members_with_convolutions_of_their_own(backend: str) -> None:
    """More than what has no rule may be: values, and gradients by weights and images."""
    rng = np.random.default_rng(0)
    members = 300
    images, weights = rng.normal(size=(2, 3, 5)), rng.normal(size=(members, 4, 3, 2)) / 3

    def loss(w: Any, x: Any) -> Any:
        return ops.sum(ops.tanh(nn.functional.conv1d(x, w, padding=1)))

    slopes = gp.vmap(gp.value_and_grad(loss, argnums=(0, 1)), (0, None))
    value, (by_w, by_x) = gp.compile(slopes, backend=MAKERS[backend]())(weights, images)
    for k in (0, 123, 299):
        wanted, (dw, dx) = gp.value_and_grad(loss, argnums=(0, 1))(weights[k], images)
        assert_close(value[k], wanted)
        assert_close(by_w[k], dw)
        assert_close(by_x[k], dx)
