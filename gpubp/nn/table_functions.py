"""What a look-up does to its table: shortens rows, divides gradients by how often one is read."""

from __future__ import annotations

import math
from typing import Any

from gpubp import ops
from gpubp.arguments import is_number, shown
from gpubp.core import active_graph
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError
from gpubp.ops.spec import is_concrete


def checked_norm(owner: str, max_norm: Any, norm_type: Any) -> None:
    """Raise ArgumentError unless both are numbers, DataError unless max_norm is at least 0."""
    for name, value in (("max_norm", max_norm), ("norm_type", norm_type)):
        if value is not None and not is_number(value):
            raise ArgumentError(f"{owner}: {name} is {shown(value)}, expected a number.")
    if max_norm is not None and not max_norm >= 0:
        raise DataError(f"{owner}: max_norm is {max_norm}, expected at least 0.")
    if norm_type is None or math.isnan(norm_type):
        raise ArgumentError(f"{owner}: norm_type is {norm_type}, expected a number.")


def count_rows(indices: Any, rows: int) -> Any:
    """How often each row is named: (rows,) int64."""
    flat = ops.reshape(indices, (-1,))
    return ops.scatter_add(ops.ones_like(flat, "int64"), flat, rows)


def shortened(owner: str, table: Any, indices: Any, max_norm: float, norm_type: float) -> Any:
    """The table after its named rows were scaled to a norm of at most `max_norm`; it is written.

    As torch.embedding_renorm_: w max_norm / (|w| + 1e-7) where |w| > max_norm. That is no part of
    what is differentiated: the gradient by the new row is taken as that by the old one.

    Raises:
        ArgumentError: the table is no nn.Parameter and no nn.Buffer.
    """
    if not isinstance(table, Slot):
        raise ArgumentError(
            f"{owner}: with max_norm rows of the table are rewritten, so it has to be an "
            f"nn.Parameter or an nn.Buffer, got {shown(table)}."
        )
    graph = active_graph()
    if graph is None:
        table.value = _scaled(table.value, indices, max_norm, norm_type)
        return table
    old = graph.array(table)
    held = ops.stop_gradient(old)
    new = ops.add(ops.subtract(old, held), _scaled(held, indices, max_norm, norm_type))
    graph.assign(table, graph.lift(new))
    return new


def _scaled(table: Any, indices: Any, max_norm: float, norm_type: float) -> Any:
    size = ops.norm(table, norm_type, 1)
    named = ops.greater(count_rows(indices, table.shape[0]), 0)
    long = ops.logical_and(ops.greater(size, max_norm), named)
    factor = ops.where(long, ops.divide(max_norm, ops.add(size, 1e-7)), 1.0)
    return ops.multiply(table, ops.expand_dims(ops.astype(factor, table.dtype), 1))


def by_frequency(found: Any, indices: Any, rows: int) -> Any:
    """Vectors as they are, whose gradient is divided by how often their row was read."""
    if is_concrete(found):
        return found
    many = ops.gather(count_rows(indices, rows), indices)
    share = ops.expand_dims(ops.divide(1.0, ops.astype(many, found.dtype)), -1)
    held = ops.stop_gradient(found)
    return ops.add(held, ops.multiply(ops.subtract(found, held), share))
