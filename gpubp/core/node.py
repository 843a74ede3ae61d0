"""Nodes: the values of a graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.core.spec import Kind, OpSpec, Shape, describe
from gpubp.core.store import Slot


@dataclass(eq=False, slots=True)
class Node:
    """One op applied to nodes: a value of the graph.

    `payload` is set on leaves: the input's position, the constant array, or the slot. A `weak` one
    is made of Python's floats alone; see `gpubp.ops.weak`.
    """

    spec: OpSpec
    inputs: tuple[Node, ...]
    attrs: dict[str, Any]
    shape: Shape
    dtype: np.dtype[Any]
    index: int
    payload: Any = None
    weak: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes_moved(self) -> int:
        """Bytes of what it reads and writes, if it is computed by a kernel of its own."""
        return sum(n.size * n.dtype.itemsize for n in (self, *self.inputs))

    @property
    def is_leaf(self) -> bool:
        return self.spec.kind is Kind.LEAF

    def __repr__(self) -> str:
        args = ", ".join(f"%{i.index}" for i in self.inputs)
        attrs = "".join(f", {k}={v!r}" for k, v in self.attrs.items())
        leaf = ""
        if isinstance(self.payload, Slot):
            leaf = self.payload.name
        elif self.is_leaf:
            leaf = str(self.payload) if self.size <= 1 else "..."
        return f"%{self.index} = {self.spec.name}({args}{attrs}{leaf}) : {describe(self)}"
