"""Gradients of tables: summed by workers that own rows, and followed by the update in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.errors import ArgumentError, DataError

ROWS, WIDTH = 700, 5
RNG = np.random.default_rng(3)
RULES: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=0.5),
    "momentum": lambda p: optim.SGD(p, lr=0.5, momentum=0.9),
    "decay": lambda p: optim.SGD(p, lr=0.5, weight_decay=0.1),
    "adam": lambda p: optim.Adam(p, lr=0.1),
}


class Factors(nn.Module):
    """A product of two looked-up vectors, and a bias of one."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        gp.manual_seed(1)
        self.first = nn.Embedding(ROWS, WIDTH, dtype=dtype)
        self.second = nn.Embedding(ROWS, WIDTH, padding_idx=2, dtype=dtype)
        self.bias = nn.Embedding(ROWS, 1, dtype=dtype)

    def forward(self, i: Any) -> Any:
        both = ops.sum(self.first(i[:, 0]) * self.second(i[:, 1]), -1)
        return both + ops.squeeze(self.bias(i[:, 0]), -1)


def trained(backend: Any, rule: str, dtype: str, steps: int = 4) -> list[Any]:
    model = Factors(dtype)
    step = gp.compile_step(
        lambda i, y: ops.mean((model(i) - y) ** 2.0),
        RULES[rule](model.parameters()),
        backend=backend,
    )
    rng = np.random.default_rng(0)
    i = rng.integers(0, ROWS, (96, 2))
    i[:20] = 7  # many updates of one row, whose order decides the last bit
    y = rng.normal(size=96).astype(dtype)
    losses = [float(step(i, y)) for _ in range(steps)]
    return [np.array(losses), *[p.value.copy() for p in model.parameters()]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_tables_are_trained_as_the_reference_does_with_the_same_bits_for_all_workers(
    rule: str, dtype: str
) -> None:
    wanted = trained("numpy", rule, dtype)
    alone = trained(NumbaBackend(workers=1), rule, dtype)
    for a, b in zip(alone, wanted, strict=True):
        assert_close(a, b)
    for workers in (2, 3):
        for a, b in zip(trained(NumbaBackend(workers=workers), rule, dtype), alone, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_of_descent_changes_touched_rows_alone(backend: str) -> None:
    table = nn.Embedding(ROWS, WIDTH)
    table.weight.value[5] = -0.0
    before = table.weight.value.copy()
    step = gp.compile_step(
        lambda i: ops.sum(table(i)), optim.SGD(table.parameters(), lr=0.5), backend=backend
    )
    step(np.array([3, 600, 3]))
    wanted = before.copy()
    np.add.at(wanted, [3, 3, 600], np.float32(-0.5))
    after = table.weight.value
    rest = np.delete(np.arange(ROWS), [3, 600])
    assert after[rest].tobytes() == before[rest].tobytes()
    assert_close(after, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rate_that_is_not_finite_reaches_every_row(backend: str) -> None:
    table = nn.Embedding(300, WIDTH)
    optimizer = optim.SGD(table.parameters(), lr=0.5)
    step = gp.compile_step(lambda i: ops.sum(table(i)), optimizer, backend=backend)
    step(np.array([3]))
    optimizer.param_groups[0].lr.value = np.float64(np.inf)
    with np.errstate(invalid="ignore"):
        step(np.array([3]))
    assert np.isnan(np.delete(table.weight.value, 3, 0)).all()


@pytest.mark.parametrize("shape", [(4, 9, 3), (4, 9), (9,), (9, 2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
def test_what_follows_sums_is_computed_along_every_axis(shape: tuple[int, ...], dtype: str) -> None:
    axis = shape.index(9)
    indices = RNG.integers(0, 6000, 9)
    updates = RNG.integers(-9, 9, shape).astype(dtype)
    size = 6000
    other = RNG.integers(-9, 9, (*shape[:axis], size, *shape[axis + 1 :])).astype(dtype)
    row = RNG.integers(-9, 9, shape[axis + 1 :]).astype(dtype)

    def fn(u: Any, i: Any, o: Any, r: Any) -> Any:
        total = ops.scatter_add(u, i, size, axis)
        return total, total * 2 + o, o - total * r

    wanted = gp.compile(fn, backend="numpy")(updates, indices, other, row)
    for workers in (1, 3):
        backend = NumbaBackend(workers=workers)
        found = gp.compile(fn, backend=backend)(updates, indices, other, row)
        for a, b in zip(found, wanted, strict=True):
            assert_same(a, b)
        last = gp.compile(lambda *a: fn(*a)[1], backend=backend)(updates, indices, other, row)
        assert_same(last, wanted[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_computed_in_the_program_is_refused_where_it_is_out_of_range(backend: str) -> None:
    fn = gp.compile(lambda u, i: ops.scatter_add(u, i + 1, 4) * 2.0, backend=backend)
    with pytest.raises(DataError):
        fn(np.ones((2, 3)), np.array([1, 3]))


def test_the_gradient_of_a_table_is_never_stored() -> None:
    table = nn.Embedding(ROWS, WIDTH)
    step = gp.compile_step(
        lambda i: ops.sum(table(i)), optim.Adam(table.parameters()), backend=NumbaBackend(workers=1)
    )
    step(np.array([3]))
    text = step.explain(np.array([3]), after="schedule")
    (line,) = [part for part in text.splitlines() if "scatter_add" in part and "=" in part]
    assert "<scatter_add+ema+ema_square+adam_update>" in line and f"[rows {ROWS}]" in line


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_by_frequency_is_divided_by_how_often_a_row_is_read(backend: str) -> None:
    x = np.array([[1, 1, 1, 4], [6, 6, 4, 7]])
    for table in (
        nn.EmbeddingBag(8, 2, mode="sum", scale_grad_by_freq=True),
        nn.Embedding(8, 2, scale_grad_by_freq=True),
    ):
        table.weight.value = np.zeros((8, 2), np.float32)
        step = gp.compile_step(
            lambda x, t=table: ops.sum(t(x)), optim.SGD(table.parameters(), lr=1.0), backend=backend
        )
        step(x)
        wanted = np.zeros((8, 2))
        wanted[[1, 4, 6, 7]] = -1.0
        assert_close(table.weight.value, wanted.astype(np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_rows_are_shortened_where_they_are_looked_up(backend: str) -> None:
    def made() -> Any:
        table = nn.Embedding(4, 2, max_norm=1.0)
        table.weight.value = np.array([[3, 4], [0.3, 0.4], [6, 8], [0, 2]], np.float32)
        return table

    wanted = np.array([[0.6, 0.8], [0.3, 0.4], [6, 8], [0, 1]], np.float32)
    table = made()
    fn = gp.compile(table, backend=backend)
    assert_close(fn(np.array([0, 1, 3])), wanted[[0, 1, 3]])
    assert_close(table.weight.value, wanted)
    at_once = made()
    assert_close(at_once(np.array([[0, 1], [3, 3]])), wanted[[[0, 1], [3, 3]]])
    assert_close(at_once.weight.value, wanted)


def test_bad_lookups_are_refused() -> None:
    table, i = np.ones((3, 2)), np.array([1])
    with pytest.raises(ArgumentError, match="rows of the table are rewritten"):
        nn.functional.embedding(i, table, max_norm=1.0)
    with pytest.raises(ArgumentError, match="norm_type is 'x'"):
        nn.functional.embedding(i, table, norm_type="x")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="max_norm is -1"):
        nn.Embedding(3, 2, max_norm=-1.0)
    for bad in ({"scale_grad_by_freq": True}, {"sparse": True}):
        with pytest.raises(ArgumentError, match="maxima take neither"):
            nn.EmbeddingBag(3, 2, mode="max", **bad)


def test_bags_take_none_for_what_they_need_not() -> None:
    bags, weights = np.array([[1, 2, 3], [0, 0, 2]]), np.ones((2, 3), np.float32)
    table = nn.EmbeddingBag(4, 3, mode="sum")
    assert_close(table(bags, None, weights), table(bags))
    assert_close(table(bags, offsets=None, per_sample_weights=None), table(bags))
    with pytest.raises(ArgumentError, match="got None"):
        table(None)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_no_indices_at_all_are_zeros(mode: str) -> None:
    """Wherever they begin, as torch."""
    table, none, starts = np.ones((7, 3)), np.zeros(0, np.int64), np.zeros(2, np.int64)

    def fn(table: Any) -> Any:
        return nn.functional.embedding_bag(none, table, starts, mode=mode)

    for run in (lambda f: f, lambda f: gp.compile(f, backend="numba")):
        np.testing.assert_array_equal(run(fn)(table), np.zeros((2, 3)), strict=True)
        slope = run(gp.grad(lambda t: ops.sum(fn(t) * 2.0)))(table)
        np.testing.assert_array_equal(slope, np.zeros((7, 3)), strict=True)
