"""Imports point one way: no file is imported in a circle, and no folder imports one above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gpubp

ROOT = Path(gpubp.__file__).parent
# From the bottom up; folders of one row may import each other, as long as files form no circle.
FLOORS = [
    {"errors", "arguments", "kinds", "habits", "lazy", "atomic", "cache", "pictures", "markup"},
    {"core"},
    {"ops"},
    {"compiler"},
    {"backends"},
    {"distributed"},
    {"nn", "runtime"},
    {"optim"},
    {"data"},
    {"train"},
    {"sklearn", "accel", "_autostart", "torch", "onnx", "ray", "testing"},
    {"dashboard"},
    {"cli", "__main__"},
]
# Inside a folder: what stands lower, then what stands on it.
INSIDE = {
    "backends.cuda": ["drivers", "codegen", "emulator"],
}


@cache
def _files() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ("gpubp", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def _imported(path: Path) -> Iterator[str]:
    """Every file of the package that a file imports: also inside functions, and for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in _files())
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target = whole if whole in _files() else node.module
                if target in _files():
                    yield target


@cache
def _arrows() -> dict[str, set[str]]:
    return {name: set(_imported(path)) - {name} for name, path in _files().items()}


def _folder(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def _floor(name: str) -> int:
    """The package itself stands above everything: it names what users see."""
    folder = _folder(name)
    return next((i for i, floor in enumerate(FLOORS) if folder in floor), len(FLOORS))


def test_every_folder_has_a_floor() -> None:
    unknown = {_folder(n) for n in _files() if n != "gpubp" and _floor(n) == len(FLOORS)}
    assert not unknown


def test_no_folder_imports_one_above_it() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in _arrows().items()
        for target in targets
        if target != "gpubp" and _floor(target) > _floor(name)
    ]
    assert not wrong


# The emulator runs on the CPU: some of its loops are in the language of the CPU kernels.
LANGUAGE = ("kernels.language", "kernels.lowlevel", "native_call")


def test_no_backend_imports_another() -> None:
    backends = ("numba_cpu", "cuda", "numpy")
    language = {f"gpubp.backends.numba_cpu.{part}" for part in LANGUAGE}
    wrong = [
        f"{name} imports {target}"
        for name, targets in _arrows().items()
        for target in targets
        for mine in backends
        for other in backends
        if mine != other
        and name.startswith(f"gpubp.backends.{mine}")
        and target.startswith(f"gpubp.backends.{other}")
        and not (name == "gpubp.backends.cuda.emulator.race_loops" and target in language)
    ]
    assert not wrong


@pytest.mark.parametrize("folder", INSIDE)
def test_parts_of_a_folder_stand_in_order(folder: str) -> None:
    rank = {f"gpubp.{folder}.{part}": i for i, part in enumerate(INSIDE[folder])}
    wrong = [
        f"{name} imports {target}"
        for name, targets in _arrows().items()
        for target in targets
        for a in rank
        for b in rank
        if rank[a] < rank[b] and name.startswith(a) and target.startswith(b)
    ]
    assert not wrong


def _circle(start: str) -> list[str] | None:
    """A way along the arrows from a file back to itself."""
    seen: set[str] = set()
    ways = [[start]]
    while ways:
        way = ways.pop()
        for target in _arrows()[way[-1]]:
            if target == start:
                return way
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return None


def test_no_file_is_imported_in_a_circle() -> None:
    circles = [way for name in _files() if (way := _circle(name))]
    assert not circles
