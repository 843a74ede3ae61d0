"""Every op through the CUDA backend's own sources and launches, on the CPU, in every order.

The cases are those of `tests/specs.py`: empty and single elements, odd widths, one below and above
a block, several blocks, special values, strided operands; each against its NumPy reference.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import shim_build
from numpy.typing import NDArray
from rows import EVERY
from shim_backend import shim_backend
from shim_driver import ORDERS
from specs import ROWS, Case, Row, cases, special_cases
from test_conformance import FOLLOWERS, compare
from tolerances import assert_same

import gpubp as gp
from gpubp import ops
from gpubp.core import Kind, bind
from gpubp.runtime.function import compile_function

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

BACKEND = shim_backend()
# The same programs are verified where they run on the CPU backends.
OPTIONS = gp.Options(verify=False)


def in_every_order(op: Any, args: tuple[NDArray[Any], ...]) -> list[NDArray[Any]]:
    """The results of one compiled function; its inputs stay as they are."""
    compiled = gp.compile(op, backend=BACKEND, options=OPTIONS)
    kept = [a.copy() for a in args]
    found = []
    for order in ORDERS:
        BACKEND.driver.order = order
        found.append(compiled(*args))
    for before, after in zip(kept, args, strict=True):
        assert_same(after, before, "an input was changed")
    return found


def agree(case: Case, args: tuple[NDArray[Any], ...], found: list[NDArray[Any]]) -> None:
    """With the reference, and among each other to the bit."""
    compare(case, args, found[0], str(case))
    for order, other in zip(ORDERS, found):
        assert_same(other, found[0], f"{case} in the order {order}")


# Every source takes g++ a while. Elementwise ops differ in one call only: how operands are found is
# tried with these; the others run on arrays of one shape.
FOR_ALL = ("add", "where", "cast")


def _chosen(row: Row) -> bool:
    return row.spec.kind is not Kind.ELEMENTWISE or row.op in FOR_ALL


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_op_equals_its_reference(row: Row) -> None:
    with np.errstate(all="ignore"):
        for case in [*cases(row), *special_cases(row)]:
            if len(set(case.shapes)) > 1 and not _chosen(row):
                continue
            args = case.args()
            op = partial(bind, row.spec, **case.attrs)
            agree(case, args, in_every_order(op, args))


STRIDED = [r for r in ROWS.values() if _chosen(r) and r.spec.kind is not Kind.RANDOM]


@pytest.mark.parametrize("row", STRIDED, ids=lambda row: row.op)
def test_strided_operands_give_what_contiguous_ones_give(row: Row) -> None:
    """Every second element along each axis of larger arrays."""
    for case in cases(row):
        if case.dtype not in (row.dtypes[0], row.dtypes[-1]):
            continue
        args = case.args()
        keys = [(slice(None, None, 2),) * a.ndim for a in args]
        wide = tuple(np.zeros([max(2 * n - 1, n) for n in a.shape], a.dtype) for a in args)
        for spread, key, a in zip(wide, keys, args):
            spread[key] = a

        def op(*wide: Any) -> Any:
            cut = [ops.getitem(w, key) if key else w for w, key in zip(wide, keys)]  # noqa: B023
            return bind(row.spec, *cut, **case.attrs)  # noqa: B023

        agree(case, args, in_every_order(op, wide))


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 511, 512, 513, 70000])
def test_chains_around_the_size_of_a_block(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n)

    def chain(x: Any) -> Any:
        return ops.tanh(x) * x + 0.5

    for found in in_every_order(chain, (x,)):
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


@pytest.mark.parametrize("name", ["sum", "argmax"])
def test_what_follows_a_reduction(name: str) -> None:
    """One program with everything that may follow, beside each other."""
    x = np.random.default_rng(1).integers(-9, 9, (9, 5)).astype(np.float32)

    def all_of_them(x: Any) -> Any:
        return [follow(getattr(ops, name)(x, 1)) for follow in FOLLOWERS]

    expected = gp.compile(all_of_them, backend="numpy")(x)
    for found in in_every_order(all_of_them, (x,)):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same(a, b, f"{name}, follower {i}")


@pytest.mark.parametrize("shape", [(), (1,), (3,)], ids=str)
@pytest.mark.parametrize("dtype", EVERY)
def test_sums_and_scalars_of_every_dtype(dtype: str, shape: Any) -> None:
    x = np.random.default_rng(2).integers(0, 3, shape).astype(dtype)

    def all_of_them(x: Any) -> Any:
        total = ops.sum(x, keepdims=True)
        casts = [ops.astype(v, d) for v in (total, ops.sum(x)) for d in EVERY]
        return [total + ops.sum(x), *casts, *[ops.sum(ops.astype(x, d)) for d in EVERY]]

    expected = gp.compile(all_of_them, backend="numpy")(x)
    for found in in_every_order(all_of_them, (x,)):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same(a, b, f"form {i}")


def test_what_follows_pools_and_their_gradients() -> None:
    """One program with a pool that is kept and used, and gradients of two kinds."""
    x = np.random.default_rng(3).normal(size=(2, 3, 7, 6))

    def all_of_them(x: Any) -> Any:
        def loss(x: Any) -> Any:
            y = ops.relu(x)
            return ops.sum(ops.max_pool2d(y, 3, 2, 1) ** 2) + ops.sum(ops.avg_pool2d(y, 2) ** 2)

        top = ops.max_pool2d(x, 2, 1)
        return [top, ops.relu(top) * 2.0, gp.grad(loss)(x)]

    expected = gp.compile(all_of_them, backend="numpy")(x)
    for found in in_every_order(all_of_them, (x,)):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            np.testing.assert_allclose(a, b, 1e-12, 1e-13, err_msg=f"result {i}")
