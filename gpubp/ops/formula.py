"""Formulas as NumPy functions: references of the ops whose definition is their formula."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.core.formula import OPERANDS, Formula

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "C": lambda number: number,  # Python's numbers take the dtype of the arrays they meet
    "where": np.where,
    "both": np.logical_and,
    "either": np.logical_or,
    "power": np.power,
    "atan": np.arctan,
    "fmod": np.fmod,
    "floordiv": np.floor_divide,
    **{
        name: getattr(np, name)
        for name in ["abs", "exp", "log", "log1p", "expm1", "sqrt", "sin", "cos", "floor", "tanh"]
    },
    "exp_below": lambda x: np.exp(np.minimum(x, 0)),
}


class _Vectorised(ast.NodeTransformer):
    """Conditional expressions and logic as functions of arrays."""

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return _call("where", [node.test, node.body, node.orelse])

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        name = "both" if isinstance(node.op, ast.And) else "either"
        joined, *rest = node.values
        for value in rest:
            joined = _call(name, [joined, value])
        return joined


def _call(name: str, args: list[ast.expr]) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), args, [])


def numpy_reference(formula: Formula) -> Callable[..., Any]:
    """The reference (*arrays, **attrs) -> array of an op that is defined by its formula.

    Raises:
        ValueError: it uses a function that NumPy does not have: the reference is to be written.
    """
    tree = _Vectorised().visit(ast.parse(formula.expression, mode="eval"))
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    unknown = sorted(names - set(_FUNCTIONS) - {*OPERANDS, "p", "q"})
    if unknown:
        raise ValueError(f"NumPy has no {unknown[0]}, so {formula.expression!r} needs a reference")
    code = compile(ast.fix_missing_locations(tree), "<formula>", "eval")

    def reference(*arrays: Any, **attrs: Any) -> Any:
        values = dict(zip((*OPERANDS[: formula.arity], "p", "q"), (*arrays, *formula.attrs(attrs))))
        # Both sides of a condition are computed; what the one not taken makes is dropped.
        with np.errstate(all="ignore"):
            return np.asarray(eval(code, _FUNCTIONS, values))

    return reference
