"""Misuse of every family of ops: the right exception, with a message that helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from specs import FLOATS, ROWS, cases

from gpubp import ops
from gpubp.core import evaluate
from gpubp.errors import (
    DataError,
    DTypeError,
    GpubpError,
    IndexRangeError,
    ShapeError,
    TraceError,
    UnknownNameError,
)

X, Y, LABELS = np.ones((2, 3)), np.ones((4, 5)), np.zeros(2, np.int64)
FLAGS = np.ones(3, bool)
MISUSE: dict[str, tuple[Callable[[], Any], type[GpubpError]]] = {
    "add broadcast": (lambda: ops.add(X, Y), ShapeError),
    "add bools": (lambda: ops.add(FLAGS, FLAGS), DTypeError),
    "negative bools": (lambda: ops.negative(FLAGS), DTypeError),
    "unknown dtype": (lambda: ops.add(X.astype(complex), X), DTypeError),
    "logical_and floats": (lambda: ops.logical_and(X, X), DTypeError),
    "where floats": (lambda: ops.where(X, X, X), DTypeError),
    "where broadcast": (lambda: ops.where(FLAGS, X, Y), ShapeError),
    "cast": (lambda: ops.astype(X, "complex64"), DTypeError),
    "clip nothing": (lambda: ops.clip(X), DataError),
    "clip nan": (lambda: ops.clip(X, float("nan"), 1.0), DataError),
    "elu alpha": (lambda: ops.elu(X, -1.0), DataError),
    "gelu form": (lambda: ops.gelu(X, "tan"), UnknownNameError),
    "softplus beta": (lambda: ops.softplus(X, 0.0), DataError),
    "sum axis": (lambda: ops.sum(X, 2), ShapeError),
    "sum twice": (lambda: ops.sum(X, (0, -2)), ShapeError),
    "max empty": (lambda: ops.max(np.ones((0, 3)), 0), ShapeError),
    "max bools": (lambda: ops.max(FLAGS), DTypeError),
    "argmax empty": (lambda: ops.argmax(np.ones(0)), ShapeError),
    "mean empty": (lambda: ops.mean(np.ones(0)), ShapeError),
    "mean ints": (lambda: ops.mean(LABELS), DTypeError),
    "reshape": (lambda: ops.reshape(X, (4, 2)), ShapeError),
    "reshape -1": (lambda: ops.reshape(X, (4, -1)), ShapeError),
    "reshape two -1": (lambda: ops.reshape(X, (-1, -1)), ShapeError),
    "reshape float": (lambda: ops.reshape(X, (2.0, 3)), ShapeError),  # type: ignore[arg-type]
    "transpose": (lambda: ops.transpose(X, (0, 0)), ShapeError),
    "broadcast_to": (lambda: ops.broadcast_to(X, (2, 4)), ShapeError),
    "broadcast_to fewer": (lambda: ops.broadcast_to(X, (3,)), ShapeError),
    "squeeze": (lambda: ops.squeeze(X, 0), ShapeError),
    "expand_dims": (lambda: ops.expand_dims(X, 5), ShapeError),
    "flatten": (lambda: ops.flatten(X, 1, 0), ShapeError),
    "concat none": (lambda: ops.concat([]), ShapeError),
    "concat shapes": (lambda: ops.concat([X, Y]), ShapeError),
    "stack shapes": (lambda: ops.stack([X, Y]), ShapeError),
    "stack none": (lambda: ops.stack([]), ShapeError),
    "gather floats": (lambda: ops.gather(X, X), DTypeError),
    "gather high": (lambda: ops.gather(X, np.array([0, 2])), IndexRangeError),
    "gather negative": (lambda: ops.gather(X, np.array([-1])), IndexRangeError),
    "scatter shape": (lambda: ops.scatter_add(X, np.arange(3), 5), ShapeError),
    "scatter high": (lambda: ops.scatter_add(X, np.array([0, 5]), 5), IndexRangeError),
    "getitem int": (lambda: ops.getitem(X, 2), IndexRangeError),
    "getitem many": (lambda: ops.getitem(X, (0, 0, 0)), IndexRangeError),
    "getitem mask": (lambda: ops.getitem(X, np.ones(7, bool)), ShapeError),
    "getitem bool": (lambda: ops.getitem(X, True), TraceError),
    "getitem mixed": (lambda: ops.getitem(X, (np.array([0.5]), 0)), TraceError),
    "getitem name": (lambda: ops.getitem(X, "a"), TraceError),
    "matmul": (lambda: ops.matmul(X, Y), ShapeError),
    "matmul scalar": (lambda: ops.matmul(X, 2.0), ShapeError),
    "matmul batch": (lambda: ops.matmul(np.ones((2, 3, 3)), np.ones((4, 3, 3))), ShapeError),
    "linear": (lambda: ops.linear(X, Y), ShapeError),
    "linear bias": (lambda: ops.linear(X, np.ones((4, 3)), np.ones(1)), ShapeError),
    "softmax scalar": (lambda: ops.softmax(1.0), ShapeError),
    "softmax empty": (lambda: ops.softmax(np.ones((2, 0))), ShapeError),
    "labels float": (lambda: ops.softmax_cross_entropy(X, np.zeros(2)), DTypeError),
    "labels shape": (lambda: ops.softmax_cross_entropy(X, np.zeros(3, int)), ShapeError),
    "labels range": (lambda: ops.softmax_cross_entropy(X, np.array([0, 3])), DataError),
    "uniform ints": (lambda: ops.uniform(3, "int32"), DTypeError),
    "uniform shape": (lambda: ops.uniform(-1), ShapeError),
    "dropout p": (lambda: ops.dropout(X, 1.5), DataError),
    "seed": (lambda: ops.manual_seed(-1), DataError),
    "seed float": (lambda: ops.Generator(1.5), DataError),  # type: ignore[arg-type]
    "ema decay": (lambda: ops.update.ema(X, X, "a"), DataError),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_a_clear_error(name: str) -> None:
    call, error = MISUSE[name]
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    assert len(str(caught.value)) > 15


def test_messages_name_the_offender() -> None:
    with pytest.raises(DataError, match=r"label 7 at \(1,\).*0 to 2"):
        ops.softmax_cross_entropy(X, np.array([0, 7]))
    with pytest.raises(IndexRangeError, match=r"index 9 .* axis of size 2"):
        ops.gather(X, np.array([1, 9]))
    with pytest.raises(ShapeError, match=r"float64\[2, 3\] and float64\[4, 5\]"):
        ops.add(X, Y)


@pytest.mark.parametrize("op", [n for n in sorted(ROWS) if len(ROWS[n].shapes[-1]) > 1])
def test_mixed_dtypes_are_refused(op: str) -> None:
    """Specs never convert: that is the work of the public functions."""
    case = next(c for c in cases(ROWS[op]) if len(c.shapes) > 1)
    *rest, last = case.args()
    wrong = last.astype("float32" if last.dtype == np.float64 else "float64")
    with pytest.raises(DTypeError):
        evaluate(case.row.spec, [*rest, wrong], case.attrs)


@pytest.mark.parametrize(
    "op", [n for n, r in sorted(ROWS.items()) if len(r.shapes[-1]) == 1 and r.dtypes == FLOATS]
)
def test_float_ops_refuse_integers(op: str) -> None:
    case = next(cases(ROWS[op]))
    with pytest.raises(DTypeError):
        evaluate(case.row.spec, [a.astype(np.int64) for a in case.args()], case.attrs)
