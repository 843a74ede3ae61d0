"""Convolutions whose channels are whole cells, by images and filters that are rounded before: for
the tests on the shim and on the emulator.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from conv_rows import Geometry, conv_row, geometry
from specs import Case, cases
from staged_calls import CHECK
from test_precision_on_shim import rounded
from tolerances import assert_sums

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.core import bind, evaluate

# Lines and steps that end within a tile; strides, spread taps, padding that is negative after;
# chunks of images, groups, one to three axes; single elements.
WHOLE = (
    geometry((3, 9, 10, 16), (72, 16, 3, 3), (1, 2), ((1, 1), (2, 0)), chunk=2),
    geometry((2, 50, 24), (40, 24, 4), 3, ((2, -1),), 2),
    geometry((5, 6, 7, 32), (16, 16, 3, 3), padding=2, groups=2, chunk=3),
    geometry((2, 5, 6, 7, 8), (16, 8, 3, 3, 2), (2, 1, 3), 1),
    geometry((3, 5, 7, 24), (40, 24, 1, 1), chunk=2),
    geometry((3, 4, 48), (16, 24, 1), groups=2),
)
# Of four channels a cell of TF32 has all.
FOUR = (
    geometry((2, 7, 6, 12), (20, 12, 3, 3), padding=1),
    geometry((3, 9, 8), (16, 4, 3), groups=2),
)


def calls(op: str, geometries: tuple[Geometry, ...] = WHOLE) -> list[Case]:
    return [case for case in cases(conv_row(op, geometries)) if case.dtype == "float32"]


def compiled(case: Case) -> Callable[[Any], Any]:
    """What `both` runs: the op alone, with something behind it where that may be."""
    args = case.args()
    fn = partial(bind, case.row.spec, **case.attrs)
    return lambda backend: gp.compile(fn, backend=backend, options=CHECK)(*args)


def assert_exact(case: Case, found: Any, precision: str) -> None:
    """Sums of products of the rounded factors."""
    wide = [rounded(a, precision).astype(np.float64) for a in case.args()]
    exact, sizes = (evaluate(case.row.spec, x, case.attrs) for x in (wide, [*map(np.abs, wide)]))
    assert_sums(found, exact, sizes, str(case))


def network(steps: int = 3) -> Callable[[Any], Any]:
    """Steps of a small network: convolutions with strides and groups, and all gradients."""

    def work(backend: Any) -> Any:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(6, 8, 7, 6)).astype("f")
        gp.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, groups=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 16, 1),
        )
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        step: Any = gp.compile_step(
            lambda x: ops.mean(model(x) ** 2), optimizer, backend=backend, options=CHECK
        )
        return np.array([step(x) for _ in range(steps)])

    return work
