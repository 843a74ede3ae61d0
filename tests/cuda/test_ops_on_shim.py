"""Every op through the CUDA backend's own sources and launches, on the CPU, in every order.

The cases are those of `tests/specs.py`: empty and single elements, odd widths, one below and above
a block, several blocks, special values, strided operands; each against its NumPy reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from shim_backend import shim_backend
from shim_driver import ORDERS
from specs import ROWS, Row, cases, special_cases
from test_conformance import compare, run_case, run_strided
from tolerances import assert_same

from gpubp import ops
from gpubp.core import Kind
from gpubp.function import compile_function

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

BACKENDS = {order: shim_backend(order) for order in ORDERS}


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_op_equals_its_reference(row: Row) -> None:
    with np.errstate(all="ignore"):
        for case in [*cases(row), *special_cases(row)]:
            args = case.args()
            kept = [a.copy() for a in args]
            found = [run_case(case, args, backend) for backend in BACKENDS.values()]
            compare(case, args, found[0], str(case))
            for order, other in zip(ORDERS, found):
                assert_same(other, found[0], f"{case} in the order {order}")
            for before, after in zip(kept, args, strict=True):
                assert_same(after, before, f"{case} changed its input")


@pytest.mark.parametrize("row", [r for r in ROWS.values() if r.spec.kind is not Kind.RANDOM],
                         ids=lambda row: row.op)  # fmt: skip
def test_strided_operands(row: Row) -> None:
    for case in cases(row):
        args = case.args()
        compare(case, args, run_strided(case, args, BACKENDS["random"]), f"strided {case}")


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 511, 512, 513, 70000])
def test_chains_around_the_size_of_a_block(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n)

    def chain(x: Any) -> Any:
        return ops.tanh(x) * x + 0.5

    for backend in BACKENDS.values():
        found = compile_function(chain, backend=backend)(x)
        np.testing.assert_allclose(found, np.tanh(x) * x + 0.5, rtol=1e-13)


@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((5000,), None),
        ((4097, 3), 0),
        ((3, 20000), 1),
        ((2, 4100, 5), 1),
        ((300, 70), 0),
        ((300, 70), 1),
        ((9, 1), 1),
        ((1, 9), 0),
        ((33, 7), 1),
        ((2, 7, 33), 1),
    ],
)
@pytest.mark.parametrize("name", ["sum", "max", "argmin"])
def test_reductions_of_every_plan(name: str, shape: Any, axis: Any, processors: int) -> None:
    """Short and long axes, along memory and across, cut into pieces where there are processors."""
    x = np.random.default_rng(0).normal(size=shape)
    for order in ORDERS:
        backend = shim_backend(order, processors=processors)
        found = compile_function(lambda x: getattr(ops, name)(x, axis), backend=backend)(x)
        np.testing.assert_allclose(found, getattr(np, name)(x, axis), rtol=1e-11, atol=1e-12)
