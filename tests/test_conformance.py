"""Every op, compiled, on every backend, against its NumPy reference.

Each case runs as a program of its own: on contiguous arguments, on strided views made inside the
program, and, on the CPU backend, with one and with three workers, which must agree bit for bit.
All shapes with all dtypes are tried as they are, on compiled kernels; views and workers with some
of them, and with all by `pytest -m full`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from registered import MAKERS
from rows import EVERY, number
from specs import ROWS, Case, Row, cases, covering_cases, special_cases
from tolerances import assert_close, assert_same, assert_sums

import gpubp as gp
from gpubp import ops
from gpubp.backends.base import Backend
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.core import Kind, bind, evaluate
from gpubp.errors import DTypeError

BACKENDS = MAKERS
THREE = NumbaBackend(workers=3)
Choice = Callable[[Row], Iterable[Case]]
SOME_OR_ALL = [
    pytest.param(covering_cases, id="some"),
    pytest.param(cases, id="all", marks=pytest.mark.full),
]
# The `numpy` backend runs the references themselves.
TRIED = [pytest.param(name, cases, id=name) for name in BACKENDS if name != "numpy"] + [
    pytest.param("numpy", covering_cases, id="numpy-some"),
    pytest.param("numpy", cases, id="numpy-all", marks=pytest.mark.full),
]
VERIFIED, UNFUSED = gp.Options(verify=True), gp.Options(fuse=False, verify=False)


def run_case(case: Case, args: Sequence[NDArray[Any]], backend: Backend) -> NDArray[Any]:
    """The op alone, compiled for the backend."""
    spec, attrs = case.row.spec, case.attrs  # a trace follows what the function's code can reach

    def op(*traced: Any) -> Any:
        return bind(spec, *traced, **attrs)

    out: NDArray[Any] = gp.compile(op, backend=backend, options=VERIFIED)(*args)
    return out


def run_strided(case: Case, args: Sequence[NDArray[Any]], backend: Backend) -> NDArray[Any]:
    """The op on every second element along each axis of larger arrays."""
    spec, attrs = case.row.spec, case.attrs

    def op(*wide: Any) -> Any:
        cut = [ops.getitem(w, (slice(None, None, 2),) * w.ndim) if w.ndim else w for w in wide]
        return bind(spec, *cut, **attrs)

    wide = []
    for a in args:
        spread = np.zeros(tuple(max(2 * n - 1, n) for n in a.shape), a.dtype)
        spread[(slice(None, None, 2),) * a.ndim] = a
        wide.append(spread)
    out: NDArray[Any] = gp.compile(op, backend=backend, options=VERIFIED)(*wide)
    return out


def compare(case: Case, args: Sequence[NDArray[Any]], actual: NDArray[Any], what: str) -> None:
    """Against the op's reference; products in float32 against the exact ones."""
    expected = evaluate(case.row.spec, args, case.attrs)
    if case.row.spec.kind in (Kind.MATMUL, Kind.CONV) and actual.dtype == np.float32:
        assert actual.dtype == expected.dtype
        wide = [np.asarray(a, np.float64) for a in args]
        exact, sizes = (
            evaluate(case.row.spec, x, case.attrs) for x in (wide, [*map(np.abs, wide)])
        )
        assert_sums(actual, exact, sizes, what)
    else:
        (assert_same if case.row.exact else assert_close)(actual, expected, what)


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_a_row_has_every_dtype_that_its_op_takes(row: Row) -> None:
    """What users may compute is tried here, on every backend."""
    if row.spec.kind not in (Kind.ELEMENTWISE, Kind.REDUCE, Kind.VIEW):
        return  # for others `make` gives arguments of several dtypes
    shapes = next(s for s in row.shapes if all(0 not in shape for shape in s) and s[0])
    for dtype in set(EVERY) - set(row.dtypes):
        args = row.make(np.random.default_rng(0), shapes, np.dtype(dtype))
        with pytest.raises(DTypeError):
            row.spec.infer(*args, **row.attrs(shapes)[0])


