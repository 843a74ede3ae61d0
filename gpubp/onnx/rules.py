"""The table of rules: the name of an op -> what writes it as operators of ONNX.

Each `export_*.py` has a family. A rule takes the writer and an `Op` and returns the name of the
result. An elementwise op without a rule is written by its formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gpubp.core import OpSpec
from gpubp.onnx.sizes import Sizes
from gpubp.onnx.writer import Writer


class Value(NamedTuple):
    """An input of an op: its name in the file, and its type."""

    name: str
    shape: Sizes
    dtype: np.dtype[Any]


class Op(NamedTuple):
    """One op as it is to be written.

    Attributes:
        spec: what gpubp knows of it.
        inputs: with the names that they have in the file.
        attrs: static attributes; numbers that follow the batch are `Affine`.
        shape, dtype: of the result.
    """

    spec: OpSpec
    inputs: list[Value]
    attrs: dict[str, Any]
    shape: Sizes
    dtype: np.dtype[Any]

    @property
    def names(self) -> list[str]:
        return [v.name for v in self.inputs]


Rule: TypeAlias = Callable[[Writer, Op], str]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of these ops."""

    def enter(write: Rule) -> Rule:
        for name in names:
            RULES[name] = write
        return write

    return enter
