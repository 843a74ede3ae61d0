"""A group of ops that run as one part, and the arithmetic they are done in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.core import Kind, Node, Shape


@dataclass(eq=False)
class Group:
    """Ops that run as one part.

    Attributes:
        nodes: in topological order.
        anchor: the one op that is not elementwise, if any.
        shape: the iteration space of its elementwise ops.
        compute: "float32", "float64" or "int64", the arithmetic of its elementwise ops; "" if any
            will do (logic on booleans).
    """

    nodes: list[Node]
    anchor: Node | None
    shape: Shape
    compute: str

    @property
    def elementwise(self) -> bool:
        return self.anchor is None


def compute_type(node: Node) -> str:
    """The arithmetic an elementwise op is done in."""
    if node.spec.kind is Kind.RANDOM:
        return node.dtype.name
    return arithmetic([node.dtype, *[n.dtype for n in node.inputs]])


_RANK = {"d": (3, "float64"), "f": (2, "float32"), "l": (1, "int64"), "q": (1, "int64")}


def arithmetic(dtypes: Iterable[np.dtype[Any]]) -> str:
    """The type that values of these dtypes are computed in: "" if they are all booleans."""
    return max(_RANK.get(d.char, (1, "int64") if d.kind == "i" else (0, "")) for d in dtypes)[1]


def agree(a: Group, b: Group) -> bool:
    """The ops of both can be done in one arithmetic."""
    return not a.compute or not b.compute or a.compute == b.compute
