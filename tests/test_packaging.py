"""The conda recipe and the Dockerfile say what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "packaging"


@pytest.fixture(scope="module")
def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _listed(text: str, *keys: str) -> list[str]:
    """The entries of a list in YAML, under keys of which each is indented more."""
    for key in keys:
        found = re.search(rf"^( *){key}:\n(.*)\Z", text, re.M | re.S)
        assert found is not None, f"there is no {key!r}"
        indent, text = found.groups()
    entries = re.match(rf"(?:{indent} +- .*\n)+", text)
    assert entries is not None
    return [line.strip().removeprefix("- ") for line in entries[0].splitlines()]


def test_the_recipe_asks_for_what_pip_would(project: Any) -> None:
    recipe = (FOLDER / "recipe.yaml").read_text()
    wanted = project["project"]
    assert f'version: "{wanted["version"]}"' in recipe
    assert f"license: {wanted['license']}" in recipe
    python = f"python {wanted['requires-python']}"
    pip = [re.sub(r"^([\w-]+)", r"\1 ", name) for name in wanted["dependencies"]]
    assert _listed(recipe, "requirements", "run") == [python, *pip]
    tools = [name.replace(">=", " >=") for name in project["build-system"]["requires"]]
    assert _listed(recipe, "requirements", "host") == [python, "pip", *tools]
    (script,) = project["project"]["scripts"].items()
    assert _listed(recipe, "build", "python", "entry_points") == [" = ".join(script)]


def test_the_image_gets_all_that_the_wheel_is_made_of(project: Any) -> None:
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    needed = {"pyproject.toml", "setup.py", "MANIFEST.in", project["project"]["readme"]}
    needed |= {*project["project"]["license-files"]}
    needed |= set(project["tool"]["setuptools"]["package-dir"].values())
    assert set(kept) == needed
    assert all((ROOT / name).exists() for name in kept)


def test_the_image_takes_a_python_that_gpubp_takes(project: Any) -> None:
    text = (FOLDER / "Dockerfile").read_text()
    found = re.search(r"^ARG PYTHON=3\.(\d+)$", text, re.M)
    least = re.fullmatch(r">=3\.(\d+)", project["project"]["requires-python"])
    assert found is not None and least is not None and int(found[1]) >= int(least[1])
