"""Random programs with loops: Python's loops, references, compiled code and its workers agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from loop_programs import Program, in_python
from numpy.typing import NDArray
from tolerances import ORACLE, assert_same

import gpubp as gp
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.core import tree

WORKERS = {workers: NumbaBackend(workers=workers) for workers in (1, 2, 3)}
VERIFIED = gp.Options(verify=True)
Results = list[NDArray[Any]]


def slopes(program: Program, scan: Callable[..., Any]) -> Callable[..., Any]:
    wrt = tuple(range(len(program.arrays)))
    return gp.value_and_grad(lambda *arrays: program.value(scan, *arrays), argnums=wrt)


def flat(found: Any) -> Results:
    return [np.asarray(leaf) for leaf in tree.flatten(found)[0]]


def near(found: Results, expected: Results, what: str) -> None:
    """Within the tolerance of trajectories, of the largest number: slopes cancel to nothing."""
    largest = max(np.abs(b).max() for b in expected)
    for a, b in zip(found, expected, strict=True):
        tolerance = ORACLE[str(b.dtype)] * largest
        np.testing.assert_allclose(a, b, 0, tolerance, err_msg=what, strict=True)


def check(seed: int, dtype: str) -> None:
    program = Program(seed, dtype)
    expected = flat(slopes(program, in_python)(*program.arrays))
    fn = slopes(program, gp.scan)
    near(flat(fn(*program.arrays)), expected, f"{seed}, at once")
    compiled = gp.compile(fn, backend="numpy", options=VERIFIED)
    near(flat(compiled(*program.arrays)), expected, f"{seed}, numpy")
    one = flat(gp.compile(fn, backend=WORKERS[1], options=VERIFIED)(*program.arrays))
    near(one, expected, f"{seed}, numba")
    for workers in (2, 3):
        found = flat(gp.compile(fn, backend=WORKERS[workers])(*program.arrays))
        for a, b in zip(found, one, strict=True):
            assert_same(a, b, f"{seed}, {workers} workers")


def test_random_programs_with_loops() -> None:
    for seed in range(6):
        check(seed, "float64")


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_random_programs_with_loops(dtype: str) -> None:
    for seed in range(6, 300):
        check(seed, dtype)
