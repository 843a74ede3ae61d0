"""What layers compute, with their weights as arguments."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import shown, truth
from gpubp.core import describe
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from gpubp.nn.table_functions import by_frequency, checked_norm, shortened
from gpubp.ops.spec import beside, is_concrete, promote


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """y_k = input1^T W_k input2 + b_k.

    Args:
        input1, input2: (..., in1) and (..., in2), with equal leading axes.
        weight: (out, in1, in2).
        bias: (out,), or None.

    Returns:
        (..., out).

    Raises:
        ShapeError: shapes do not fit.
    """
    input1, input2, weight = promote(input1, input2, weight, floating=True)
    out, *wanted = tuple(weight.shape) if len(weight.shape) == 3 else (0, 0, 0)
    shapes = tuple(input1.shape), tuple(input2.shape)
    if (
        not out
        or [s[-1:] for s in shapes] != [(n,) for n in wanted]
        or (shapes[0][:-1] != shapes[1][:-1])
    ):
        raise ShapeError(
            f"bilinear: got input1 {describe(input1)}, input2 {describe(input2)} and weight "
            f"{describe(weight)}, expected (..., in1), (..., in2) with equal leading axes and "
            "(out, in1, in2)."
        )
    weight = beside(weight, input1)
    # (in1, out * in2): one matrix product for all outputs.
    table = ops.reshape(ops.transpose(weight, (1, 0, 2)), (wanted[0], -1))
    rows = ops.reshape(ops.matmul(input1, table), (*shapes[0][:-1], out, wanted[1]))
    y = ops.sum(ops.multiply(rows, ops.expand_dims(input2, -2)), -1)
    return y if bias is None else ops.add(y, bias)


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of a table by integers.

    Args:
        input: indices (...), int32 or int64, from 0 to the number of rows - 1.
        weight: (rows, width).
        padding_idx: the row of this index gets no gradient; negative ones count from the end.
        max_norm: rows that are looked up and whose norm is larger are scaled to it, in the table
            itself, which has to be an nn.Parameter or an nn.Buffer; not differentiated.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it is looked up in this call.
        sparse: taken for torch's sake: gradients are dense and updates pass over rows without one
            where that changes nothing; `optim.SparseAdam` finds the rows by itself.

    Returns:
        (..., width).

    Raises:
        DTypeError: the indices are not integers.
        IndexRangeError: an index, or padding_idx, is out of range.
        ArgumentError: max_norm for a table that cannot be rewritten; an argument of another kind.
        DataError: max_norm is negative.
        ShapeError: with max_norm, the table is no matrix.
    """
    by_freq = truth("embedding", "scale_grad_by_freq", scale_grad_by_freq)
    truth("embedding", "sparse", sparse)
    checked_norm("embedding", max_norm, norm_type)
    table, (indices,), (weight,) = weight, promote(input), promote(weight)
    if indices.dtype.kind != "i":
        raise DTypeError(
            f"embedding: got indices {describe(indices)}, expected int32 or int64. Convert them "
            "with x.astype('int64')."
        )
    if max_norm is not None:
        if len(weight.shape) != 2:
            raise ShapeError(f"embedding: got a table {describe(weight)}, expected a matrix.")
        weight = shortened("embedding", table, indices, max_norm, norm_type)
    found = ops.gather(weight, indices)
    if by_freq:
        found = by_frequency(found, indices, weight.shape[0])
    if padding_idx is None:
        return found
    padding = ops.expand_dims(ops.equal(indices, _padding_row(padding_idx, weight.shape[0])), -1)
    return ops.where(padding, ops.stop_gradient(found), found)


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} is {shown(value)}, expected a whole number.") from None


def _padding_row(padding_idx: Any, rows: int) -> int:
    found = _whole("embedding: padding_idx", padding_idx)
    if not -rows <= found < rows:
        raise IndexRangeError(f"embedding: padding_idx {found} is out of range for {rows} rows.")
    return found % rows


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """1 at each label's place along a new last axis, else 0; int64.

    Args:
        tensor: labels (...), int32 or int64, from 0 to num_classes - 1.
        num_classes: the size of the new axis; -1: one more than the largest label.

    Raises:
        ArgumentError: -1 in a compiled function, where labels are not known, or no whole number.
        IndexRangeError: a known label is out of range.
        DTypeError: the labels are not integers.
    """
    (labels,), num_classes = promote(tensor), _whole("one_hot: num_classes", num_classes)
    known = labels.value if isinstance(labels, Slot) else labels
    if num_classes != -1 or not is_concrete(known):
        if num_classes == -1:
            raise ArgumentError(
                "one_hot: num_classes is -1, expected the number of classes: the labels are not "
                "known here."
            )
    elif not np.size(known):
        raise ArgumentError("one_hot: num_classes is -1, and there are no labels to count by.")
    elif known.dtype.kind in "iu":
        num_classes = int(np.max(known)) + 1
    if is_concrete(known) and np.size(known) and known.dtype.kind in "iu":
        low, high = int(np.min(known)), int(np.max(known))
        if low < 0 or high >= num_classes:
            raise IndexRangeError(
                f"one_hot: label {low if low < 0 else high} is out of range for {num_classes} "
                "classes."
            )
    return ops.one_hot(labels, num_classes, "int64")
