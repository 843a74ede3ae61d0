"""Products with every way of walking and copying A and B: the way is taken, the result is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from products import encoded
from tolerances import assert_close, assert_product, assert_same

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu import NumbaBackend, words

Case = tuple[tuple[int, ...], tuple[int, ...], Callable[..., Any], dict[str, bool]]
Pair = tuple[Any, Any]


def _plain(a: Any, b: Any) -> Pair:
    return a, b


def _turned_a(a: Any, b: Any) -> Pair:
    return a.T, b


def _turned_b(a: Any, b: Any) -> Pair:
    return a, b.T


def _turned_both(a: Any, b: Any) -> Pair:
    return a.T, b.T


def _few_columns_of_a(a: Any, b: Any) -> Pair:
    return a[:, :13].T, b


def _strided(a: Any, b: Any) -> Pair:
    return a[1::2, ::3], b[:, 2::3]


def _strided_and_turned(a: Any, b: Any) -> Pair:
    return a[:, ::2].T, b[::3].T


def _ways(code: list[int]) -> dict[str, Any]:
    """What `encode_matmul` decided."""
    return {
        "b": ("in place", "by blocks", "whole")[code[words.MM_PACK]],
        "a": ("in place", "copied")[code[words.MM_PACK_A]],
        "row blocks": code[words.MM_BLOCK] < code[words.MM_M],
        "column blocks": code[words.MM_COLUMNS] < code[words.MM_N],
    }


def _way(b: str, a: str, rows: bool = False, columns: bool = False) -> dict[str, Any]:
    return {"b": b, "a": a, "row blocks": rows, "column blocks": columns}


# Shapes of the arrays that are given, how they become A and B, and what is done.
PRODUCTS: dict[str, Case] = {
    "small": ((9, 20), (20, 100), _plain, _way("in place", "in place")),
    "few columns": ((97, 20), (20, 9), _plain, _way("in place", "in place")),
    "B by blocks": ((41, 20), (20, 100), _plain, _way("by blocks", "in place")),
    "B turned, few rows": ((5, 20), (33, 20), _turned_b, _way("by blocks", "in place")),
    "B turned": ((41, 20), (101, 20), _turned_b, _way("by blocks", "in place")),
    "column blocks": ((37, 512), (512, 201), _plain, _way("by blocks", "in place", columns=True)),
    "column blocks, few rows": (
        (7, 512),
        (512, 201),
        _plain,
        _way("in place", "in place", columns=True),
    ),
    "column blocks, B turned": (
        (7, 512),
        (201, 512),
        _turned_b,
        _way("by blocks", "in place", columns=True),
    ),
    "A turned": ((20, 41), (20, 100), _turned_a, _way("by blocks", "in place")),
    "both turned": ((20, 41), (100, 20), _turned_both, _way("by blocks", "in place")),
    "A copied, B whole": ((65, 2048), (65, 100), _turned_a, _way("whole", "copied", rows=True)),
    "A copied, B turned and whole": (
        (65, 2048),
        (99, 65),
        _turned_both,
        _way("whole", "copied", rows=True),
    ),
    "A copied only": ((64, 1024), (64, 101), _few_columns_of_a, _way("in place", "copied")),
    "A copied, column blocks": (
        (512, 256),
        (512, 201),
        _turned_a,
        _way("by blocks", "copied", columns=True),
    ),
    "A copied, blocks of both": (
        (8192, 140),
        (8192, 65),
        _turned_a,
        _way("by blocks", "copied", rows=True, columns=True),
    ),
    "strided": ((82, 60), (20, 300), _strided, _way("by blocks", "in place")),
    "strided and turned": ((20, 83), (99, 20), _strided_and_turned, _way("by blocks", "in place")),
}
# The same, with a chain behind the product.
CHAINS: dict[str, Case] = {
    "small": ((9, 20), (20, 100), _plain, _way("in place", "in place")),
    "B whole": ((197, 20), (20, 101), _plain, _way("whole", "in place", rows=True)),
    "B turned and whole": ((197, 20), (101, 20), _turned_b, _way("whole", "in place", rows=True)),
    "few columns": ((1000, 7), (7, 9), _plain, _way("in place", "in place", rows=True)),
    "B does not fit": (
        (300, 512),
        (512, 201),
        _plain,
        _way("whole", "in place", rows=True, columns=True),
    ),
    "B turned, does not fit": (
        (300, 512),
        (201, 512),
        _turned_b,
        _way("whole", "in place", rows=True, columns=True),
    ),
    "A copied": ((65, 1024), (65, 100), _turned_a, _way("whole", "copied", rows=True)),
    "A copied, B does not fit": (
        (512, 512),
        (512, 201),
        _turned_a,
        _way("whole", "copied", rows=True, columns=True),
    ),
}


def _data(case: Case, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(dtype) for shape in case[:2])
    return a, b


def _assert_exact(found: np.ndarray, a: np.ndarray, b: np.ndarray, what: str) -> None:
    """All of a small product; every row and every column of a large one, each at some places."""
    m, n = found.shape
    a, b = np.ascontiguousarray(a), np.asfortranarray(b)  # so that the exact product walks straight
    if m * n * a.shape[1] <= 500_000:
        assert_product(found, a, b, what)
        return
    rng = np.random.default_rng(1)
    rows, columns = (rng.choice(size, min(size, 8), replace=False) for size in (m, n))
    assert_product(found[rows], a[rows], b, f"{what}, rows {rows}")
    assert_product(found[:, columns], a, b[:, columns], f"{what}, columns {columns}")


def _run(fn: Callable[..., Any], workers: int, *data: Any) -> tuple[Any, list[list[int]]]:
    """Not verified, because that takes long on operands of many megabytes."""
    options = gp.Options(verify=False)
    loaded = gp.compile(fn, backend=NumbaBackend(workers=workers), options=options)
    return loaded(*data), encoded(loaded._runner.last.program)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_take_the_expected_copies_and_are_exact(name: str) -> None:
    case = PRODUCTS[name]
    view, way = case[2:]
    a, b = _data(case, "float32")
    found, codes = _run(lambda a, b: ops.matmul(*view(a, b)), 1, a, b)
    assert [_ways(c) for c in codes] == [way]
    _assert_exact(found, *view(a, b), name)
    assert_same(_run(lambda a, b: ops.matmul(*view(a, b)), 3, a, b)[0], found, "3 workers")


@pytest.mark.parametrize("name", [n for n, case in PRODUCTS.items() if case[0][0] < 8000])
def test_products_of_double_precision(name: str) -> None:
    case = PRODUCTS[name]
    a, b = _data(case, "float64")
    found, _ = _run(lambda a, b: ops.matmul(*case[2](a, b)), 1, a, b)
    _assert_exact(found, *case[2](a, b), name)
    assert_same(_run(lambda a, b: ops.matmul(*case[2](a, b)), 3, a, b)[0], found, "3 workers")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CHAINS)
def test_products_in_scratch_before_a_chain(name: str, dtype: str) -> None:
    case = CHAINS[name]
    view, way = case[2:]
    a, b = _data(case, dtype)

    def fn(a: Any, b: Any) -> Any:
        return -ops.matmul(*view(a, b))

    found, [code] = _run(fn, 1, a, b)
    assert code[words.MM_C_SCRATCH] == 1
    assert code[words.MM_CHAIN] > 0
    assert dtype == "float64" or _ways(code) == way
    _assert_exact(-found, *view(a, b), name)
    assert_same(_run(fn, 3, a, b)[0], found, "3 workers")


@pytest.mark.parametrize("name", CHAINS)
def test_products_that_are_kept_before_a_chain(name: str) -> None:
    case = CHAINS[name]
    view, way = case[2:]
    a, b = _data(case, "float32")

    def fn(a: Any, b: Any) -> Any:
        product = ops.matmul(*view(a, b))
        return product, ops.maximum(product, 0.25)

    (product, larger), [code] = _run(fn, 1, a, b)
    assert code[words.MM_C_SCRATCH] == 0
    assert code[words.MM_CHAIN] > 0
    assert _ways(code) == way
    _assert_exact(product, *view(a, b), name)
    assert_same(larger, np.maximum(product, np.float32(0.25)), name)
    for value, alone in zip(_run(fn, 3, a, b)[0], (product, larger), strict=True):
        assert_same(value, alone, "3 workers")


@pytest.mark.parametrize("name", ["A copied, B whole", "column blocks", "A copied only"])
def test_epilogues_after_copies(name: str) -> None:
    case = PRODUCTS[name]
    view, way = case[2:]
    a, b = _data(case, "float32")
    row = np.arange(view(a, b)[1].shape[1], dtype=np.float32)

    def fn(a: Any, b: Any, row: Any) -> Any:
        return ops.relu(ops.matmul(*view(a, b)) + row)

    found, [code] = _run(fn, 1, a, b, row)
    assert code[words.MM_EPILOGUE] == words.EPILOGUES.index("bias_relu")
    assert _ways(code) == way
    product, _ = _run(lambda a, b: ops.matmul(*view(a, b)), 1, a, b)
    assert_close(found, np.maximum(product + row, np.float32(0)))
    assert_same(_run(fn, 3, a, b, row)[0], found, "3 workers")
