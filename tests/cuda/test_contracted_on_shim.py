"""The kernels as they ship: with multiplications and additions contracted (FFMA), as NVRTC does.

The other tests' device rounds both, so that results are those of the references. Here it is built
with contraction, in processes of their own, whose builds have a folder of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import shim_build

HERE = Path(__file__).parent
CONTRACTED = "-ffp-contract=fast -fexpensive-optimizations"  # at -O1 g++ contracts with both


def _without_fma() -> bool:
    try:
        return "fma" not in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True


pytestmark = [
    pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING)),
    pytest.mark.skipif(_without_fma(), reason="needs a processor with fused multiply-add"),
]

# (1 + u) (1 - u) - 1 is -u^2; with the product rounded first it is 0.
ASKED = """
import numpy as np
from launching import kernel, launch
from shim_driver import ShimDriver

u = np.float32(2.0**-13)
x = np.array([1 + u, 1 - u, -1, 7], np.float32)
source = kernel("float* x;", "p.x[3] = p.x[0] * p.x[1] + p.x[2];")
(found,) = launch(ShimDriver(), source, (x,), 1, 1)
print(found[3] == -u * u, found[3] == 0)
"""


def _run(flags: str, *arguments: str) -> str:
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "GPUBP_SHIM_FLAGS": flags, "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, *arguments], env=env, cwd=HERE, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return run.stdout


@pytest.mark.parametrize(("flags", "said"), [(CONTRACTED, "True False"), ("", "False True")])
def test_contraction_is_what_the_flag_says(flags: str, said: str) -> None:
    assert _run(flags, "-c", ASKED).strip() == said


def test_kernels_are_right_with_contraction() -> None:
    """Within the tolerances of the others: products with what follows them, and updates."""
    tests = [str(HERE / "test_products_on_shim.py"), "-k", "follows_a_product or updates_in"]
    out = _run(CONTRACTED, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "full", *tests)
    assert " passed" in out and "failed" not in out
