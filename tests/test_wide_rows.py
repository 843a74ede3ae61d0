"""Rows that begin on cache lines: which ones do, and the same bits as back to back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from classifier import prepared, trained
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.backends.numpy import NumpyBackend
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.ops import update

WIDTHS = (19, 100, 53, 36)  # before the ten classes


class BackToBack(NumbaBackend):
    """Moves no rows apart."""

    def wide_rows(self, part: Part) -> Sequence[Sequence[Operand]]:
        return ()


class Reference(NumpyBackend):
    """Interprets what is made for the native kernels."""

    def wide_rows(self, part: Part) -> Sequence[Sequence[Operand]]:
        return NumbaBackend(workers=1).wide_rows(part)


def _row_distances(program: Program) -> set[tuple[int, int]]:
    """(length, distance) of the rows of temporary matrices."""
    found = set()
    for part in program.parts:
        for operand, _ in part.operands():
            inside = program.buffers[operand.buffer].kind == "arena" and len(operand.shape) == 2
            if inside and 1 in operand.strides:
                other = operand.strides.index(1)
                found.add((operand.shape[other], operand.strides[1 - other]))
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("activation", "rule"),
    [
        (nn.ReLU, "sgd"),
        (nn.Sigmoid, "momentum"),
        (nn.Tanh, "adam"),
        (nn.GELU, "adam"),  # keeps what it was applied to
        (nn.ELU, "adam"),  # no tile does it: rows stay back to back
    ],
)
def test_wide_rows_give_the_same_bits(activation: Any, rule: str, dtype: str) -> None:
    wanted = trained(BackToBack(workers=1), WIDTHS, activation, rule, dtype)
    first, _, last = wanted["losses"].reshape(3, 3).mean(1)  # of each epoch
    assert last < first
    for workers in (1, 2, 3):
        found = trained(NumbaBackend(workers=workers), WIDTHS, activation, rule, dtype)
        for name in wanted:
            assert_same(found[name], wanted[name], f"{workers} workers: {name}")


def test_rows_of_hidden_layers_begin_on_lines() -> None:
    for dtype, distances in (
        ("float32", {(100, 112), (53, 64), (36, 48), (10, 10)}),
        ("float64", {(100, 104), (53, 56), (36, 40), (10, 10)}),
    ):
        found = _row_distances(prepared(NumbaBackend(workers=2), WIDTHS, dtype)[1])
        assert found - {(19, 19)} == distances  # the batch is read in place
        packed = _row_distances(prepared(BackToBack(workers=2), WIDTHS, dtype)[1])
        assert all(length == distance for length, distance in packed)


def _compiled(function: Callable[..., Any], *arrays: np.ndarray) -> set[tuple[int, int]]:
    """Run it on one, two and three workers and by the reference; distances of rows."""
    backends = [*[NumbaBackend(workers=w) for w in (1, 2, 3)], Reference()]
    compiled = [gp.compile(function, backend=backend) for backend in backends]
    results = [each(*arrays) for each in compiled]
    for found in results[1:3]:
        assert_same(found, results[0])
    assert_close(results[0], results[3])
    last = compiled[0]._runner.last
    assert last is not None
    return _row_distances(last.program)


def _matrix(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


SQUARE = _matrix(50, 50)


@pytest.mark.parametrize(
    ("function", "moved"),
    [
        (lambda a, b, c: (a @ b) @ c, {(50, 56)}),
        (lambda a, b, c: ops.relu(a @ b + b[0]) @ c, {(50, 56)}),
        (lambda a, b, c: (h := a @ b) @ h.T @ h @ c, {(50, 56), (45, 48)}),
        (lambda a, b, c: ops.sum((h := a @ b), axis=0) * ops.sum(h @ c), {(50, 56)}),
        (lambda a, b, c: ops.sum((h := a @ b), axis=0, keepdims=True) @ c + h @ c, {(50, 56)}),
        (lambda a, b, c: (h := a @ b).T @ (h + 1.0), set()),  # a chain walks flat memory
        (lambda a, b, c: ops.sum((h := a @ b) * 2.0, axis=0)[:40] + h @ c, set()),
        (lambda a, b, c: ops.sum((h := a @ b), axis=1, keepdims=True) + h @ c, set()),
        (lambda a, b, c: ops.max((h := a @ b), axis=0)[:40] + h @ c, set()),
        (lambda a, b, c: ops.mean(h := a @ b) + h @ c, set()),
        (lambda a, b, c: (h := a @ b) @ c[:, :33] @ b * ops.tanh(h), {(33, 40)}),
        (lambda a, b, c: ((h := a @ b) @ SQUARE) * ops.tanh(h.T.T), set()),
        (lambda a, b, c: (h := a @ b)[:, 3:43] @ c[3:43] + h[:, :40], set()),
        (lambda a, b, c: (a @ b)[1:] @ c, set()),
        (lambda a, b, c: ops.reshape(a @ b, (50, 45)) @ a, set()),
    ],
)
def test_rows_move_apart_only_where_every_reader_can(
    function: Callable[..., Any], moved: set[tuple[int, int]]
) -> None:
    found = _compiled(function, _matrix(45, 33), _matrix(33, 50), _matrix(50, 40))
    assert {(n, d) for n, d in found if n < d < n + 8 and d % 8 == 0} == moved, found


def test_an_axis_of_one_says_nothing_about_rows() -> None:
    """Its stride is that of a slice; the matrices of the batch lie back to back."""
    start, x, z = _matrix(6, 1, 50), _matrix(6, 1, 37), _matrix(6, 37, 50)
    for workers in (1, 2):
        weight, beside = nn.Buffer(start.copy()), nn.Buffer(np.zeros(4000))

        def updated(x: Any, z: Any, weight: Any = weight, beside: Any = beside) -> Any:
            ops.assign(weight, update.sgd(weight[:, ::2], x @ z, np.float64(0.1)))
            ops.assign(beside, beside * 1.0)
            return ops.sum(x)

        gp.compile(updated, backend=NumbaBackend(workers=workers))(x, z)
        assert_close(weight.value, start - 0.1 * (x @ z))
        assert not beside.value.any()


def test_rows_of_a_page_stay() -> None:
    """A distance that is a multiple of 1024 bytes would put all rows into few sets of a cache."""
    x, w = _matrix(40, 33), _matrix(33, 125)
    assert _compiled(lambda x, w: (x @ w) @ ops.transpose(w), x, w) == {(125, 125)}
