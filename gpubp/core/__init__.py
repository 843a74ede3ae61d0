"""What every op stands on: op specs, traced arrays, the graph, and `bind`.

Comes in: calls of `gp.ops.*` on NumPy arrays, slots (parameters) and traced arrays.
Goes out: a NumPy array where everything was concrete, else a traced `Array` whose `Node` stands at
the end of the active `Graph`.

Holds in between: a graph is in SSA form and in topological order by construction; every node has
one output with a static shape and dtype; equal nodes are one node (same op, inputs, attributes);
scalar arithmetic on constants is done at once.
"""

from __future__ import annotations

from gpubp.core.array import Array, concrete
from gpubp.core.dispatch import AtOnce, active_graph, assume, at_once, bind, evaluate, note, tracing
from gpubp.core.graph import Graph, live_order
from gpubp.core.node import Node
from gpubp.core.spec import (
    ALIAS,
    CONST,
    DTYPES,
    INPUT,
    SLOT,
    ArrayType,
    ConcreteArray,
    Indices,
    Kind,
    NumberType,
    OpSpec,
    Shape,
    Typed,
    WholeType,
    checked_dtype,
    describe,
    dtype_name,
    is_to_come,
)
from gpubp.core.whole import Whole, whole

__all__ = [
    "ALIAS",
    "CONST",
    "DTYPES",
    "INPUT",
    "SLOT",
    "Array",
    "ArrayType",
    "AtOnce",
    "ConcreteArray",
    "Graph",
    "Indices",
    "Kind",
    "Node",
    "NumberType",
    "OpSpec",
    "Shape",
    "Typed",
    "Whole",
    "WholeType",
    "active_graph",
    "assume",
    "at_once",
    "bind",
    "checked_dtype",
    "concrete",
    "describe",
    "dtype_name",
    "evaluate",
    "is_to_come",
    "live_order",
    "note",
    "tracing",
    "whole",
]
