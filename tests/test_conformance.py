"""Every op, compiled, on every backend, against its NumPy reference.

Each case runs as a program of its own: on contiguous arguments, on strided views made inside the
program, and, on the CPU backend, with one and with three workers, which must agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from specs import ROWS, Case, Row, cases, special_cases
from tolerances import assert_close, assert_product, assert_same

import gpubp as gp
from gpubp import ops
from gpubp.backends import get_backend
from gpubp.backends.base import Backend
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.core import Kind, bind, evaluate

BACKENDS = {"numpy": lambda: get_backend("numpy"), "numba": lambda: NumbaBackend(workers=1)}
THREE = NumbaBackend(workers=3)
VERIFIED = gp.Options(verify=True)


def run_case(case: Case, args: Sequence[NDArray[Any]], backend: Backend) -> NDArray[Any]:
    """The op alone, compiled for the backend."""

    def op(*traced: Any) -> Any:
        return bind(case.row.spec, *traced, **case.attrs)

    out: NDArray[Any] = gp.compile(op, backend=backend, options=VERIFIED)(*args)
    return out


def run_strided(case: Case, args: Sequence[NDArray[Any]], backend: Backend) -> NDArray[Any]:
    """The op on every second element along each axis of larger arrays."""

    def op(*wide: Any) -> Any:
        cut = [ops.getitem(w, (slice(None, None, 2),) * w.ndim) if w.ndim else w for w in wide]
        return bind(case.row.spec, *cut, **case.attrs)

    wide = []
    for a in args:
        spread = np.zeros(tuple(max(2 * n - 1, n) for n in a.shape), a.dtype)
        spread[(slice(None, None, 2),) * a.ndim] = a
        wide.append(spread)
    out: NDArray[Any] = gp.compile(op, backend=backend, options=VERIFIED)(*wide)
    return out


def compare(case: Case, args: Sequence[NDArray[Any]], actual: NDArray[Any], what: str) -> None:
    """Against the op's reference; a float32 product against the exact one."""
    expected = evaluate(case.row.spec, args, case.attrs)
    if case.row.op == "matmul" and actual.dtype == np.float32:
        assert actual.dtype == expected.dtype
        assert_product(actual, *args, what)
    else:
        (assert_same if case.row.exact else assert_close)(actual, expected, what)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_op_equals_its_reference(row: Row, backend: str) -> None:
    target = BACKENDS[backend]()
    with np.errstate(all="ignore"):
        for case in [*cases(row), *special_cases(row)]:
            args = case.args()
            kept = [a.copy() for a in args]
            compare(case, args, run_case(case, args, target), str(case))
            for before, after in zip(kept, args, strict=True):
                assert_same(after, before, f"{case} changed its input")


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_worker_counts_agree_bit_for_bit(row: Row) -> None:
    one = NumbaBackend(workers=1)
    for case in cases(row):
        args = case.args()
        assert_same(run_case(case, args, THREE), run_case(case, args, one), str(case))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_strided_operands(row: Row, backend: str) -> None:
    if row.spec.kind is Kind.RANDOM:
        return  # its one input is a generator's state, read as a whole
    target = BACKENDS[backend]()
    for case in cases(row):
        args = case.args()
        compare(case, args, run_strided(case, args, target), f"strided {case}")
