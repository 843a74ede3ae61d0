"""The tests' cuBLASLt against loops that follow its documentation letter by letter."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shim_build
from launching import get, put
from numpy.typing import NDArray
from shim_driver import ShimDriver
from shim_products import STORED, MisuseError, ShimProducts
from test_precision_on_shim import rounded
from tolerances import RTOL

from gpubp.backends.cuda.products import Addresses, Matrix, Problem
from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

ROWS, COLUMNS, INNER, BATCHES = 5, 3, 7, 2
KINDS = [("float32", "float32"), ("float64", "float64"), ("tf32", "float32"),
         ("float32", "bfloat16"), ("float32", "float16")]  # fmt: skip


def _problem(compute: str, factor: str, turned: tuple[bool, bool], epilogue: str) -> Problem:
    """Leading dimensions and batch strides with gaps."""
    result = "float64" if compute == "float64" else "float32"
    a = (INNER, ROWS) if turned[0] else (ROWS, INNER)
    b = (COLUMNS, INNER) if turned[1] else (INNER, COLUMNS)

    def matrix(dtype: str, rows: int, columns: int) -> Matrix:
        leading = rows + 3
        return Matrix(dtype, rows, columns, leading, leading * columns + 8, 8)

    matrices = (matrix(factor, *a), matrix(factor, *b), matrix(result, ROWS, COLUMNS))
    return Problem(*matrices, *turned, compute, epilogue, epilogue == "none", BATCHES)


def _memory(matrix: Matrix, rng: Any) -> NDArray[Any]:
    """A batch in memory, gaps included, of numbers that its dtype holds."""
    numbers = rng.normal(size=matrix.batch * BATCHES).astype(np.float32)
    if matrix.dtype == "bfloat16":
        return (rounded(numbers, "bf16").view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(STORED[matrix.dtype])


def _numbers(matrix: Matrix, memory: NDArray[Any], compute: str) -> list[float]:
    """What the memory holds, rounded as the products' factors are."""
    if matrix.dtype == "bfloat16":
        memory = (memory.astype(np.uint32) << 16).view(np.float32)
    return list(map(float, rounded(memory, "tf32") if compute == "tf32" else memory))


def _expected(
    problem: Problem, a: list[float], b: list[float], old: NDArray[Any], bias: Any, scalars: Any
) -> NDArray[Any]:
    """D = alpha op(A) op(B) + beta C, element by element, by columns."""
    out = old.copy()
    alpha, beta = scalars if problem.update else (1.0, 0.0)
    for batch, i, j in itertools.product(range(BATCHES), range(ROWS), range(COLUMNS)):
        total = 0.0
        for p in range(INNER):
            row, column = (p, i) if problem.transpose_a else (i, p)
            x = a[batch * problem.a.batch + column * problem.a.leading + row]
            row, column = (j, p) if problem.transpose_b else (p, j)
            total += x * b[batch * problem.b.batch + column * problem.b.leading + row]
        at = batch * problem.d.batch + j * problem.d.leading + i
        total = alpha * total + (beta * float(old[at]) if problem.update else 0.0)
        if "bias" in problem.epilogue:
            total += float(bias[i])
        out[at] = max(total, 0.0) if "relu" in problem.epilogue else total
    return out