@pytest.mark.parametrize(("backend", "choose"), TRIED)
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_op_equals_its_reference(row: Row, backend: str, choose: Choice) -> None:
    target = BACKENDS[backend]()
    with np.errstate(all="ignore"):
        for case in [*choose(row), *special_cases(row)]:
            args = case.args()
            kept = [a.copy() for a in args]
            compare(case, args, run_case(case, args, target), str(case))
            for before, after in zip(kept, args, strict=True):
                assert_same(after, before, f"{case} changed its input")


@pytest.mark.parametrize("choose", SOME_OR_ALL)
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_worker_counts_agree_bit_for_bit(row: Row, choose: Choice) -> None:
    one = NumbaBackend(workers=1)
    for case in choose(row):
        args = case.args()
        assert_same(run_case(case, args, THREE), run_case(case, args, one), str(case))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
@pytest.mark.parametrize("choose", SOME_OR_ALL)
def test_strided_operands_give_what_contiguous_ones_give(
    row: Row, choose: Choice, backend: str
) -> None:
    if row.spec.kind is Kind.RANDOM:
        return  # its one input is a generator's state, read as a whole
    target = BACKENDS[backend]()
    for case in choose(row):
        args = case.args()
        compare(case, args, run_strided(case, args, target), f"strided {case}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)], ids=str)
def test_sums_and_scalars_of_every_dtype(shape: Any, dtype: str, backend: str) -> None:
    """A sum of all, what follows it, and what it is converted to."""
    kind = np.dtype("bool" if dtype == "bool" else "int64")  # whose sums are exact
    x = number(np.random.default_rng(0), shape, kind).astype(dtype)
    forms: list[Any] = [
        lambda x: ops.sum(x),
        lambda x: ops.sum(x, keepdims=True) + ops.sum(x),
        lambda x: ops.sum(ops.copy(x)) * 2,
        lambda x: ops.where(ops.greater(ops.sum(x), 0), 1, ops.sum(x)),
        *[lambda x, d=d: ops.astype(ops.sum(x), d) for d in EVERY],
        *[lambda x, d=d: ops.sum(ops.astype(x, d)) for d in EVERY],
    ]
    target = BACKENDS[backend]()
    for i, form in enumerate(forms):
        expected = gp.compile(form, backend="numpy", options=UNFUSED)(x)
        assert_same(gp.compile(form, backend=target)(x), expected, f"form {i}")


# What follows a reduction, whose result may be of another type than its input.
FOLLOWERS: list[Any] = [
    lambda y: y * 0.5,
    lambda y: y + 1,
    lambda y: ops.greater(y, 1),
    lambda y: ops.where(ops.equal(y, 2), 1.5, y),
    *[lambda y, d=d: ops.astype(y, d) for d in EVERY],
    lambda y: ops.astype(y, "float64") * ops.astype(y, "float32"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("name", ["sum", "max", "min", "argmax", "argmin"])
def test_what_follows_a_reduction(name: str, dtype: str, backend: str) -> None:
    x = number(np.random.default_rng(1), (9, 5), np.dtype("int64")).astype(dtype)
    target = BACKENDS[backend]()
    for i, follow in enumerate(FOLLOWERS):
        for axis in (0, 1):

            def reduced(x: Any) -> Any:
                y = getattr(ops, name)(x, axis)  # noqa: B023
                return y, follow(y)  # noqa: B023

            def alone(x: Any) -> Any:
                return follow(getattr(ops, name)(x, axis))  # noqa: B023

            for fn in (reduced, alone):
                expected = gp.compile(fn, backend="numpy", options=UNFUSED)(x)
                found = gp.compile(fn, backend=target)(x)
                pairs = zip(found, expected) if fn is reduced else [(found, expected)]
                for a, b in pairs:
                    assert_same(a, b, f"{name} over {axis}, follower {i}")
