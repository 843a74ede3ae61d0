"""Formulas of elementwise ops as operators of ONNX: what has no operator of its own is written so.

Comes in: an op's formula (`gpubp.core.formula`), names of its inputs. Goes out: the name of the
result.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.core.formula import OPERANDS, Formula
from gpubp.errors import TraceError
from gpubp.onnx.rules import Op
from gpubp.onnx.writer import Writer

_PLAIN = {
    "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos",
    "floor": "Floor", "atan": "Atan", "erf": "Erf", "tanh": "Tanh", "sigmoid": "Sigmoid",
    "power": "Pow",
}  # fmt: skip
_TWO = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div"}
_COMPARED = {
    ast.Gt: "Greater", ast.GtE: "GreaterOrEqual", ast.Lt: "Less", ast.LtE: "LessOrEqual",
    ast.Eq: "Equal",
}  # fmt: skip


def by_formula(w: Writer, op: Op) -> str:
    """The op, written by its formula."""
    formula = op.spec.formulas().get(op.spec.formula_name(op.attrs))
    if formula is None:
        raise TraceError(f"{op.spec.name} has no formula, so it cannot be written to ONNX.")
    return _Written(w, op, formula).value(ast.parse(formula.expression, mode="eval").body)


class _Written:
    """One formula."""

    def __init__(self, w: Writer, op: Op, formula: Formula) -> None:
        self._w, self._op = w, op
        self._dtype = op.inputs[0].dtype
        self._names = dict(zip(OPERANDS, op.names))
        for name, number in zip("pq", formula.attrs(op.attrs)):
            self._names[name] = w.constant(number, self._dtype)

    def value(self, part: Any) -> str:
        """The name of what a part of the formula computes."""
        if isinstance(part, ast.Name):
            return self._names[part.id]
        if isinstance(part, ast.BinOp):
            op = _TWO[type(part.op)]
            return self._w.node(op, self.value(part.left), self.value(part.right))
        if isinstance(part, ast.UnaryOp):
            return self._w.node("Neg", self.value(part.operand))
        if isinstance(part, ast.IfExp):
            parts = [self.value(p) for p in (part.test, part.body, part.orelse)]
            return self._w.node("Where", *parts)
        if isinstance(part, ast.BoolOp):
            return self._joined("And" if isinstance(part.op, ast.And) else "Or", part.values)
        if isinstance(part, ast.Compare):
            return self._compared(part)
        assert isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
        return self._called(part.func.id, part.args)

    def _joined(self, op: str, parts: list[Any]) -> str:
        found = self.value(parts[0])
        for part in parts[1:]:
            found = self._w.node(op, found, self.value(part))
        return found

    def _compared(self, part: ast.Compare) -> str:
        (how,), (right,) = part.ops, part.comparators
        names = self.value(part.left), self.value(right)
        if isinstance(how, ast.NotEq):
            return self._w.node("Not", self._w.node("Equal", *names))
        return self._w.node(_COMPARED[type(how)], *names)

    def _called(self, name: str, args: list[Any]) -> str:
        w = self._w
        if name == "C":
            return w.constant(ast.literal_eval(args[0]), self._dtype)
        given = [self.value(a) for a in args]
        if name in _PLAIN:
            return w.node(_PLAIN[name], *given)
        if name == "exp_below":
            return w.node("Exp", w.node("Min", given[0], self._number(0)))
        if name == "fmod":
            return w.node("Mod", *given, fmod=1)
        own: dict[str, Callable[..., str]] = {
            "log1p": self._log1p,
            "expm1": self._expm1,
            "floordiv": self._floordiv,
        }
        if name not in own:
            raise TraceError(
                f"{self._op.spec.name} computes {name}, a derivative: gradients cannot be written "
                "to ONNX. Export the model's outputs alone."
            )
        return own[name](*given)

    def _number(self, value: float) -> str:
        return self._w.constant(value, self._dtype)

    def _log1p(self, x: str) -> str:
        """log(u) x / (u - 1), u = 1 + x, keeps the digits of a small x (Kahan)."""
        w, one = self._w, self._number(1)
        u = w.node("Add", x, one)
        rest = w.node("Sub", u, one)
        is_one, is_inf = w.node("Equal", u, one), w.node("Equal", u, self._number(np.inf))
        safe = w.node("Where", is_one, one, rest)
        found = w.node("Mul", w.node("Log", u), w.node("Div", x, safe))
        return w.node("Where", is_one, x, w.node("Where", is_inf, u, found))

    def _expm1(self, x: str) -> str:
        """(u - 1) x / log(u), u = exp(x), keeps the digits of a small x (Kahan)."""
        w, one = self._w, self._number(1)
        u = w.node("Exp", x)
        rest = w.node("Sub", u, one)
        is_one = w.node("Equal", u, one)
        far = w.node("Greater", w.node("Abs", x), one)
        safe = w.node("Where", w.node("Or", is_one, far), self._number(2), u)
        found = w.node("Div", w.node("Mul", rest, x), w.node("Log", safe))
        return w.node("Where", is_one, x, w.node("Where", far, rest, found))

    def _floordiv(self, a: str, b: str) -> str:
        w = self._w
        quotient = w.node("Div", a, b)
        if self._dtype.kind == "f":
            return w.node("Floor", quotient)
        rest = w.node("Sub", a, w.node("Mul", quotient, b))
        zero = self._number(0)
        signs = w.node("Xor", w.node("Less", rest, zero), w.node("Less", b, zero))
        uneven = w.node("Not", w.node("Equal", rest, zero))
        less = w.cast(w.node("And", signs, uneven), self._dtype)
        return w.node("Sub", quotient, less)
