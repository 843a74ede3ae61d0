"""Files and functions of the package are short; those that are not stand here, with reasons."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpubp

ROOT = Path(gpubp.__file__).parent
LINES, BODY = 300, 40

_PUBLIC = "names of everything public"
LONG_FILES = {"nn/__init__.py": _PUBLIC, "ops/__init__.py": _PUBLIC}
_TYPED = (
    "defines the kernels of one arithmetic type, which must stand inside it to be compiled for it"
)
LONG_FUNCTIONS = {
    "backends/numba_cpu/kernels/attention.py: make_attention": _TYPED,
    "backends/numba_cpu/kernels/attention.py: make_blocks": _TYPED,
    "backends/numba_cpu/kernels/attention_grad.py: make_attention_grad": _TYPED,
    "backends/numba_cpu/kernels/chain.py: make_chain": _TYPED,
    "backends/numba_cpu/kernels/conv.py: make_conv": _TYPED,
    "backends/numba_cpu/kernels/conv_lines.py: sums_of_pixels": _TYPED,
    "backends/numba_cpu/kernels/conv_spread.py: make_conv_spread": _TYPED,
    "backends/numba_cpu/kernels/conv_weight.py: make_conv_weight": _TYPED,
    "backends/numba_cpu/kernels/depthwise.py: make_gradients": _TYPED,
    "backends/numba_cpu/kernels/depthwise.py: make_results": _TYPED,
    "backends/numba_cpu/kernels/extremes.py: make_extremes": _TYPED,
    "backends/numba_cpu/kernels/matmul.py: make_matmul": _TYPED,
    "backends/numba_cpu/kernels/matmul.py: product": "a loop nest, which sees all of its bounds",
    "backends/numba_cpu/kernels/pool.py: _make_pool": _TYPED,
    "backends/numba_cpu/kernels/scatter.py: make_scatter_add": _TYPED,
    "backends/numba_cpu/kernels/reduce.py: make_reduce": _TYPED,
    "backends/numba_cpu/kernels/rowwise.py: make_rowwise": _TYPED,
    "backends/numba_cpu/kernels/scalarmath.py: make_math": _TYPED,
    "backends/numba_cpu/kernels/strided.py: make_strided": _TYPED,
}


def _long_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1 if ast.get_docstring(node) and node.body[1:] else 0]
            if (node.end_lineno or 0) - first.lineno >= BODY:
                yield node.name


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {str(p.relative_to(ROOT)): p.read_text() for p in sorted(ROOT.rglob("*.py"))}


def test_no_file_is_longer_than_300_lines(texts: dict[str, str]) -> None:
    found = {name for name, text in texts.items() if len(text.splitlines()) > LINES}
    assert found <= set(LONG_FILES)


def test_no_body_of_a_function_is_longer_than_40_lines(texts: dict[str, str]) -> None:
    """Without its docstring."""
    found = {f"{n}: {f}" for n, text in texts.items() for f in _long_functions(ast.parse(text))}
    assert found == set(LONG_FUNCTIONS)


def test_what_is_too_long_is_found() -> None:
    body = "    x = 1\n"
    assert list(_long_functions(ast.parse('def f():\n    """A."""\n' + BODY * body))) == []
    assert list(_long_functions(ast.parse("def f():\n" + (BODY + 1) * body))) == ["f"]
