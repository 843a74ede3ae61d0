"""Kernels for other CPUs than this one, as GPUBP_CPU asks for; and what the cache depends on."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from target_work import TRAINED, products, trained, updated
from test_fastmath import BOUNDS
from tolerances import assert_close

from gpubp.backends.numba_cpu import object_code, target
from gpubp.errors import UnknownNameError

PACKAGE = Path(object_code.__file__).parent
X86 = llvm.get_default_triple().startswith(("x86_64", "i686"))
# Lanes of float32, rows of a tile, fused multiply-add.
SHAPES = {"portable": (4, 6 if X86 else 8, int(not X86)), "avx2": (8, 6, 1)}


def _environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join(p for p in (str(Path(__file__).parent), *sys.path) if p)
    return dict(os.environ, PYTHONPATH=path, **changes)


Results = tuple[str, str, Mapping[str, np.ndarray]]


@pytest.fixture(
    scope="module",
    params=[
        ("portable", "float32"),
        pytest.param(("portable", "float64"), marks=pytest.mark.full),
        pytest.param(("avx2", "float32"), marks=pytest.mark.full),
        pytest.param(("avx2", "float64"), marks=pytest.mark.full),
    ],
    ids="-".join,
)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Target and dtype, and what a process computed for them, all of whose kernels are new."""
    name, dtype = request.param
    features = llvm.get_host_cpu_features()
    if name == "avx2" and not all(features.get(f) for f in ("avx2", "fma", "f16c")):
        pytest.skip("this CPU has no AVX2 with FMA")
    file = tmp_path_factory.mktemp(f"{name}-{dtype}") / "results.npz"
    work = Path(__file__).with_name("target_work.py")
    done = subprocess.run(
        [sys.executable, str(work), str(file), dtype],
        env=_environment(GPUBP_CPU=name),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(file) as found:
        return name, dtype, dict(found)


def test_the_target_is_the_one_asked_for(results: Results) -> None:
    name, _, found = results
    np.testing.assert_array_equal(found["target"], SHAPES[name])


@pytest.mark.parametrize(("rule", "activation"), TRAINED)
def test_training_on_other_targets_is_numpys(results: Results, rule: str, activation: str) -> None:
    _, dtype, found = results
    for i, wanted in enumerate(trained(rule, activation, dtype, "numpy")):
        what = f"{rule} {activation} {i}"
        assert_close(found[what], wanted, what)


def test_adam_on_other_targets_is_numpys(results: Results) -> None:
    _, dtype, found = results
    for i, wanted in enumerate(updated(dtype, "numpy")):
        assert_close(found[f"adam {i}"], wanted, str(i))


def test_products_on_other_targets_are_numpys(results: Results) -> None:
    _, dtype, found = results
    wanted = products("numpy") if dtype == "float32" else []
    assert sum(name.startswith("product ") for name in found) == len(wanted)
    for i, array in enumerate(wanted):
        assert_close(found[f"product {i}"], array, str(i))


def test_bounds_of_fast_functions(results: Results) -> None:
    _, dtype, found = results
    for name, (reference, bound, _) in BOUNDS.items() if dtype == "float32" else ():
        exact = reference(found[f"points {name}"].astype(np.float64))
        actual = found[f"fast {name}"].astype(np.float64)
        error = np.max(np.abs(actual - exact) / np.maximum(np.abs(exact), 1e-37))
        assert error <= bound, f"{name}: {error:.2e}"


@pytest.mark.parametrize(
    ("given", "near"), [("avx", "avx2"), ("portible", "portable"), ("nativ", "native")]
)
def test_unknown_values_are_refused(given: str, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_CPU", given)
    with pytest.raises(UnknownNameError) as caught:
        target.cpu()
    for part in ("GPUBP_CPU", repr(given), f"Did you mean {near!r}?", "native, portable"):
        assert part in str(caught.value)


def test_an_unknown_value_stops_a_program() -> None:
    code = (
        "import numpy as np, gpubp as gp\n"
        "gp.compile(lambda x: x + 1, backend='numba')(np.ones(3, np.float32))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=_environment(GPUBP_CPU="avx3"),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "UnknownNameError" in done.stderr
    assert "Did you mean 'avx2'?" in done.stderr


def test_each_target_has_a_cache_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = set()
    for name in ("native", "avx2", "portable"):
        monkeypatch.setenv("GPUBP_CPU", name)
        folders.add(object_code.cache_folder.__wrapped__())
    assert len(folders) == 3 if X86 else len(folders) >= 2


def _imported(source: Path) -> set[Path]:
    """Modules of the backend that a module of it imports, at any place."""
    found: set[Path] = set()
    prefix = str(object_code.__package__)
    for node in ast.walk(ast.parse(source.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0
            names = [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith(f"{prefix}."):
                path = PACKAGE.joinpath(*name.removeprefix(f"{prefix}.").split("."))
                found.update(
                    p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()
                )
    return found


def test_the_cache_key_covers_every_module_that_kernels_are_made_of() -> None:
    left = [PACKAGE / "kernels" / name for name in ("registry.py", "microkernel.py")]
    reached: set[Path] = set()
    while left:
        source = left.pop()
        if source not in reached:
            reached.add(source)
            left += _imported(source)
    names = {p.name for p in reached}
    assert {"words.py", "opcodes.py", "target.py", "fastmath.py", "vectormath.py"} <= names
    assert reached <= set(object_code.sources())
