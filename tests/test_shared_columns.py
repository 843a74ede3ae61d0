"""Products shared by columns, and batches that are read in place: the same bits as without."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from classifier import SAMPLES, UNEVEN, digits, prepared, trained
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend, encode
from gpubp.backends.numba_cpu.indexed_operands import find_indexed_operands
from gpubp.backends.numba_cpu.kernels.sharing import share
from gpubp.compiler.parts import FINE, WHOLE_LINES, Part
from gpubp.compiler.shares import WHOLE, equal_bounds, share_of

WIDTHS = (136, 64, 48)  # before the ten classes


class ByRows(NumbaBackend):
    """Shares nothing by columns."""

    def splits_columns(self, part: Part, why: str) -> bool:
        return False


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("activation", "rule"),
    [
        (nn.ReLU, "sgd"),
        (nn.Sigmoid, "momentum"),
        (nn.Tanh, "adam"),
        (nn.GELU, "adam"),
        (nn.ELU, "adam"),  # no tile does it: rows are shared
        (nn.ReLU, "clipped"),
    ],
)
def test_columns_and_rows_give_the_same_bits(activation: Any, rule: str, dtype: str) -> None:
    wanted = trained(ByRows(workers=1), WIDTHS, activation, rule, dtype)
    assert wanted["losses"][-1] < wanted["losses"][0]
    for workers in (1, 2, 3):
        found = trained(NumbaBackend(workers=workers), WIDTHS, activation, rule, dtype)
        for name in wanted:
            assert_same(found[name], wanted[name], f"{workers} workers: {name}")


def test_the_first_layer_is_shared_by_columns() -> None:
    step, program = prepared(NumbaBackend(workers=2), WIDTHS)
    shared = sorted((p.name, p.rows) for p in program.parts if p.shared == "columns")
    few_rows = ("matmul+ema+ema_square+adam_update", 48)
    assert shared == [("matmul+add+relu", 64), few_rows, ("matmul+relu_grad", 64)]
    names = [p.name for p in program.parts]
    before = names.index("matmul+relu_grad", names.index("matmul+relu_grad") + 1)
    syncs = [i.sync for i in program.instructions for _ in i.parts]
    assert program.parts[before].shared == "columns"
    assert not syncs[before + 1]  # the update reads what its own worker has just made
    assert "64 columns" in step.report()
    assert "columns" not in str(prepared(ByRows(workers=2), WIDTHS)[1])


@pytest.mark.parametrize("columns", [64, 80, 96, 112])
def test_copies_of_all_columns_stay_in_their_scratch(columns: int) -> None:
    """A transposed A is copied block by block, beside a copy of a worker's columns of B."""
    x = np.random.default_rng(1).normal(size=(256, 256)).astype(np.float32)
    start = np.random.default_rng(2).normal(size=(columns, 256)).astype(np.float32)
    for workers in (1, 2, 3, 5):
        weight = nn.Buffer(start.copy())

        def product(x: Any, weight: Any = weight) -> Any:
            made = ops.matmul(ops.transpose(x), ops.transpose(weight))
            ops.assign(weight, weight * 1.0)
            return made

        compiled = gp.compile(product, backend=NumbaBackend(workers=workers))
        found = compiled(x)
        if workers == 1:
            wanted = found
            np.testing.assert_allclose(found, x.T @ start.T, rtol=1e-3, atol=1e-3)
            assert f"{columns} columns" in compiled.report()
        assert_same(found, wanted, f"{workers} workers")


@pytest.mark.parametrize("grain", [WHOLE_LINES, FINE])
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8, 16])
def test_shares_cover_all_rows(workers: int, grain: int) -> None:
    generator = np.random.default_rng(workers)
    for rows in [*range(1, 70), 96, 100, 128, 200, 205, 380, 512, 1000, 2048]:
        for uneven in (False, True):
            bounds = equal_bounds(workers)
            if uneven:
                bounds[1:-1] = sorted(generator.integers(1, WHOLE, workers - 1).tolist())
            edges = [share_of(rows, w, bounds, grain) for w in range(workers)]
            rule = [share.python(rows, grain, *bounds[w : w + 2], workers) for w in range(workers)]
            assert rule == edges
            assert edges[0][0] == 0
            assert edges[-1][1] == rows
            assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
            if rows >= 32 * workers:
                assert all(a % grain == 0 for a, _ in edges)
            for (start, stop), low, high in zip(edges, bounds, bounds[1:]):
                assert abs(stop - start - rows * (high - low) / WHOLE) <= 1.5 * grain


def _reads(forward: Callable[[Any, Any], Any], dtype: str = "float32") -> tuple[Any, Any]:
    """A step of a model of one's own over a weight of 40 x 136 (as nn.Linear stores it)."""
    gp.manual_seed(5)
    layer = nn.Linear(136, 40, dtype=dtype)
    step = gp.compile_step(
        lambda x: ops.mean(forward(layer, x) ** 2),
        optim.SGD(layer.parameters(), lr=0.01),
        backend=NumbaBackend(workers=3),
    )
    return step, layer


READERS: dict[str, tuple[Callable[[Any, Any], Any], bool]] = {
    "a product": (lambda layer, x: layer(x), True),
    "some columns": (
        lambda layer, x: ops.matmul(x[:, 20:60], ops.transpose(layer.weight[:, :40])) + layer.bias,
        True),
    "a transpose": (lambda layer, x: layer(x) + ops.matmul(x[:, :40], layer.weight[:, :40]), False),
    "some rows": (lambda layer, x: layer(x[1:]), False),
    "every other column": (
        lambda layer, x: ops.matmul(x[:, ::2], ops.transpose(layer.weight[:, ::2])) + layer.bias,
        False),
    "noise": (lambda layer, x: layer(x * 2.0), False),
    "a product and the rest": (lambda layer, x: layer(x) + x[:, :40], False),
    "its own square": (lambda layer, x: ops.matmul(x, ops.transpose(x)) @ layer(x), False),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", READERS)
def test_batches_are_read_in_place_where_they_can_be(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are named by an index order with repeats; the last batch is a short one."""
    forward, in_place = READERS[name]
    order = np.random.default_rng(2).integers(0, SAMPLES, (2, SAMPLES))
    found = _run(forward, dtype, order)
    assert bool(find_indexed_operands(found[0].program, 100, 200)) == in_place
    monkeypatch.setattr(encode, "find_indexed_operands", lambda *_: {})
    wanted = _run(forward, dtype, order)
    assert_same(found[1], wanted[1])
    for key, value in wanted[2].items():
        assert_same(found[2][key], value, key)


def _run(forward: Callable[[Any, Any], Any], dtype: str, order: np.ndarray) -> tuple[Any, ...]:
    step, layer = _reads(forward, dtype)
    losses = step.run(
        digits(dtype, SAMPLES, WIDTHS[0])[0], batch_size=UNEVEN, epochs=2, order=order
    )
    assert np.isfinite(losses).all()
    return step, losses, layer.state_dict()
