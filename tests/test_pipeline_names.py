"""The pipeline knows ops by the fields of their specs: no op's name stands in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp.compiler.pipeline import Options, compile_graph
from gpubp.core import (
    Array,
    ArrayType,
    Graph,
    Indices,
    Kind,
    OpSpec,
    Typed,
    bind,
    tracing,
)
from gpubp.ops.spec import SPECS

ROOT = Path(gpubp.__file__).parent
FILES = sorted([*(ROOT / "compiler").glob("*.py"), *(ROOT / "core").glob("*.py")])
# Operators are methods of arrays: the functions behind them are found by name, in one table.
# The functions that formulas are made of are named in another.
TABLES = {"operators.py", "array.py", "formula.py"}


def _named(tree: ast.AST) -> Iterator[str]:
    """String constants that are names of ops, and comparisons with the name of a spec."""
    kinds = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "Kind"]
    skipped = {id(n) for kind in kinds for n in ast.walk(kind)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in SPECS:
                yield f"line {node.lineno}: {node.value!r}"
        elif isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                if ast.unparse(side).endswith("spec.name"):
                    yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_op_is_known_by_its_name(path: Path) -> None:
    if path.name in TABLES:
        return
    assert list(_named(ast.parse(path.read_text()))) == []


def test_a_name_would_be_found() -> None:
    assert list(_named(ast.parse('x.spec.name == "gather"'))) != []
    assert list(_named(ast.parse('kernel = "softmax"'))) != []


def _like_first(x: Typed, *_: Typed) -> ArrayType:
    return ArrayType(x.shape, x.dtype)


# Row i of the result is row i of x, scaled by all weights and by the weight at index i.
ROWS = OpSpec(
    "scaled_rows",
    Kind.ROWWISE,
    _like_first,
    lambda x, weight, index: x * weight * weight[index][:, None],
    flops=lambda out, x, weight, index: 100.0 * out.shape[0],
    kernel="scaling",
    indices=Indices(2, lambda x, weight, index: weight.shape[0]),
    row_inputs=lambda inputs: (0, 2),
)


def test_what_is_known_of_a_new_row_op_is_what_its_spec_says() -> None:
    graph = Graph()
    x = Array(graph, graph.input((5, 5), "float32"))
    weight = Array(graph, graph.input((5,), "float32"))
    index = Array(graph, graph.input((5,), "int64"))
    with tracing(graph):
        graph.outputs = [bind(ROWS, x, weight, index).node]
    program = compile_graph(graph, options=Options(verify=True))
    (part,) = program.parts
    assert (part.kernel, part.rows, part.flops) == ("scaling", 5, 500.0)
    # Every worker reads all weights, though there are as many as rows.
    assert [o.axis for o in part.inputs] == [0, None, 0]
    (limit,) = program.index_limits
    assert (limit.input, limit.limit) == (2, 5)


def test_an_op_that_settles_is_never_weak() -> None:
    graph = Graph()
    number = graph.constant(np.asarray(0.5), weak=True)
    plain = OpSpec("plain", Kind.ROWWISE, _like_first, lambda x: x)
    settled = OpSpec("settled", Kind.ROWWISE, _like_first, lambda x: x, settles=True)
    assert [graph.add(spec, (number,), {}).weak for spec in (plain, settled)] == [True, False]
