"""Every op's reference against its own shape rule, over all cases of its row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from specs import ROWS, Case, cases, special_cases
from tolerances import assert_close, assert_same

from gpubp.compiler.trace import evaluate_graph, trace
from gpubp.core import ArrayType, Kind, bind, evaluate
from gpubp.ops.spec import SPECS

each_op = pytest.mark.parametrize("op", sorted(ROWS))


def _infer(case: Case, args: Any) -> ArrayType:
    return case.row.spec.infer(*[ArrayType(a.shape, a.dtype) for a in args], **case.attrs)


def _frozen(args: Any) -> Any:
    for a in args:
        a.flags.writeable = False
    return args


def _scattered_in_memory(x: Any) -> Any:
    """The same numbers, not contiguous: every other element, backwards, of a larger array."""
    if x.ndim == 0:
        return np.stack([x, x])[1:].reshape(())
    wide = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    view = wide[tuple(slice(None, None, -2) for _ in x.shape)]
    view[...] = x
    return view


def test_every_op_has_a_row() -> None:
    assert set(ROWS) == set(SPECS)


@each_op
def test_reference_agrees_with_infer(op: str) -> None:
    for case in cases(ROWS[op]):
        args = _frozen(case.args())
        expected = _infer(case, args)
        with np.errstate(all="raise", under="ignore"):
            out = np.asarray(case.row.spec.reference(*args, **case.attrs))
        assert (out.shape, out.dtype) == expected, case


@each_op
def test_inputs_are_not_modified(op: str) -> None:
    for case in cases(ROWS[op]):
        args, before = case.args(), case.args()
        evaluate(case.row.spec, args, case.attrs)
        for a, b in zip(args, before, strict=True):
            assert_same(a, b, str(case))


@each_op
def test_noncontiguous_inputs(op: str) -> None:
    compare = assert_same if ROWS[op].exact else assert_close
    for case in cases(ROWS[op]):
        args = case.args()
        expected = evaluate(case.row.spec, args, case.attrs)
        strided = [_scattered_in_memory(a) for a in args]
        compare(evaluate(case.row.spec, strided, case.attrs), expected, str(case))


@each_op
def test_traced_equals_eager(op: str) -> None:
    for case in cases(ROWS[op]):
        args = case.args()
        if max(a.size for a in args) > 100:
            continue
        graph, _ = trace(lambda *xs, c=case: _bind(c, xs), args)
        assert_same(evaluate_graph(graph, args)[0], _bind(case, args), str(case))


def _bind(case: Case, xs: Any) -> Any:
    return bind(case.row.spec, *xs, **case.attrs)


@each_op
def test_special_values_have_a_result(op: str) -> None:
    for case in special_cases(ROWS[op]):
        args = case.args()
        with np.errstate(all="ignore"):
            out = evaluate(case.row.spec, args, case.attrs)
        assert (out.shape, out.dtype) == _infer(case, args), case


@pytest.mark.parametrize("op", [n for n in sorted(ROWS) if ROWS[n].spec.kind is Kind.VIEW])
def test_views_share_memory(op: str) -> None:
    for case in cases(ROWS[op]):
        (x,) = case.args()
        if x.size and _infer(case, [x]).shape:
            assert np.shares_memory(x, _bind(case, [x])) or 0 in _bind(case, [x]).shape, case
