"""Formulas of elementwise ops: one text, from which every backend makes its code.

An expression is Python over a, b, c, d, e (the inputs, in order), p and q (numbers made of static
attributes), `C(number)` for constants, and the functions of `FUNCTIONS`. Conditions stand in
`x if condition else y`. All is done in the type of the arrays: what is written is what is computed,
in that order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

OPERANDS = "abcde"
# Each backend has them in its own arithmetic. `exp_below` is exp of numbers that are not above 0,
# slopes are derivatives. Those from `erf` on are written by hand: they are approximations, or keep
# digits that a plain formula would lose.
_PLAIN = ("abs", "exp", "exp_below", "expm1", "log", "log1p", "sqrt", "sin", "cos", "floor")
_TURNS = ("atan",)
_RESTS = ("fmod", "floordiv")  # which are of integers, too
_BY_HAND = ("erf", "tanh", "sigmoid", "silu_slope", "softplus", "gelu", "gelu_slope", "gelu_tanh")
FUNCTIONS = frozenset((*_PLAIN, *_TURNS, *_RESTS, "power", *_BY_HAND, "gelu_tanh_slope"))


def _no_numbers(_attrs: Mapping[str, Any]) -> tuple[float, ...]:
    return ()


class Formula:
    """What an elementwise op computes.

    Attributes:
        expression: see the file's docstring.
        integer: it may be used on integers, which wrap around.
        truth: it is a condition: the result is a boolean.
        attrs: static attributes -> the numbers p and q.
    """

    def __init__(
        self,
        expression: str,
        *,
        integer: bool = False,
        truth: bool = False,
        attrs: Callable[[Mapping[str, Any]], tuple[float, ...]] = _no_numbers,
    ) -> None:
        called = {*re.findall(r"(\w+)\s*\(", expression)} - {"C", "if", "else", "and", "or"}
        if called - FUNCTIONS:
            raise ValueError(
                f"{expression!r} calls {min(called - FUNCTIONS)}, which formulas do not have: use "
                f"{', '.join(sorted(FUNCTIONS))}."
            )
        self.expression = expression
        self.integer = integer
        self.truth = truth
        self.attrs = attrs

    @cached_property
    def arity(self) -> int:
        """How many operands it has."""
        return max(OPERANDS.index(x) + 1 for x in re.findall(r"\b[a-e]\b", self.expression))

    @cached_property
    def numbers(self) -> int:
        """How many of p and q it has."""
        return len(set(re.findall(r"\b[pq]\b", self.expression)))


class Variants:
    """Formulas of one op, of which a static attribute names one.

    Attributes:
        attribute: its name.
        formulas: by its value.
    """

    def __init__(self, attribute: str, formulas: Mapping[str, Formula]) -> None:
        self.attribute = attribute
        self.formulas = dict(formulas)
