"""The elementwise ops of the CPU backend: their formulas, from the ops' specs, and their numbers.

An entry gives the number of operands and an expression over a, b, c, d, e (operands), p, q (static
attributes) and helpers; see `gpubp.core.formula`. `C(x)` makes a constant in the kernel's own type.
From this table come the strip loops of `kernels/chain.py` and the scalar interpreter of
`kernels/scalar.py`. Entries stand in the order of their names, so that their numbers depend on the
formulas that there are and on nothing else; object code is kept under a digest of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gpubp.core.formula import Formula
from gpubp.ops.spec import SPECS


class Functor(NamedTuple):
    """One elementwise op: operand count, expression, usable on integers, static attributes."""

    arity: int
    expression: str
    integer: bool = False
    attrs: Callable[[Mapping[str, Any]], tuple[float, ...]] = lambda attrs: ()


def _functor(formula: Formula) -> Functor:
    expression = formula.expression
    if formula.truth:
        expression = f"C(1) if {expression} else C(0)"
    return Functor(formula.arity, expression, formula.integer, formula.attrs)


# `cast` becomes one of these by its target; loads and stores convert between memory types.
_CAST = {
    "cast_same": Functor(1, "a", True),
    "cast_truth": Functor(1, "C(1) if a != C(0) else C(0)", True),
    "cast_integer": Functor(1, "truncate(a)", True),
    "cast_int32": Functor(1, "C(I32(a))", True),
    "cast_float32": Functor(1, "C(F32(a))"),
}
_FORMULAS = {
    name: _functor(formula) for spec in SPECS.values() for name, formula in spec.formulas().items()
}

FUNCTORS: dict[str, Functor] = dict(sorted({**_FORMULAS, **_CAST}.items()))
OPCODES: dict[str, int] = {name: i for i, name in enumerate(FUNCTORS)}
RANDOM_UNIFORM = len(OPCODES)
RANDOM_NORMAL = len(OPCODES) + 1
DTYPE_CODES = {"bool": 0, "int32": 1, "int64": 2, "float32": 3, "float64": 4}


def table_text() -> str:
    """All of the table that object code depends on."""
    rows = (f"{n}: {f.arity} {f.integer} {f.expression}" for n, f in FUNCTORS.items())
    return "\n".join(rows)
