"""Which elements of a program's inputs are class labels or indices, and their limits.

Comes in: a canonical graph and its layouts. Goes out: limits that a run checks before any work,
each for the part of an input that is used so. Labels and indices that are computed inside the
program, and those of some rows of a batch only, are looked at by the kernels that use them.
"""

from __future__ import annotations

import math

from gpubp.compiler.program import IndexLimit
from gpubp.compiler.views import Layout, c_strides
from gpubp.core import INPUT, Graph, Node


def index_limits(graph: Graph, layouts: dict[int, Layout], batched: bool) -> list[IndexLimit]:
    """The limits of a program's inputs, the smallest one where an input has several.

    Args:
        graph: from `canonicalize`.
        layouts: its layouts.
        batched: inputs are batches of resident arrays.
    """
    limits: dict[IndexLimit, int] = {}
    for node in graph.nodes:
        name = node.spec.name
        if name not in ("gather", "softmax_cross_entropy", "softmax_cross_entropy_grad"):
            continue
        data = node.inputs[0]
        limit = data.shape[node.attrs["axis"] if name == "gather" else -1]
        found = _region(_uncopied(node.inputs[1], layouts), batched)
        if found is not None:
            limits[found] = min(limit, limits.get(found, limit))
    return [region._replace(limit=limit) for region, limit in limits.items()]


def _uncopied(node: Node, layouts: dict[int, Layout]) -> Layout:
    """The layout of a value, before it was copied to be contiguous."""
    layout = layouts[node.index]
    while layout.base.spec.name == "copy" and layout.whole:
        layout = layouts[layout.base.inputs[0].index]
    return layout


def _region(layout: Layout, batched: bool) -> IndexLimit | None:
    """What a layout reads of an input, the limit left open; None if it is not known before a run.

    In a batched program that is part of every sample.
    """
    base = layout.base
    if base.spec is not INPUT:
        return None
    if not batched:
        return IndexLimit(base.payload, 0, layout.offset, layout.shape, layout.strides)
    sample = base.shape[1:]
    if layout.whole:
        return IndexLimit(base.payload, 0, 0, sample, c_strides(sample))
    if not layout.shape:
        return None
    size, (rows, *shape), (step, *strides) = math.prod(sample), layout.shape, layout.strides
    steps = [(n - 1) * s for n, s in zip(shape, strides)]
    first = layout.offset + sum(min(s, 0) for s in steps)
    last = layout.offset + sum(max(s, 0) for s in steps)
    if (rows, step) != (base.shape[0], size) or not 0 <= first <= last < size:
        return None
    return IndexLimit(base.payload, 0, layout.offset, tuple(shape), tuple(strides))
