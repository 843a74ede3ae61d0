"""Reductions and functions of rows as operators of ONNX."""

from __future__ import annotations

import numpy as np

from gpubp.onnx.rules import Op, rule
from gpubp.onnx.writer import Writer


@rule("sum")
def _sum(w: Writer, op: Op) -> str:
    """Sums of whole numbers are int64."""
    (x,), axes = op.inputs, op.attrs["axis"]
    name = x.name if x.dtype == op.dtype else w.cast(x.name, op.dtype)
    if not axes:
        return name
    kind = "ReduceMean" if op.attrs.get("mean") else "ReduceSum"
    return _over(w, kind, name, op)


@rule("max", "min")
def _extremum(w: Writer, op: Op) -> str:
    if not op.attrs["axis"]:
        return op.names[0]
    return _over(w, "ReduceMax" if op.spec.name == "max" else "ReduceMin", op.names[0], op)


def _over(w: Writer, kind: str, name: str, op: Op) -> str:
    axes = w.constant(np.array(op.attrs["axis"], np.int64))
    return w.node(kind, name, axes, keepdims=int(op.attrs["keepdims"]))


@rule("argmax", "argmin")
def _place(w: Writer, op: Op) -> str:
    """The first of equal ones. ONNX Runtime has none of int64."""
    (x,) = op.inputs
    name = w.cast(x.name, np.float64) if x.dtype == np.int64 else x.name
    kind = "ArgMax" if op.spec.name == "argmax" else "ArgMin"
    return w.node(kind, name, axis=op.attrs["axis"][0], keepdims=int(op.attrs["keepdims"]))


@rule("softmax", "log_softmax")
def _softmax(w: Writer, op: Op) -> str:
    kind = "Softmax" if op.spec.name == "softmax" else "LogSoftmax"
    return w.node(kind, op.names[0], axis=-1)


@rule("softmax_cross_entropy")
def _cross_entropy(w: Writer, op: Op) -> str:
    logits, labels = op.inputs
    rows = w.node("LogSoftmax", logits.name, axis=-1)
    last = w.constant(np.array([-1], np.int64))
    at = w.node("Unsqueeze", labels.name, last)
    picked = w.node("GatherElements", rows, at, axis=-1)
    return w.node("Neg", w.node("Squeeze", picked, last))
