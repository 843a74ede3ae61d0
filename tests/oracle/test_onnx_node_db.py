"""ONNX's own node tests, for the operators that gpubp's ops express: the stored outputs.

Models of one node, and those where ONNX writes an operator as a function of simpler ones. Each runs
at once and compiled on the CPU backend. At the end a table says how many passed, what was refused,
and why.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import gpubp as gp

INSTALL = "needs onnx: pip install 'gpubp[oracle]'"
onnx = pytest.importorskip("onnx", reason=INSTALL)
cases = pytest.importorskip("onnx.backend.test.case.node", reason=INSTALL)
from gpubp.errors import OperatorError  # noqa: E402
from gpubp.onnx import evaluating, import_common, import_table  # noqa: E402 - needs onnx

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

# ONNX's outputs are NumPy's, in the dtype of the inputs; its own tolerance is 1e-3.
RTOL, ATOL = 2e-5, 2e-6
# Outputs that ONNX's authors typed with four decimals: half a unit of the last one.
TYPED = {"GridSample": 5.1e-5}

# Whose inputs and outputs were both rounded to four digits after the one was made of the other.
ROUNDED = ("test_averagepool_2d_ceil_last_window_starts_on_pad",)


class Counts:
    """Models that passed, and why others were refused."""

    def __init__(self) -> None:
        self.applicable = self.passed = self.refused = self.all = 0
        self.reasons: dict[str, collections.Counter[str]] = {}

    def refuse(self, why: str, what: str) -> None:
        self.refused += 1
        self.reasons.setdefault(why, collections.Counter())[what] += 1

    def lines(self) -> list[str]:
        found = [f"ONNX models: passed {self.passed}, applicable {self.applicable}"]
        rest = self.all - self.applicable - self.refused
        found.append(f"without any operator that gpubp has {rest}, refused {self.refused}:")
        for why, names in sorted(self.reasons.items()):
            listed = ", ".join(f"{n} {c}" for n, c in sorted(names.items()))
            found.append(f"  {why} ({sum(names.values())}): {listed}")
        return found


@pytest.fixture(scope="module")
def counts(request: pytest.FixtureRequest) -> Iterator[Counts]:
    """Counted as they go, and shown when the last test is done."""
    found = Counts()
    yield found
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print("", *found.lines(), sep="\n")


@pytest.fixture(scope="module")
def models(counts: Counts) -> dict[str, list[Any]]:
    """All of ONNX's test models, by the operators that are in them."""
    found: dict[str, list[Any]] = {}
    for case in cases.collect_testcases(None):
        counts.all += 1
        for operator in {node.op_type for node in case.model.graph.node}:
            found.setdefault(operator, []).append(case)
    return found


def _run(case: Any, inputs: dict[str, Any]) -> list[Any]:
    """Node by node, on NumPy arrays or traced ones."""
    return evaluating.evaluate(case.model.graph, dict(inputs))


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    if not isinstance(value, (np.ndarray, np.generic)):
        import_common.refuse("sequences and optionals")
    return np.asarray(value)


def _traceable(case: Any, names: list[str]) -> list[str]:
    """Inputs that a compiled program may take: not those that decide shapes."""
    nodes = case.model.graph.node
    if len(nodes) > 1:
        kinds = {v.name: v.type.tensor_type.elem_type for v in case.model.graph.input}
        return [n for n in names if kinds[n] in (1, 11)]
    static = import_table.STATIC.get(nodes[0].op_type, ())
    fixed = {n for i, n in enumerate(nodes[0].input) if i in static}
    if nodes[0].op_type.endswith("Loss"):
        fixed.update(nodes[0].input[2:])  # weights
    return [n for n in names if n not in fixed]


def _assert_close(found: list[Any], expected: list[Any], what: str, atol: float) -> None:
    for a, b in zip(found, expected, strict=True):
        a = np.asarray(a)
        assert a.shape == b.shape, what
        assert a.dtype == b.dtype, what
        np.testing.assert_allclose(a, b, RTOL, atol, err_msg=what)


def _check(case: Any) -> None:
    names = [v.name for v in case.model.graph.input]
    typed = TYPED.get(case.model.graph.node[0].op_type, ATOL)
    atol = 1e-4 if case.name in ROUNDED else typed
    for raw in case.data_sets:
        given, expected = ([_array(v) for v in values] for values in raw)
        inputs = {n: evaluating.supported(v) for n, v in zip(names, given, strict=True)}
        _assert_close(_run(case, inputs), expected, f"{case.name}: at once", atol)
        traced = _traceable(case, names)

        def program(*arrays: Any, traced: Any = traced, inputs: Any = inputs) -> Any:
            return tuple(_run(case, {**inputs, **dict(zip(traced, arrays, strict=True))}))

        if traced:
            run = gp.compile(program, backend="numba")
            found = run(*[inputs[n] for n in traced])
            _assert_close(list(found), expected, f"{case.name}: compiled", atol)


def _judge(case: Any, counts: Counts) -> None:
    kinds = {node.op_type for node in case.model.graph.node}
    if kinds <= import_table.OF_SHAPES:
        counts.refuse("shapes and constants, which are known while a program is traced", min(kinds))
        return
    lacking = sorted(kinds - set(import_table.TABLE))
    if lacking:
        counts.refuse("no such op in gpubp", lacking[0])
        return
    try:
        with np.errstate(all="ignore"):
            _check(case)
    except (OperatorError, import_common.RefusedError) as error:
        refused = error.__cause__ or error
        assert isinstance(refused, import_common.RefusedError)
        why, _, what = str(refused).partition(": ")
        counts.refuse(why, what or (min(kinds) if len(kinds) == 1 else "functions"))
    except BaseException:
        counts.applicable += 1
        raise
    else:
        counts.applicable += 1
        counts.passed += 1


@pytest.mark.parametrize("operator", sorted(import_table.TABLE))
def test_operator_gives_the_stored_outputs(
    operator: str, models: dict[str, list[Any]], counts: Counts
) -> None:
    """Each model at its first operator in the alphabet."""
    for case in models.get(operator, []):
        kinds = sorted({node.op_type for node in case.model.graph.node} & set(import_table.TABLE))
        if kinds[0] == operator:
            _judge(case, counts)
