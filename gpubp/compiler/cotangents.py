"""Cotangents of a value that is used several times: their sum, or the parts put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from gpubp.core import Array, bind
from gpubp.ops.index import CONCAT
from gpubp.ops.slicing import UNSLICE


def total(parts: Sequence[Any]) -> Any:
    """The sum of cotangents, in the order in which they came; of the pieces of a loop, all."""
    if isinstance(parts[0], tuple):
        return parts
    axis = _split_axis(parts)
    if axis is None:
        return reduce(add, parts)
    starts = sorted((p.node.attrs["starts"][axis], p.node.index, p) for p in parts)
    sources = [Array(p.graph, p.node.inputs[0]) for _, _, p in starts]
    return bind(CONCAT, *sources, axis=axis)


def _split_axis(parts: Sequence[Array]) -> int | None:
    """The axis along which slices, whose cotangents these are, lie side by side and fill a value:
    then nothing need be added up.
    """
    nodes = [p.node for p in parts]
    if len(nodes) < 2 or any(n.spec is not UNSLICE for n in nodes):
        return None
    shape = nodes[0].shape
    cut = {i for n in nodes for i, size in enumerate(n.inputs[0].shape) if size != shape[i]}
    if len(cut) != 1 or any(set(n.attrs["steps"]) != {1} for n in nodes):
        return None
    (axis,) = cut
    reached = 0
    for start, size in sorted((n.attrs["starts"][axis], n.inputs[0].shape[axis]) for n in nodes):
        if start != reached:
            return None
        reached += size
    return axis if reached == shape[axis] else None
