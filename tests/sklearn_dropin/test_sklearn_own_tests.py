"""scikit-learn's own tests of its networks pass on gpubp's classes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'gpubp[sklearn]'")

HERE = Path(__file__).resolve().parent
FILES = ("test_mlp", "test_base", "test_stochastic_optimizers")
TESTS = 69


def test_scikit_learns_tests_pass(tmp_path):
    pytest.importorskip("pandas", reason="two of scikit-learn's tests need pandas")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "swap_plugin", "-p", "no:cacheprovider"),
            *("-q", "--rootdir", str(HERE), "-c", _no_settings(tmp_path), "--pyargs"),
            *[f"sklearn.neural_network.tests.{name}" for name in FILES],
        ],
        capture_output=True,
        text=True,
        cwd=HERE,
        env=_environment(),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed and int(passed[1]) >= TESTS and "skipped" not in run.stdout, run.stdout
    ours = re.search(r"fits on gpubp: (\d+); on scikit-learn's code: 0", run.stdout)
    assert ours and int(ours[1]) > TESTS, run.stdout


def _no_settings(folder: Path) -> str:
    """A settings file without settings, so that ours are not found."""
    path = folder / "pytest.ini"
    path.write_text("[pytest]\n")
    return str(path)


def _environment() -> dict[str, str]:
    import os

    root = str(HERE.parent.parent)
    path = os.pathsep.join([str(HERE), root, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "GPUBP_VERIFY": "0"}


def test_the_plugin_fails_a_session_in_which_nothing_is_fitted(tmp_path):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "swap_plugin", "-p", "no:cacheprovider", "-q"),
            *("--rootdir", str(HERE), "-c", _no_settings(tmp_path), "--pyargs"),
            "sklearn.neural_network.tests.test_base",
        ],
        capture_output=True,
        text=True,
        cwd=HERE,
        env=_environment(),
    )
    assert run.returncode == 1
    assert "fits on gpubp: 0" in run.stdout
