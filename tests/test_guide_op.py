"""The guide on adding an op, followed: its file in a copy of gpubp, one row, every backend."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpubp.backends.cuda.codegen.formulas import function
from gpubp.backends.numba_cpu import build, object_code, opcodes
from gpubp.core.formula import Formula
from gpubp.ops.formula import numpy_reference

ROOT = Path(__file__).parents[1]
TRIED = """
import sys
import numpy as np
import gpubp as gp
from functools import partial
from gpubp import ops
from gpubp.core import bind
import specs
from rows import away_from
from test_conformance import compare

assert gp.__file__.startswith(sys.argv[1]), gp.__file__
row = specs._unary("softsign", away_from(0.0))
backends = {"numpy": "numpy", "numba": "numba"}
import shim_build
if not shim_build.MISSING:
    from shim_backend import shim_backend
    backends["cuda"] = shim_backend()
for name, backend in backends.items():
    op = partial(bind, row.spec)
    compiled = gp.compile(op, backend=backend)
    cases = [*specs.cases(row), *specs.special_cases(row)]
    if name == "numba":  # the kernels of the other dtype are made of the same text
        cases = [c for c in cases if c.dtype == "float32"]
    with np.errstate(all="ignore"):
        for case in cases:
            (x,) = case.args()
            compare(case, (x,), compiled(x), f"{name}: {case}")
    # In a chain with others, and its gradient.
    x = np.linspace(-2, 2, 301).astype(np.float32)
    slope = gp.compile(gp.grad(lambda v: ops.sum(ops.softsign(v) * 2.0)), backend=backend)(x)
    np.testing.assert_allclose(slope, 2 / (1 + abs(x)) ** 2, rtol=1e-6)
    print(name, "did", len(cases))
"""


def _copy(folder: Path) -> None:
    """gpubp as it is, with the guide's op in a file of its own, named in the list of ops."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gpubp", folder / "gpubp", ignore=skipped)
    shutil.copytree(ROOT / "kernels", folder / "kernels")
    page = (ROOT / "docs" / "add_an_op.md").read_text()
    (text,) = re.findall(r"```python\n(.*?SOFTSIGN = .*?)```", page, re.DOTALL)
    (folder / "gpubp" / "ops" / "softsign.py").write_text(text)
    listed = folder / "gpubp" / "ops" / "__init__.py"
    listed.write_text(
        listed.read_text() + "\nfrom gpubp.ops.softsign import softsign as softsign\n"
    )


def test_one_file_and_one_row_make_an_op_on_every_backend(tmp_path: Path) -> None:
    _copy(tmp_path)
    ways = [tmp_path, ROOT / "tests", ROOT / "tests" / "cuda"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, ways))}
    done = subprocess.run(
        [sys.executable, "-c", TRIED, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "numpy did" in done.stdout and "numba did" in done.stdout


def test_formulas_of_unknown_functions_are_refused() -> None:
    with pytest.raises(ValueError, match="calls cosh, which formulas do not have"):
        Formula("a * cosh(b)")


def test_a_formula_is_a_numpy_function() -> None:
    x = np.array([-1.0, 0.0, 2.0, np.nan], np.float32)
    slope = Formula("a if a > C(0) and a != C(2) else a * p", attrs=lambda x: (x["slope"],))
    found = numpy_reference(slope)(x, slope=0.5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([-0.5, 0.0, 1.0, np.nan], np.float32))


def test_a_formula_is_a_cuda_function() -> None:
    integers = Formula("-a if a < C(0) or b == C(1) else a * b - a", integer=True)
    assert function("f", integers) == (
        "GP_OP T f(T a, T b) { return (((a < T(0)) || (b == T(1))) ? w_negative(a) : "
        "w_subtract(w_multiply(a, b), a)); }"
    )
    floats = Formula("exp(a) / q > p", truth=True)
    assert function("g", floats) == (
        "GP_OP bool g(T a, double p_, double q_) { const T p = static_cast<T>(p_); "
        "const T q = static_cast<T>(q_); return ((m_exp(a) / q) > p); }"
    )
    with pytest.raises(ValueError, match="may not have 'a % b'"):
        function("h", Formula("a % b"))


def test_object_code_is_kept_under_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    found = object_code.cache_folder.__wrapped__()
    changed = opcodes.table_text().replace("a + b", "a - b")
    assert changed != opcodes.table_text()
    monkeypatch.setattr(object_code, "table_text", lambda: changed)
    assert object_code.cache_folder.__wrapped__() != found


def test_kernels_of_formulas_are_compiled_where_the_ops_are_known() -> None:
    """New processes know nothing of an op that was registered in this one."""
    names = ["ops_float32", "ops_float64", "scalar", "matmul_float32", "reduce_float32", "loop"]
    own, *others = build.divided(names, 3)
    assert {"ops_float32", "ops_float64", "scalar"} <= set(own)
    assert sorted(n for share in others for n in share) == [
        "loop",
        "matmul_float32",
        "reduce_float32",
    ]


def test_numbers_of_ops_depend_on_names_alone() -> None:
    assert list(opcodes.FUNCTORS) == sorted(opcodes.FUNCTORS)
    assert [*opcodes.OPCODES.values()] == list(range(len(opcodes.FUNCTORS)))
