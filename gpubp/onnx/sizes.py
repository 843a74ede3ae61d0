"""Sizes that follow the batch: the same function traced for several batches, compared node by node.

Comes in: graphs of one function for batches of different sizes. Goes out: for each node of the
first one its shape and attributes, with an `Affine` wherever a number follows the batch.

Holds in between: a number is taken for `offset + slope * batch` where three traces agree on it.
What depends on the batch in another way is a `FixedSizeError`, which says where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gpubp.compiler.loop_body import Loop
from gpubp.core import CONST, Graph, Node, live_order
from gpubp.errors import FixedSizeError


@dataclass(frozen=True)
class Affine:
    """`offset + slope * batch`."""

    offset: int
    slope: int

    def __add__(self, other: Size) -> Affine:
        if isinstance(other, Affine):
            return Affine(self.offset + other.offset, self.slope + other.slope)
        return Affine(self.offset + other, self.slope)

    def __mul__(self, other: Size) -> Affine:
        if isinstance(other, Affine):
            raise FixedSizeError("a size is the product of two that follow the batch.")
        return Affine(self.offset * other, self.slope * other)

    __radd__ = __add__
    __rmul__ = __mul__


Size: TypeAlias = int | Affine
Sizes: TypeAlias = tuple[Size, ...]


def product(sizes: Sequence[Size]) -> Size:
    """All of them multiplied; FixedSizeError if two follow the batch."""
    found: Size = 1
    for size in sizes:
        found = found * size
    return found


def whole(values: Any, what: str) -> tuple[int, ...]:
    """Numbers none of which may follow the batch; FixedSizeError otherwise."""
    found = []
    for value in values:
        if isinstance(value, Affine):
            raise FixedSizeError(f"{what} follows the size of the batch.")
        found.append(int(value))
    return tuple(found)


class Known:
    """Shapes, attributes and constants of a graph's nodes, as they follow the batch.

    Args:
        graphs: of one function, for these batches; one: nothing follows the batch.
        batches: sizes.

    Raises:
        FixedSizeError: the graphs differ in more than numbers.
    """

    def __init__(self, graphs: Sequence[Graph], batches: Sequence[int]) -> None:
        self._batches = tuple(batches)
        self._shapes: dict[int, Sizes] = {}
        self._attrs: dict[int, dict[str, Any]] = {}
        self._constants: dict[int, list[Any]] = {}
        if len(graphs) > 1:
            self._align([live_order(g) for g in graphs])

    def shape(self, node: Node) -> Sizes:
        """Its shape."""
        return self._shapes.get(id(node), node.shape)

    def attrs(self, node: Node) -> dict[str, Any]:
        """Its attributes."""
        return self._attrs.get(id(node), node.attrs)

    def varying(self, node: Node) -> list[Any]:
        """A constant's values in all traces, if they differ; else nothing."""
        return self._constants.get(id(node), [])

    @property
    def batches(self) -> tuple[int, ...]:
        return self._batches

    def _align(self, lists: list[list[Node]]) -> None:
        if len({len(nodes) for nodes in lists}) > 1:
            raise FixedSizeError("the traced function does other things for other batches.")
        places = [{n.index: i for i, n in enumerate(nodes)} for nodes in lists]
        for nodes in zip(*lists, strict=True):
            first = nodes[0]
            inputs = {tuple(at[i.index] for i in n.inputs) for at, n in zip(places, nodes)}
            alike = len({n.spec for n in nodes}) == len({n.dtype for n in nodes}) == len(inputs)
            if not alike or len(inputs) != 1:
                raise FixedSizeError(f"{first.spec.name} does other things for other batches.")
            self._shapes[id(first)] = self._common([n.shape for n in nodes], first)
            if first.spec is CONST:
                self._constant(nodes)
            else:
                self._attrs[id(first)] = {
                    key: self._common([n.attrs[key] for n in nodes], first) for key in first.attrs
                }

    def _constant(self, nodes: Sequence[Node]) -> None:
        values = [n.payload for n in nodes]
        same = all(v.shape == values[0].shape for v in values)
        if not (same and all(v.tobytes() == values[0].tobytes() for v in values)):
            self._constants[id(nodes[0])] = values

    def _common(self, values: Sequence[Any], node: Node) -> Any:
        """A value as it follows the batch; of loops their bodies are compared."""
        first = values[0]
        if isinstance(first, Loop):
            if id(first.body) not in self._shapes:
                self._shapes[id(first.body)] = ()
                self._align([v.body.nodes for v in values])
            return first
        if all(type(v) is type(first) and v == first for v in values):
            return first
        if isinstance(first, tuple) and len({len(v) for v in values}) == 1:
            return tuple(self._common(parts, node) for parts in zip(*values))
        if isinstance(first, int):
            return self._line(values, node)
        raise FixedSizeError(f"{node.spec.name}: {first!r} is another for other batches.")

    def _line(self, values: Sequence[int], node: Node) -> Affine:
        n = self._batches
        slope, rest = divmod(values[1] - values[0], n[1] - n[0])
        offset = values[0] - slope * n[0]
        if rest or any(offset + slope * b != v for b, v in zip(n, values)):
            raise FixedSizeError(f"{node.spec.name}: sizes {tuple(values)} for batches {n}.")
        return Affine(offset, slope)


def uniform(values: Sequence[Any]) -> Any:
    """The one number of which all these arrays consist, or None."""
    numbers = {float(x) for v in values if v.size for x in (v.flat[0], v.min(), v.max())}
    return np.asarray(values[0]).flat[0] if len(numbers) == 1 else None


def counted(values: Sequence[Any]) -> tuple[int, int] | None:
    """(start, step) of arrays start, start + step, ... of whole numbers, along one axis."""
    first = values[-1].reshape(-1)
    if first.dtype.kind != "i" or len(first) < 2 or any(v.size != max(v.shape) for v in values):
        return None
    start, step = int(first[0]), int(first[1] - first[0])
    for value in values:
        if not np.array_equal(value.reshape(-1), start + step * np.arange(value.size)):
            return None
    return start, step
