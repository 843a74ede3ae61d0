"""Which elements of a program's inputs are class labels or indices, and their limits.

Comes in: a canonical graph and its layouts. Goes out: limits that a run checks before any work,
each for the part of an input that is used so. Labels and indices that are computed inside the
program, and those of some rows of a batch only, are looked at by the kernels that use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gpubp.compiler.views import Layout
from gpubp.core import INPUT, Graph, Node, Shape
from gpubp.core.strided import c_strides
from gpubp.ops.logic import COPY


class IndexLimit(NamedTuple):
    """Elements of an input that are class labels or indices.

    Attributes:
        input: the input's position.
        limit: they are 0 to `limit` - 1.
        offset, shape, strides: which ones, in elements of the input, or of each sample of it.
        batched: batches are gathered from the input.
    """

    input: int
    limit: int
    offset: int
    shape: Shape
    strides: tuple[int, ...]
    batched: bool = False

    def layout(self, array: NDArray[Any]) -> tuple[Shape, tuple[int, ...]]:
        """Shape and strides, in elements, of what is limited in `array`, from `offset` on."""
        if not self.batched:
            return self.shape, self.strides
        sample = math.prod(array.shape[1:])
        return (len(array), *self.shape), (sample, *self.strides)

    def bad(self, array: NDArray[Any]) -> tuple[int, ...] | None:
        """Where in `array` the first element that is out of range stands; None: there is none."""
        shape, strides = self.layout(array)
        if 0 in shape:
            return None
        nbytes = tuple(s * array.itemsize for s in strides)
        used = as_strided(array.reshape(-1)[self.offset :], shape, nbytes, writeable=False)
        if used.min() >= 0 and used.max() < self.limit:
            return None
        first = np.argwhere((used < 0) | (used >= self.limit))[0]
        at = self.offset + sum(int(i) * s for i, s in zip(first, strides))
        return tuple(int(i) for i in np.unravel_index(at, array.shape))


def index_limits(
    graph: Graph, layouts: dict[int, Layout], batched: Sequence[int]
) -> list[IndexLimit]:
    """The limits of a program's inputs, the smallest one where an input has several.

    Args:
        graph: from `canonicalize`.
        layouts: its layouts.
        batched: positions of the inputs that are batches of resident arrays.
    """
    limits: dict[IndexLimit, int] = {}
    for node in graph.nodes:
        if node.spec.indices is None:
            continue
        position, limit_of = node.spec.indices
        limit = limit_of(*node.inputs, **node.attrs)
        found = _region(_uncopied(node.inputs[position], layouts), batched)
        if found is not None:
            limits[found] = min(limit, limits.get(found, limit))
    return [region._replace(limit=limit) for region, limit in limits.items()]


def _uncopied(node: Node, layouts: dict[int, Layout]) -> Layout:
    """The layout of a value, before it was copied to be contiguous."""
    layout = layouts[node.index]
    while layout.base.spec is COPY and layout.whole:
        layout = layouts[layout.base.inputs[0].index]
    return layout


def _region(layout: Layout, batched: Sequence[int]) -> IndexLimit | None:
    """What a layout reads of an input, the limit left open; None if it is not known before a run.

    Of a batch that is part of every sample.
    """
    base = layout.base
    if base.spec is not INPUT:
        return None
    if base.payload not in batched:
        return IndexLimit(base.payload, 0, layout.offset, layout.shape, layout.strides)
    sample = base.shape[1:]
    if layout.whole:
        return IndexLimit(base.payload, 0, 0, sample, c_strides(sample), True)
    if not layout.shape:
        return None
    size, (rows, *shape), (step, *strides) = math.prod(sample), layout.shape, layout.strides
    steps = [(n - 1) * s for n, s in zip(shape, strides)]
    first = layout.offset + sum(min(s, 0) for s in steps)
    last = layout.offset + sum(max(s, 0) for s in steps)
    if (rows, step) != (base.shape[0], size) or not 0 <= first <= last < size:
        return None
    return IndexLimit(base.payload, 0, layout.offset, tuple(shape), tuple(strides), True)
