"""Integers are exact on every backend: as arrays, as scalars, beside each other and in reductions.

int32 and int64 wrap around as NumPy's do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shim_build
from numpy.typing import NDArray
from registered import MAKERS
from shim_backend import shim_backend
from tolerances import assert_same

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu import NumbaBackend

BACKENDS: dict[str, Callable[[], Any]] = {
    **MAKERS,
    "three workers": lambda: NumbaBackend(workers=3),
    "cuda": shim_backend,
}
ON_ALL = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                name == "cuda" and bool(shim_build.MISSING), reason=str(shim_build.MISSING)
            ),
        )
        for name in BACKENDS
    ],
)

NANOSECONDS = 1_700_000_000_123_456_789
PAIRS = {
    "int64": [
        (NANOSECONDS + 210, NANOSECONDS),
        (2**53 + 1, 2**53),
        (-(2**53) - 1, -(2**53)),
        (2**63 - 1, 1),
        (-(2**63), 1),
        (-(2**63), -1),
        (3_037_000_500, 3_037_000_500),
        (0, -7),
    ],
    "int32": [
        (2**31 - 1, 1),
        (-(2**31), 1),
        (-(2**31), -1),
        (16_777_217, 16_777_216),
        (46_341, 46_341),
        (0, -7),
    ],
}


def arithmetic(a: Any, b: Any) -> list[Any]:
    """Every op on integers, and values that other ops of the same group read."""
    return [
        a + b,
        a - b,
        a * b,
        -a,
        ops.abs(a),
        ops.sign(a),
        ops.square(a),
        ops.maximum(a, b),
        ops.minimum(a, b),
        ops.where(ops.less(a, b), a, b),
        ops.copy(a),
        (a + b) - b,
        ops.square(a - b) + 1,
        ops.abs(-a - b) - 1,
    ]


def questions(a: Any, b: Any) -> list[Any]:
    """Comparisons, also of sums that wrap, and what becomes of them."""
    return [
        ops.equal(a, a + 1),
        ops.not_equal(a, a + 1),
        ops.greater(a + b, a),
        ops.greater_equal(a * b, b),
        ops.less(a - b, a),
        ops.less_equal(ops.square(a), a),
        ops.logical_and(ops.less(a, b), ops.not_equal(a, 0)),
        ops.logical_not(ops.equal(a - 1, b)),
    ]


def conversions(a: Any, b: Any) -> list[Any]:
    """From integers to every dtype; to float32 with one rounding."""
    return [
        *[ops.astype(a, name) for name in ("bool", "int32", "int64", "float32", "float64")],
        ops.astype(ops.astype(a - b, "float64"), "int64"),
        ops.astype(a, "float64") * 0.5 + ops.astype(ops.equal(a, b), "float64"),
        ops.astype(ops.astype(ops.less(b, a), "int32"), "float32"),
    ]


def _expected(fn: Any, a: Any, b: Any) -> list[NDArray[Any]]:
    with np.errstate(all="ignore"):
        return [np.asarray(x) for x in fn(a, b)]


@ON_ALL
@pytest.mark.parametrize("dtype", PAIRS)
@pytest.mark.parametrize("fn", [arithmetic, questions, conversions])
def test_scalars_are_what_arrays_are(fn: Any, dtype: str, backend: str) -> None:
    target = BACKENDS[backend]()
    compiled = gp.compile(fn, backend=target)
    a, b = (np.array([p[i] for p in PAIRS[dtype]], dtype) for i in (0, 1))
    wanted = _expected(fn, a, b)
    for found, exact in zip(compiled(a, b), wanted, strict=True):
        assert_same(found, exact, f"{fn.__name__} of arrays")
    for i in range(len(a)):
        for found, exact in zip(compiled(a[i], b[i]), wanted, strict=True):
            assert_same(np.asarray(found), np.asarray(exact[i]), f"{fn.__name__} of {a[i]}, {b[i]}")


@ON_ALL
def test_scalars_meet_arrays_and_reductions(backend: str) -> None:
    x = np.array([[5, -3, 2**62], [2**53 + 1, 7, -(2**62)]], np.int64)

    def fn(x: Any, t: Any) -> list[Any]:
        step = t - NANOSECONDS  # a scalar group, read by arrays
        largest = ops.max(x)
        return [
            x + step,
            ops.where(ops.equal(step, 211), x, 0),
            ops.sum(x) + step,
            ops.sum(x - step, 1),
            ops.sum(x * step, 0),
            ops.max(x, 1) - step,
            ops.min(x, 0) * step,
            ops.argmax(x + step, 1),
            ops.argmin(x, 0),
            largest - (largest - 1),
            ops.equal(x, largest - 1 + step - 210),
            ops.sum(ops.greater(x, step)),
        ]

    t = np.int64(NANOSECONDS + 211)
    found = gp.compile(fn, backend=BACKENDS[backend]())(x, t)
    for i, (got, exact) in enumerate(zip(found, _expected(fn, x, t), strict=True)):
        assert_same(np.asarray(got), exact, f"result {i}")


@ON_ALL
def test_constants_and_state_keep_their_digits(backend: str) -> None:
    count = gp.nn.Buffer(np.int64(2**53))

    def fn(x: Any) -> Any:
        ops.assign(count, ops.add(count, 1))
        return x + (np.int64(2**53) + 1), ops.equal(count, 2**53 + 1), np.int64(NANOSECONDS) - x

    compiled = gp.compile(fn, backend=BACKENDS[backend]())
    for i in range(3):
        total, first, rest = compiled(np.int64(2))
        assert (int(total), int(rest)) == (2**53 + 3, NANOSECONDS - 2)
        assert bool(first) == (i == 0)
    assert int(count.value) == 2**53 + 3