@pytest.mark.parametrize("epilogue", ["none", "relu", "bias", "bias_relu"])
@pytest.mark.parametrize("turned", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize(("compute", "factor"), KINDS)
def test_products_are_what_the_documentation_says(
    compute: str, factor: str, turned: tuple[bool, bool], epilogue: str
) -> None:
    problem = _problem(compute, factor, turned, epilogue)
    driver = ShimDriver()
    products = ShimProducts(driver, plans=2)
    rng = np.random.default_rng(0)
    a, b, old = (_memory(m, rng) for m in (problem.a, problem.b, problem.d))
    bias, scalars = rng.normal(size=ROWS).astype(old.dtype), np.array([-0.3, 0.7], old.dtype)
    held = [put(driver, x) for x in (a, b, old, bias, scalars[:1].copy(), scalars[1:].copy())]
    places = [m.address for m in held]
    at = Addresses(*places[:3], places[3] if "bias" in epilogue else 0,
                   *(places[4:] if problem.update else (0, 0)))  # fmt: skip
    room = driver.allocate(products.workspace)
    factors = [_numbers(m, x, compute) for m, x in ((problem.a, a), (problem.b, b))]
    expected = _expected(problem, *factors, old, bias, scalars.astype(float))
    for plan in products.plans(problem, 5):
        driver.upload(places[2], old)
        products.bound(problem, plan, at, room.address)()
        found = get(driver, held[2], old)
        kind = str(old.dtype)
        np.testing.assert_allclose(found, expected, RTOL[kind], RTOL[kind])


def _fits() -> tuple[ShimDriver, ShimProducts, Problem, Addresses, int, list[Any]]:
    problem = _problem("float32", "float32", (False, True), "bias")
    driver = ShimDriver()
    products = ShimProducts(driver, plans=2)
    sizes = [m.batch * BATCHES * 4 for m in (problem.a, problem.b, problem.d)]
    held = [driver.allocate(n) for n in (*sizes, ROWS * 4, products.workspace)]
    at = Addresses(*[m.address for m in held[:4]])
    return driver, products, problem, at, held[4].address, held


REFUSED: dict[str, Any] = {
    "types": lambda p: replace(p, a=replace(p.a, dtype="bfloat16")),
    "a result of 16 bits": lambda p: replace(p, d=replace(p.d, dtype="bfloat16")),
    "float64 sums of float32": lambda p: replace(p, compute="float64"),
    "sizes": lambda p: replace(p, b=replace(p.b, columns=INNER + 1)),
    "no rows": lambda p: replace(p, a=replace(p.a, rows=0), d=replace(p.d, rows=0)),
    "leading dimension": lambda p: replace(p, a=replace(p.a, leading=ROWS - 1)),
    "overlapping results": lambda p: replace(p, d=replace(p.d, batch=ROWS)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_problems_that_cublaslt_refuses(name: str) -> None:
    _, products, problem, *_ = _fits()
    products.plans(problem, 1)
    with pytest.raises(BackendError, match="INVALID_VALUE"):
        products.plans(REFUSED[name](problem), 1)


def test_launches_that_cublaslt_refuses() -> None:
    _, products, problem, at, workspace, held = _fits()
    small, large = products.plans(problem, 2)
    products.bound(problem, large, at, workspace)()
    with pytest.raises(BackendError, match="INVALID_VALUE"):
        products.bound(problem, replace(large, workspace=1 << 30), at, workspace)
    for place, room in (
        (at, workspace + 16),
        (at, held[0].address),
        (replace(at, a=at.a + 4), workspace),
        (replace(at, bias=at.bias + 4), workspace),
        (replace(at, bias=0), workspace),
        (replace(at, alpha=at.bias, beta=at.bias), workspace),
    ):
        with pytest.raises(MisuseError):
            products.bound(problem, small, place, room)
    outside = products.bound(problem, small, replace(at, d=at.d + 64), workspace)
    with pytest.raises(MisuseError, match="outside of memory"):
        outside()


def test_plans_and_events_are_not_for_recordings() -> None:
    driver, products, problem, at, workspace, _ = _fits()
    plan = products.plans(problem, 1)[0]
    for work in (
        lambda: products.plans(problem, 1),
        lambda: products.bound(problem, plan, at, workspace),
        lambda: products.seconds(lambda: None),
    ):
        with pytest.raises(BackendError, match="while launches are recorded"):
            driver.record(work)  # type: ignore[arg-type]


def test_a_workspace_is_not_kept() -> None:
    driver, products, problem, at, workspace, held = _fits()
    products.bound(problem, products.plans(problem, 2)[1], at, workspace)()
    assert (get(driver, held[4], np.empty(1024, np.uint8)) == 0xFF).all()
