"""What is installed is what is in the tree: packages, data files, the CUDA folder."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def project():
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def test_every_folder_with_python_is_a_listed_package(project):
    folders = {p.parent.relative_to(ROOT) for p in (ROOT / "gpubp").rglob("*.py")}
    found = {".".join(folder.parts) for folder in folders}
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(found | {"gpubp.kernels"})


def test_kernels_hold_no_python():
    assert list((ROOT / "kernels").rglob("*.py")) == []


@pytest.mark.parametrize("package", ["gpubp", "gpubp.data", "gpubp.kernels"])
def test_every_data_file_matches_a_pattern(project, package):
    setup = project["tool"]["setuptools"]
    folder = ROOT / setup["package-dir"].get(package, package.replace(".", "/"))
    files = [p for p in folder.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert files
    for file in files:
        assert any(file.match(pattern) for pattern in setup["package-data"][package]), file


def test_package_data_is_found():
    assert resources.files("gpubp").joinpath("py.typed").is_file()
    assert resources.files("gpubp.data").joinpath("README.md").is_file()


def test_examples_are_short():
    scripts = sorted((ROOT / "docs" / "examples").glob("*.py"))
    assert len(scripts) >= 5
    for script in scripts:
        assert len(script.read_text().splitlines()) <= 150, script


def test_links_of_the_documentation_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in _links(page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def _links(text):
    prose = re.sub(r"(?ms)^```.*?^```", "", text)  # in code, an index may stand before a call
    found = re.findall(r"\]\(([^)#\s]+)", prose)
    return [target for target in found if not target.startswith(("http://", "https://"))]
