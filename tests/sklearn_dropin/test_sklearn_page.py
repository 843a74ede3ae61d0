"""The code of docs/sklearn.md runs, and the example prints the same scores on both engines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'gpubp[sklearn]'")

ROOT = Path(__file__).resolve().parent.parent.parent
CHECK = """
import numpy as np
assert len(scores) == 3 and len(search.cv_results_["params"]) == 4
X = np.random.default_rng(0).normal(size=(300, 3))
upper.set_params(max_iter=300, random_state=0).fit(X, X[:, 0])
assert 0.6 < np.mean(X[:, 0] < upper.predict(X)) < 1.0
assert MLPClassifier().get_params()["dropout"] == 0.0
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "GPUBP_VERIFY": "0"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_code_of_the_page_runs():
    page = (ROOT / "docs" / "sklearn.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    run = _run("-c", "\n".join([*blocks, CHECK]))
    assert run.returncode == 0, run.stderr


def test_the_example_prints_the_same_scores():
    example = str(ROOT / "docs" / "examples" / "sklearn_pipeline.py")
    plain, ours = _run(example), _run("-m", "gpubp.accel", "--report", example)
    assert plain.returncode == ours.returncode == 0, ours.stderr
    assert "mean scores" in plain.stdout and ours.stdout == plain.stdout
    assert "on gpubp (" in ours.stderr and "on scikit-learn" not in ours.stderr
