"""Which rows of its operands a worker touches: how a part's work is shared."""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.compiler.group import Group
from gpubp.compiler.views import Layout
from gpubp.core import Kind, Node


def rows_of(group: Group) -> int:
    """How many rows the part's workers share; 0 for one worker."""
    anchor = group.anchor
    if anchor is None:
        return group.shape[0] if group.shape else 0
    if anchor.spec.kind is Kind.REDUCE:
        kept = [n for i, n in enumerate(anchor.inputs[0].shape) if i not in anchor.attrs["axis"]]
        first = next(iter(kept), 0)
        whole = anchor.shape[:1] == (first,) or anchor.attrs["axis"][:1] != (0,)
        return first if kept and whole else 0
    if anchor.spec.kind is Kind.ROWWISE:
        full = anchor.inputs[0].shape
        return full[0] if len(full) > 1 else 0
    if anchor.spec.kind is Kind.MATMUL:
        return anchor.shape[0]
    return anchor.shape[0] if _row_inputs(anchor) is not None and anchor.shape else 0


def _row_inputs(node: Node) -> Sequence[int] | None:
    """Inputs of which a worker reads the rows of its share alone; None: rows are not shared."""
    if node.spec.row_inputs is not None:
        return node.spec.row_inputs(len(node.inputs), **node.attrs)
    return range(len(node.inputs)) if node.spec.kind is Kind.ROWWISE else None


def shared_axis(
    group: Group, node: Node, position: int, layout: Layout, rows: int, prologue: set[int]
) -> int | None:
    """The axis of the operand of which worker w reads only its own share.

    `prologue`: the nodes that run over the input of a reduction, the reduction included.
    """
    anchor = group.anchor
    if rows > 0 and anchor is not None and node.index in prologue:
        if node.spec.kind is Kind.RANDOM:
            return None
        return _kept_axis(anchor, layout, rows)
    return 0 if _reads_by_rows(group, node, position, layout, rows) else None


def _kept_axis(reduction: Node, layout: Layout, rows: int) -> int | None:
    """The first axis that a reduction keeps."""
    summed, full = reduction.attrs["axis"], reduction.inputs[0].shape
    axis = next((i for i in range(len(full)) if i not in summed), None)
    if axis is None:
        return None
    shared = len(layout.shape) == len(full) and layout.shape[axis] == rows
    return axis if shared and layout.strides[axis] != 0 else None


def _reads_by_rows(group: Group, node: Node, position: int, layout: Layout, rows: int) -> bool:
    """Worker w reads only its own share of the operand's first axis."""
    if rows == 0 or not layout.shape or layout.shape[0] != rows or layout.strides[0] == 0:
        return False
    anchor = group.anchor
    if node.spec.kind is Kind.RANDOM:
        return False
    if node.spec.kind in (Kind.ROWWISE, Kind.CONV, Kind.MOVE):
        return position in (_row_inputs(node) or ())
    if node is not anchor:
        return len(layout.shape) == len(node.shape)
    if node.spec.kind is Kind.MATMUL:
        plain = len(node.shape) == 2
        return position == 0 if plain else len(layout.shape) == len(node.shape)
    return False
