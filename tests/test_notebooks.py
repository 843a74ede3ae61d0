"""Examples as notebooks: every line of a program stands in its notebook, and runs there."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "docs"))

from make_notebooks import EXAMPLES, cells_of, execute, notebook_of  # noqa: E402

SCRIPTS = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_cells_are_the_whole_program_in_its_order(script: Path) -> None:
    source = script.read_text()
    cells = cells_of(source)
    code = "\n".join(text for kind, text in cells if kind == "code")
    expected = ast.parse(source)
    expected.body = expected.body[1:]  # the docstring
    assert ast.dump(ast.parse(code)) == ast.dump(expected)
    assert cells[0][0] == "markdown" and cells[0][1].startswith("# ")
    for kind, text in cells:
        assert text.strip() and (kind == "markdown" or ast.parse(text).body)


def test_where_cells_begin() -> None:
    source = '"""Title.\n\nMore.\n"""\n\nimport os\nimport sys\n\n# Two numbers,\n# added.\na = 1\n'
    source += "b = a  # a comment\n\n\n@print\ndef f():\n\n    return a\n\n\nx = (\n\n    1,\n)\n"
    assert cells_of(source) == [
        ("markdown", "# Title\n\nMore."),
        ("code", "import os\nimport sys"),
        ("markdown", "Two numbers, added."),
        ("code", "a = 1\nb = a  # a comment"),
        ("code", "@print\ndef f():\n\n    return a"),
        ("code", "x = (\n\n    1,\n)"),
    ]


@pytest.mark.full
def test_a_notebook_runs_and_shows_its_picture() -> None:
    for package in ("nbclient", "nbformat", "ipykernel", "matplotlib"):
        pytest.importorskip(package, reason=f"notebooks need {package}")
    notebook = notebook_of(EXAMPLES / "physics_informed.py", short=True)
    execute(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "training took" in printed and printed.strip().endswith("passed")
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_a_check_that_fails_is_an_error(tmp_path: Path) -> None:
    client = pytest.importorskip("nbclient.exceptions", reason="notebooks need nbclient")
    pytest.importorskip("ipykernel", reason="notebooks need ipykernel")
    script = tmp_path / "wrong.py"
    script.write_text('"""Wrong."""\n\nimport sys\n\nassert "--short" not in sys.argv\n')
    execute(notebook_of(script))
    with pytest.raises(client.CellExecutionError, match="AssertionError"):
        execute(notebook_of(script, short=True))
