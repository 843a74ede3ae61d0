"""The benchmark's training scripts: few lines differ, and both print the same losses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.oracle

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "torch_scripts.py"


def _runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torch_scripts", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = _runner()


@pytest.mark.parametrize("name", RUNNER.NAMES)
def test_at_most_three_lines_differ(name: str) -> None:
    assert 1 <= RUNNER.changed_lines(name) <= 3


@pytest.mark.full
@pytest.mark.parametrize("name", RUNNER.NAMES)
def test_a_script_prints_the_same_losses(name: str) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
    environment = {"SAMPLES": "96", "EPOCHS": "2", "OMP_NUM_THREADS": "1"}
    theirs, mine = (RUNNER.run(name, way, environment) for way in ("torch", "gpubp"))
    assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-3)


def test_what_is_compiled_is_the_model() -> None:
    for name in RUNNER.NAMES:
        assert "model = torch.compile(model)\noptimizer" in RUNNER.source(name, "torch.compile")
