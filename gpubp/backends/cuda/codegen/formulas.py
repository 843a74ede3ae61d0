"""Elementwise ops as CUDA functions, printed from the formulas of their specs.

Each becomes `template <class T> T name(T a, ..., double p, double q)`, or a bool where the formula
is a condition. Functions of a formula are those of `kernels/functors.cuh`, with `m_` before their
names. Sums and products of formulas that integers may use go through `w_add` and its like, which
wrap around.
"""

from __future__ import annotations

import ast

from gpubp.core.formula import OPERANDS, Formula
from gpubp.ops.spec import SPECS

_SIGNS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.And: "&&",
    ast.Or: "||",
}
_WRAPPING: dict[type[ast.AST], str] = {
    ast.Add: "w_add",
    ast.Sub: "w_subtract",
    ast.Mult: "w_multiply",
}


def header() -> str:
    """The text of `formulas.cuh`: every op of the registry that has a formula, by name."""
    found = {n: f for spec in SPECS.values() for n, f in spec.formulas().items()}
    return "\n".join(function(name, found[name]) for name in sorted(found)) + "\n"


def function(name: str, formula: Formula) -> str:
    """One op as a CUDA function template."""
    numbers = [x for x in "pq" if x in _names(formula)]
    params = [f"T {x}" for x in OPERANDS[: formula.arity]] + [f"double {x}_" for x in numbers]
    lines = [f"const T {x} = static_cast<T>({x}_);" for x in numbers]
    value = _Printer(formula.integer).text(ast.parse(formula.expression, mode="eval").body)
    result = "bool" if formula.truth else "T"
    body = " ".join([*lines, f"return {value};"])
    return f"GP_OP {result} {name}({', '.join(params)}) {{ {body} }}"


def _names(formula: Formula) -> set[str]:
    tree = ast.parse(formula.expression, mode="eval")
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


class _Printer:
    """Prints a formula's expression as C, each part in brackets.

    Args:
        wraps: integers may use it.
    """

    def __init__(self, wraps: bool) -> None:
        self._wraps = wraps

    def text(self, node: ast.expr) -> str:
        """The C expression.

        Raises:
            ValueError: a formula may not have this in it.
        """
        match node:
            case ast.Name(id=name):
                return name
            case ast.IfExp(test=test, body=body, orelse=other):
                return f"({self.text(test)} ? {self.text(body)} : {self.text(other)})"
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return f"({self.text(left)} {_SIGNS[type(op)]} {self.text(right)})"
            case ast.BoolOp(op=op, values=values):
                return "(" + f" {_SIGNS[type(op)]} ".join(map(self.text, values)) + ")"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _SIGNS:
                return self._arithmetic(op, self.text(left), self.text(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return f"{'w_negative' if self._wraps else '-'}({self.text(operand)})"
            case ast.Call(func=ast.Name(id="C"), args=[number]):
                return f"T({ast.literal_eval(number)!r})"
            case ast.Call(func=ast.Name(id=name), args=args):
                return f"m_{name}({', '.join(map(self.text, args))})"
        raise ValueError(f"a formula may not have {ast.unparse(node)!r} in it")

    def _arithmetic(self, op: ast.operator, left: str, right: str) -> str:
        if self._wraps and type(op) in _WRAPPING:
            return f"{_WRAPPING[type(op)]}({left}, {right})"
        return f"({left} {_SIGNS[type(op)]} {right})"
