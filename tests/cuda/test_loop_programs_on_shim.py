"""Random programs with loops on the CUDA backend."""

from __future__ import annotations

import pytest
import shim_build
from loop_programs import Program
from shim_backend import shim_backend
from test_loop_programs import VERIFIED, flat, near, slopes

import gpubp as gp

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_programs_with_loops(dtype: str) -> None:
    for seed in range(40):
        program = Program(seed, dtype)
        fn = slopes(program, gp.scan)
        expected = flat(gp.compile(fn, backend="numpy")(*program.arrays))
        backend = shim_backend("random")
        found = gp.compile(fn, backend=backend, options=VERIFIED)(*program.arrays)
        near(flat(found), expected, f"{seed}")
