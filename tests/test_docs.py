"""The code in the documentation runs: every Python block of the guides, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What shows that the code of a page works, run after it.
CHECKS = {
    "README.md": """
assert losses.shape == (5 * 45,)
assert trainer.evaluate(X_test, y_test)["accuracy"] > 0.9
""",
    "docs/add_an_op.md": """
import gpubp as gp
x = np.array([-3.0, 0.0, 1.0])
np.testing.assert_allclose(softsign(x), [-0.75, 0.0, 0.5])
np.testing.assert_allclose(gp.grad(lambda v: softsign(v).sum())(x), [1 / 16, 1.0, 0.25])
""",
    "docs/add_an_optimizer.md": """
import numpy as np
import gpubp as gp
p = gp.nn.Parameter(np.array([1.0, -2.0], np.float32))
optimizer = SignSGD([p], lr=0.5)
step = gp.compile_step(lambda x: ops.sum(p * p) + 0.0 * ops.sum(x), optimizer)
step(np.zeros((1, 1), np.float32))
np.testing.assert_array_equal(p.value, [0.5, -1.5])
""",
    "docs/add_a_backend.md": """
import numpy as np
import gpubp as gp
double = gp.compile(lambda x: x * 2.0, backend=NullBackend())
assert double(np.ones(3, np.float32)).shape == (3,)
""",
}


@pytest.mark.parametrize("page", CHECKS)
def test_code_of_the_guides_runs(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    code = "\n".join([*blocks, CHECKS[page]])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_every_page_with_code_is_run():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    with_code = {str(p.relative_to(ROOT)) for p in pages if "```python" in p.read_text()}
    elsewhere = {"docs/sklearn.md"}  # tests/sklearn_dropin/test_sklearn_page.py
    assert with_code <= set(CHECKS) | elsewhere
