"""A group of ops that run as one part, and the arithmetic they are done in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpubp.core import Kind, Node, Shape, dtype_name


@dataclass(eq=False)
class Group:
    """Ops that run as one part.

    Attributes:
        nodes: in topological order.
        anchor: the one op that is not elementwise, if any.
        shape: the iteration space of its elementwise ops.
        compute: "float32", "float64" or "int64", the arithmetic of its elementwise ops; "" if any
            will do (logic on booleans).
        level: above those of all groups that must run before it.
    """

    nodes: list[Node]
    anchor: Node | None
    shape: Shape
    compute: str
    level: int

    @property
    def elementwise(self) -> bool:
        return self.anchor is None


def compute_type(node: Node) -> str:
    """The arithmetic an elementwise op is done in."""
    if node.spec.kind is Kind.RANDOM:
        return dtype_name(node.dtype)
    return arithmetic(node.dtype, *[n.dtype for n in node.inputs])


_RANK = {"d": (3, "float64"), "f": (2, "float32"), "l": (1, "int64"), "q": (1, "int64")}


@cache
def arithmetic(*dtypes: np.dtype[Any]) -> str:
    """The type that values of these dtypes are computed in: "" if they are all booleans."""
    return max(_RANK.get(d.char, (1, "int64") if d.kind == "i" else (0, "")) for d in dtypes)[1]


def agree(a: Group, b: Group) -> bool:
    """The ops of both can be done in one arithmetic."""
    return not a.compute or not b.compute or a.compute == b.compute
