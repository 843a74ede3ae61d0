"""The CUDA backend reads every view: the chains of `view_chains.py`, and what a grid can number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from shim_backend import shim_backend
from test_view_chains import ways
from tolerances import assert_close, assert_product
from view_chains import READERS, program

import gpubp as gp
from gpubp.backends.cuda.codegen import tiles

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

BACKEND = shim_backend("random")
EACH = 3  # seeds of each reader: g++ takes a while over every source


@pytest.mark.parametrize("reader", range(len(READERS)), ids=lambda i: READERS[i].__name__[1:])
def test_every_view_is_read(reader: int) -> None:
    for i in range(EACH):
        ways(program(reader + i * len(READERS)), BACKEND)


@pytest.mark.parametrize("shape", [(3, 5, 700), (40, 3, 97), (1, 9, 1000)])
def test_more_columns_than_a_grid_can_number(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks walk on; the limit is lowered here, as few machines hold 2^21 columns in a test."""
    monkeypatch.setattr(tiles, "MAX_GRID", 2)
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
    found = gp.compile(lambda a, b: (a @ b) * 2.0, backend=shim_backend("random"))(a, b)
    assert_product(found / 2.0, a, b)
    stacked = np.stack([a, -a, 2.0 * a])
    found = gp.compile(lambda a, b: a @ b, backend=shim_backend("reverse"))(stacked, b)
    for one, product in zip(stacked, found, strict=True):
        assert_product(product, one, b)


def test_hundreds_of_operands() -> None:
    """More than one kernel's parameters can name; some are strided."""
    xs = [np.random.default_rng(i).normal(size=(2, 3)) for i in range(180)]

    def fn(*xs: Any) -> Any:
        total = xs[0]
        for i, x in enumerate(xs[1:]):
            total = total * 0.5 + (x[::-1] if i % 2 else x)
        return total

    assert_close(gp.compile(fn, backend=BACKEND)(*xs), fn(*xs))
