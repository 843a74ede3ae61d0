"""Means and sums that remember what they are: a loss over a part of its elements.

The mean of a loss with ignored labels, class weights or a mask is a sum over a count, and the mean
over two batches is not the mean of their means. So a traced result keeps sum and count beside it
(`Graph.ratios`); `gpubp.runtime.totals` reads them where batches meet.
"""

from __future__ import annotations

import math
from typing import Any

from gpubp.core import ALIAS, Array, describe
from gpubp.errors import ShapeError
from gpubp.ops.elementwise import divide
from gpubp.ops.logic import equal, where
from gpubp.ops.spec import promote


def mean_over(total: Any, count: Any) -> Any:
    """`total / count`: the mean of a loss over what counts, for losses of one's own.

    Steps, accumulation, `Trainer.evaluate` and the history then add sums and counts of batches
    instead of averaging means. Where nothing counts the result is NaN and its gradient 0, so such a
    batch moves nothing.

    Args:
        total: the sum of the losses that count, a scalar.
        count: how many there are, or the sum of their weights, a scalar.

    Raises:
        ShapeError: one of them is no scalar.
    """
    total, count = promote(total, count, floating=True)
    for value in (total, count):
        if value.shape != ():
            raise ShapeError(f"mean_over: expected scalars, got {describe(value)}.")
    empty = equal(count, 0.0)
    safe = where(empty, 1.0, count)
    return _remembered(where(empty, math.nan, divide(total, safe)), total, count)


def whole(total: Any) -> Any:
    """`total` itself, remembered as a sum: over several batches it adds up."""
    return _remembered(total, total, None)


def _remembered(value: Any, total: Any, count: Any) -> Any:
    if not isinstance(value, Array):
        return value
    graph = value.graph
    # A node of its own: an equal sum inside a mean is not meant.
    node = graph.add(ALIAS, (value.node,), {"tag": f"ratio {len(graph.nodes)}"})
    sums = graph.lift(total), None if count is None else graph.lift(count)
    graph.ratios[node.index] = sums
    return Array(graph, node)
