"""Values made of Python's floats alone: they take the dtype of the arrays that they meet.

`where(x > 0, 0.1, 0.2)` has no dtype of its own. In a trace it is computed in float64 and marked
weak. Where it meets an array of float32 or float64, the ops that made it are appended once more, in
that dtype, from the numbers on; what nobody needs then is dropped with all dead nodes. So a program
in float64 keeps all digits, and a program in float32 has no float64 in it (but for numbers that are
compared with each other).

A weak value that leaves the program (a result, a constant's own digits) becomes float64 where all
float arrays of the program are, or where its arguments are Python's numbers alone; else float32, as
at once: integers that meet Python's floats are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.core import ALIAS, CONST, INPUT, SLOT, Array, Graph, Node, OpSpec

SPECS: dict[str, OpSpec] = {}  # all ops by name
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)


def is_weak(value: Any) -> bool:
    """A traced array that is made of Python's floats alone."""
    return isinstance(value, Array) and value.node.weak


def weakly(graph: Graph, value: Any) -> Array:
    """A Python number or an array as a weak array."""
    if is_weak(value):
        found: Array = value
        return found
    if isinstance(value, (bool, int, float)):
        return Array(graph, graph.constant(np.asarray(value, FLOAT64), weak=True))
    return Array(graph, _cast(graph, graph.lift(value), FLOAT64, weak=True))


def settled(value: Array, dtype: np.dtype[Any]) -> Array:
    """A weak array as one of `dtype`."""
    graph = value.graph
    if dtype.kind != "f":
        return Array(graph, _cast(graph, value.node, dtype))
    made: dict[int, Node] = {}
    for node in _weak_part(value.node):
        made[node.index] = _again(graph, node, dtype, made)
    return Array(graph, made[value.node.index])


def leaving(graph: Graph, node: Node) -> Node:
    """A node as it leaves the program: weak ones get a dtype."""
    if not node.weak:
        return node
    return settled(Array(graph, node), _default(graph)).node


def settled_together(values: Sequence[Any]) -> list[Any]:
    """Weak arrays as ones of the widest float dtype among the others, float32 if there is none."""
    widths = [v.dtype.itemsize for v in values if v.dtype.kind == "f" and not is_weak(v)]
    dtype = FLOAT64 if FLOAT64.itemsize in widths else FLOAT32
    return [settled(v, dtype) if is_weak(v) else v for v in values]


def _default(graph: Graph) -> np.dtype[Any]:
    leaves = [n for n in graph.nodes if n.spec in (INPUT, SLOT)]
    widths = [n.dtype for n in leaves if n.dtype.kind == "f" and not n.weak]
    if not widths:  # Python's floats as arguments, by themselves or beside arrays of integers
        alone = not any(n.shape for n in leaves if n.spec is INPUT)
        return FLOAT64 if alone and any(n.weak for n in leaves) else FLOAT32
    return FLOAT64 if all(dtype == FLOAT64 for dtype in widths) else FLOAT32


def _weak_part(node: Node) -> list[Node]:
    """The weak nodes that a weak node is made of, in topological order."""
    found: dict[int, Node] = {}
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.weak and node.index not in found:
            found[node.index] = node
            waiting += node.inputs
    return [found[i] for i in sorted(found)]


def _again(graph: Graph, node: Node, dtype: np.dtype[Any], made: dict[int, Node]) -> Node:
    """The node in another dtype; `made`: those before it."""
    if node.spec is CONST:
        with np.errstate(over="ignore"):
            return graph.constant(node.payload.astype(dtype))
    if node.spec in (INPUT, ALIAS):  # gradients by it must come back to it
        same = dtype == node.dtype
        return _named(graph, node) if same else _cast(graph, node, dtype)
    if node.spec is SPECS["cast"]:
        (source,) = node.inputs
        return source if source.dtype == dtype else _cast(graph, source, dtype)
    inputs = tuple([made.get(i.index, i) for i in node.inputs])
    return graph.add(node.spec, inputs, node.attrs, weak=False)


def _named(graph: Graph, node: Node) -> Node:
    return graph.add(ALIAS, (node,), {"tag": -1}, weak=False)


def _cast(graph: Graph, node: Node, dtype: np.dtype[Any], weak: bool = False) -> Node:
    cast: OpSpec = SPECS["cast"]
    return graph.add(cast, (node,), {"dtype": str(dtype)}, weak=weak)
