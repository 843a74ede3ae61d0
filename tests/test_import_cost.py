"""What an import brings in, counted in modules: a name costs nothing until it is used."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpubp as gp
from gpubp.errors import MissingExtraError


def _loaded(code: str) -> set[str]:
    """The modules in a new process after it has run `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if k != "GPUBP_SKLEARN"},
    )
    return set(done.stdout.split())


def _ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "gpubp"}


def test_importing_the_package_imports_nothing_but_names() -> None:
    found = _ours(_loaded("import gpubp"))
    wanted = {"gpubp", "gpubp.backends", "gpubp.errors", "gpubp.habits", "gpubp.lazy"}
    assert found <= {*wanted, "gpubp._autostart"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("gp.Array, gp.ops, gp.grad", ("gpubp.nn", "gpubp.runtime", "gpubp.train")),
        ("gp.nn.Linear", ("gpubp.nn.functional", "gpubp.nn.transformer", "gpubp.nn.recurrent")),
        ("gp.nn", ("gpubp.optim", "gpubp.train", "gpubp.data", "gpubp.sklearn")),
        ("gp.compile_step, gp.optim", ("gpubp.train", "gpubp.data", "gpubp.sklearn")),
        ("gp.compile_step", ("gpubp.runtime.rank_programs", "gpubp.distributed.starting")),
        ("gp.Trainer", ("gpubp.runtime.rank_programs", "gpubp.runtime.population")),
        ("gp.Trainer, gp.data", ("gpubp.sklearn", "gpubp.cli", "llvmlite", "PIL", "pandas")),
    ],
)
def test_a_name_brings_only_what_is_behind_it(code: str, absent: tuple[str, ...]) -> None:
    found = _loaded(f"import gpubp as gp\n{code}")
    wrong = [n for n in found for a in absent if n == a or n.startswith(f"{a}.")]
    assert not wrong


def test_all_ops_are_there_when_kernels_are_made() -> None:
    """The table of formulas is of all ops, whichever way it is reached."""
    whole = "from gpubp.backends.numba_cpu import opcodes; print(len(opcodes.OPCODES))"
    counts = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout
        for c in (whole, f"import gpubp as gp\ngp.nn, gp.train, gp.ops\n{whole}")
    ]
    assert counts[0] == counts[1]


def test_ops_on_a_device_are_filled_in_when_asked_for() -> None:
    code = "from gpubp.core import at_once\nat_once.{}"
    assert "gpubp.runtime.eager" not in _loaded(code.format("__class__"))
    assert "gpubp.runtime.eager" in _loaded(code.format("apply"))
    with pytest.raises(AttributeError, match="'aply'"):
        gp.core.at_once.aply  # type: ignore[attr-defined]  # noqa: B018


LAZY = (
    "gpubp",
    "gpubp.data",
    "gpubp.distributed",
    "gpubp.nn",
    "gpubp.optim",
    "gpubp.optim.lr_scheduler",
    "gpubp.train",
)


@pytest.mark.parametrize("package", LAZY)
def test_the_names_for_type_checkers_are_those_of_the_package(package: str) -> None:
    """`if TYPE_CHECKING` lists what `__getattr__` knows, each from the same place."""
    module = importlib.import_module(package)
    source = ast.parse(Path(module.__file__ or "").read_text())
    branch = next(node for node in source.body if isinstance(node, ast.If))
    told = {}
    for node in branch.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            name = alias.asname or alias.name
            home = (node.module or "")[len(package) + 1 :]
            told[name] = home + (f":{alias.name}" if name != alias.name else "")
    assert told == module._LAZY


@pytest.mark.parametrize("package", LAZY)
def test_a_name_is_the_same_whatever_was_imported_before(package: str) -> None:
    """Importing a submodule puts it into the package, where it must not hide a public name."""
    module = importlib.import_module(package)
    for name, home in module._LAZY.items():
        inside = home.partition(":")[0]
        assert name != inside.split(".")[0], f"{package}.{name} is hidden by a submodule"


@pytest.mark.parametrize("package", LAZY)
def test_every_name_is_listed_and_there(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in dir(module):
        try:
            assert getattr(module, name) is getattr(module, name)
        except MissingExtraError:  # of a package that is not there
            assert package == "gpubp" and name in ("onnx", "torch")


def test_a_name_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="'gpubp' has no attribute 'compyle'"):
        gp.compyle  # type: ignore[attr-defined]  # noqa: B018
