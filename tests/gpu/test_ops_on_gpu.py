"""Every op on a GPU against its NumPy reference: the conformance harness, and products by plan."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from conv_rows import OPS, conv_row, geometry
from specs import ROWS, Row, cases, special_cases
from test_conformance import compare, run_case, run_strided
from tolerances import assert_same

import gpubp as gp
from gpubp.backends.cuda import PRECISIONS, CupyBackend
from gpubp.backends.cuda.codegen import staged
from gpubp.core import Kind, bind

LOW = tuple(p for p in PRECISIONS if p != "float32")


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_op_equals_its_reference(row: Row, backend: CupyBackend) -> None:
    with np.errstate(all="ignore"):
        for case in [*cases(row), *special_cases(row)]:
            args = case.args()
            kept = [a.copy() for a in args]
            compare(case, args, run_case(case, args, backend), str(case))
            for before, after in zip(kept, args, strict=True):
                assert_same(after, before, f"{case} changed its input")


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_strided_operands_give_what_contiguous_ones_give(row: Row, backend: CupyBackend) -> None:
    if row.spec.kind is Kind.RANDOM:
        return  # its one input is a generator's state, read as a whole
    for case in cases(row):
        args = case.args()
        compare(case, args, run_strided(case, args, backend), f"strided {case}")


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16", "float16"])
def test_products_of_each_precision_are_exact_on_few_bits(
    precision: str, layout: str, backend: CupyBackend
) -> None:
    """Sizes that take every tile and every way to cut k. Factors are integers of few bits, and all
    sums stay below 2^24: so products are exact in any order and any precision.
    """
    target = CupyBackend(precision=precision)

    def product(a: Any, b: Any) -> Any:
        return (a.T if layout[0] == "t" else a) @ (b.T if layout[1] == "t" else b)

    compiled = gp.compile(product, backend=target)
    rng = np.random.default_rng(0)
    sizes = [(1, 1, 1), (17, 9, 33), (64, 64, 64), (65, 130, 31), (129, 70, 600), (2048, 2000, 77)]
    for m, n, k in [*sizes, (64, 64, 100_000), (4096, 4096, 1024), (3, 5, 0)]:
        most = min(32, math.isqrt((1 << 24) // max(k, 1)))
        a, b = (rng.integers(-most, most + 1, s).astype(np.float32) for s in ((m, k), (k, n)))
        given = (a.T.copy() if layout[0] == "t" else a, b.T.copy() if layout[1] == "t" else b)
        expected = a.astype(np.float64) @ b.astype(np.float64)  # exact, and fast
        assert_same(compiled(*given), expected.astype(np.float32), f"{(m, n, k)}")


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
@pytest.mark.parametrize("precision", LOW)
def test_products_of_factors_that_were_rounded_before(
    precision: str, layout: str, backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits of those that round in each tile, on sizes that are left to our own kernels."""

    def product(a: Any, b: Any) -> Any:
        return (a.T if layout[0] == "t" else a) @ (b.T if layout[1] == "t" else b)

    rng = np.random.default_rng(0)
    for m, n, k in ((64, 64, 32), (136, 72, 104), (24, 40, 600), (200, 256, 256)):
        given = [rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n))]
        given = [x.T.copy() if way == "t" else x for x, way in zip(given, layout)]
        found = []
        for least in (-math.inf, math.inf):
            monkeypatch.setattr(staged, "LEAST_SAVED", least)
            found.append(gp.compile(product, backend=CupyBackend(precision=precision))(*given))
        assert_same(*found, f"{(m, n, k)}")


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("op", OPS)
def test_convolutions_of_images_that_were_rounded_before(
    precision: str, op: str, backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits of those that round in each tile: strides, groups, padding, single elements."""
    shapes = (
        geometry((3, 9, 10, 16), (72, 16, 3, 3), (1, 2), ((1, 1), (2, 0)), chunk=2),
        geometry((5, 16, 17, 64), (128, 32, 3, 3), padding=2, groups=2, chunk=3),
        geometry((3, 5, 7, 24), (40, 24, 1, 1), chunk=2),
    )
    for case in cases(conv_row(op, shapes)):
        if case.dtype != "float32":
            continue
        fn, args, found = partial(bind, case.row.spec, **case.attrs), case.args(), []
        for least in (-math.inf, math.inf):
            monkeypatch.setattr(staged, "LEAST_SAVED", least)
            found.append(gp.compile(fn, backend=CupyBackend(precision=precision))(*args))
        assert_same(*found, str(case))
