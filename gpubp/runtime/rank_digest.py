"""Traces as texts by which ranks compare them: what a step computes, whatever it is made of here.

Comes in: a graph. Goes out: a digest that two ranks have in common if they have traced the same
program at the same number of samples; a list of its operations, for errors; and its constants that
are not whole numbers, which other processors may round differently, so that they are compared by
value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core import CONST, INPUT, SLOT, Graph, Node, OpSpec
from gpubp.core.graph import live_order
from gpubp.core.store import Slot

DIGITS = 9  # of a float that is compared as text


def digest(graph: Graph) -> str:
    """What outputs and writes of a graph are: the same text for the same program, in whatever order
    its operations were traced."""
    made = _Digests(graph)
    for node in live_order(graph):
        made.add(node)
    outputs = [made.of(node) for node in graph.outputs]
    writes = sorted(f"{made.slot(slot)} {made.of(node)}" for slot, node in graph.writes)
    return _hashed(repr((outputs, writes)))


def operations(graph: Graph) -> str:
    """A graph's operations in order, with what they are told; for errors."""
    made = _Digests(graph)
    found = [n for n in live_order(graph) if n.spec not in (INPUT, SLOT, CONST)]
    told = [[f"{k}={made.text(v)}" for k, v in node.attrs.items()] for node in found]
    return ", ".join(
        " ".join([f"{n.spec.name}{n.shape}", *given]) for n, given in zip(found, told, strict=True)
    )


def constants(graph: Graph) -> NDArray[np.float64]:
    """All floats that a graph holds, one behind the other."""
    found = [n.payload for n in live_order(graph) if n.spec is CONST and n.dtype.kind == "f"]
    flat = [np.asarray(value, np.float64).reshape(-1) for value in found]
    return np.concatenate(flat) if flat else np.zeros(0)


def number(value: float) -> str:
    """A float as text, without the digits in which processors may differ."""
    return f"{value:.{DIGITS}g}"


class _Digests:
    """Digests of a graph's nodes.

    Args:
        graph: in which slots are numbered by where they come first.
    """

    def __init__(self, graph: Graph) -> None:
        self._known: dict[int, str] = {}
        self._slots: dict[int, int] = {}
        for node in live_order(graph):
            if isinstance(node.payload, Slot):
                self._slots.setdefault(id(node.payload), len(self._slots))

    def slot(self, slot: Slot) -> str:
        """A slot by its name and place."""
        return f"{slot.name} {self._slots.get(id(slot), -1)} {slot.shape} {slot.dtype}"

    def of(self, node: Node) -> str:
        """The digest of a node; its inputs have been added."""
        return self._known[id(node)]

    def add(self, node: Node) -> None:
        """Know the digest of one more node."""
        parts = [node.spec.name, str(node.shape), str(node.dtype), str(node.weak)]
        parts += [self.of(n) for n in node.inputs]
        parts += [f"{k}={self.text(v)}" for k, v in sorted(node.attrs.items())]
        if node.is_leaf:
            parts.append(self._leaf(node))
        self._known[id(node)] = _hashed("\n".join(parts))

    def _leaf(self, node: Node) -> str:
        if isinstance(node.payload, Slot):
            return self.slot(node.payload)
        return self.text(node.payload)

    def text(self, value: Any) -> str:
        """A static attribute as text: what it is, and not where it lies."""
        if value is None or isinstance(value, (bool, int, str, bytes, np.dtype, np.integer)):
            return repr(value)
        if isinstance(value, (float, np.floating)):
            return number(float(value))
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, Node):
            return self._known[id(value)]
        if isinstance(value, Graph):
            return self._graph(value)
        if isinstance(value, (tuple, list)):
            return f"({' '.join([self.text(v) for v in value])})"
        if isinstance(value, (set, frozenset)):
            return f"{{{' '.join(sorted([self.text(v) for v in value]))}}}"
        if isinstance(value, dict):
            return f"{{{' '.join([f'{self.text(k)}: {self.text(v)}' for k, v in value.items()])}}}"
        return self._object(value)

    def _array(self, value: NDArray[Any]) -> str:
        shown = "" if value.dtype.kind == "f" else _hashed(repr(value.tolist()))
        return f"{value.shape} {value.dtype} {shown}"

    def _graph(self, body: Graph) -> str:
        """Of what runs inside an operation; its nodes are known from then on."""
        for node in body.nodes:
            self.add(node)
        return _hashed("\n".join([self._known[id(node)] for node in body.nodes]))

    def _object(self, value: Any) -> str:
        if isinstance(value, Enum):
            return str(value)
        if isinstance(value, OpSpec):
            return value.name
        if is_dataclass(value) and not isinstance(value, type):
            found: Sequence[Any] = [getattr(value, field.name) for field in fields(value)]
            return f"{type(value).__name__}{self.text(tuple(found))}"
        return str(getattr(value, "__qualname__", type(value).__qualname__))


def hashed(*arrays: NDArray[Any]) -> str:
    """One hash of arrays."""
    made = blake2b(digest_size=8)
    for array in arrays:
        made.update(f"{array.shape} {array.dtype}".encode())
        made.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return made.hexdigest()


def _hashed(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
