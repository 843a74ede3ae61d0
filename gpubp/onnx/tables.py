"""A model of the command line with its preprocessing, from raw columns to labels, as one graph.

Comes in: a model and its `Encoding`. Goes out: a model of ONNX whose inputs are the columns of the
table (numbers float64, names as texts, dates as days since 1970), and whose outputs are labels and
probabilities, or numbers in the units of the data.

What stands between is one function of gpubp's ops, traced and written as any other. Two things ONNX
does with texts that gpubp's arrays cannot hold: names become numbers before it, and numbers become
labels behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gpubp import ops
from gpubp.data.columns import Column
from gpubp.data.encoding import Encoding
from gpubp.data.gaps import MISSING
from gpubp.data.numerals import as_number, label_key
from gpubp.nn.module import Module
from gpubp.onnx.calendar import parts_of
from gpubp.onnx.exporting import exported
from gpubp.onnx.signature import Signature

_MISSING, _UNKNOWN = -1, -2  # numbers of names
_ML = "ai.onnx.ml"


def with_preprocessing(model: Module, encoding: Encoding) -> Any:
    """The model of ONNX.

    Args:
        model: takes what `encoding.scaled` gives.
        encoding: how data become numbers, and outputs labels.

    Returns:
        An `onnx.ModelProto`. Inputs are named as the columns; of models of arrays there is one, X.
        Outputs: `label` and `probabilities`, or `prediction`.
    """
    pipeline = _Pipeline(model, encoding)
    names = [c.name for c in encoding.columns] or ["X"]
    outputs = ["label", "probabilities"] if encoding.classes else ["prediction"]
    signature = Signature(pipeline.examples(), 0, names, outputs)
    made = exported(pipeline, signature, True)
    for column in encoding.columns:
        if column.names:
            _take_texts(made.graph, column)
    if any(column.names for column in encoding.columns):
        made.opset_import.append(helper.make_opsetid(_ML, 3))
    if encoding.classes:
        _give_labels(made.graph, encoding.classes)
    onnx.checker.check_model(made, full_check=True)
    return made


class _Pipeline(Module):
    """Columns to results; names are numbers already."""

    def __init__(self, model: Module, encoding: Encoding) -> None:
        super().__init__()
        self.model = model
        self._encoding = encoding

    def examples(self) -> list[Any]:
        """Of the columns, or of the one array."""
        found = self._encoding
        if found.image:
            return [np.zeros((2, *found.image), np.float32)]
        if not found.columns:
            return [np.zeros((2, found.width), np.float64)]
        return [np.zeros(2, np.int64 if c.names else np.float64) for c in found.columns]

    def forward(self, *given: Any) -> Any:
        """(class indices, probabilities), or numbers in the units of the data."""
        found = self._encoding
        X = features(found.columns, given) if found.columns else ops.astype(given[0], "float64")
        if found.scale is not None:
            wide = (-1, *[1] * (len(X.shape) - 2))
            mean, std = (np.reshape(v, wide) for v in (found.scale.mean, found.scale.std))
            X = ops.divide(ops.subtract(X, mean), std)
        outputs = self.model(ops.astype(X, "float32"))
        if found.classes:
            return ops.argmax(outputs, 1), ops.softmax(outputs, 1)
        y = ops.astype(ops.reshape(outputs, (outputs.shape[0], -1)), "float64")
        if found.target_scale is None:
            return y
        return ops.add(ops.multiply(y, found.target_scale.std), found.target_scale.mean)


def features(columns: Sequence[Column], given: Sequence[Any]) -> Any:
    """The numbers of all columns side by side, as `gpubp.data.columns.encoded` makes them."""
    parts: list[Any] = []
    for column, x in zip(columns, given, strict=True):
        if column.names:
            places = np.arange(len(column.names) + column.rest)
            hot = ops.equal(ops.expand_dims(x, 1), places)
            parts.append(ops.astype(hot, "float64"))
            gap = ops.equal(x, _MISSING)
        else:
            gap = ops.not_equal(x, x)
            measured = parts_of(x, column.parts) if column.date else [x]
            fills: Sequence[float | None] = column.fill or [None] * len(measured)
            for value, fill in zip(measured, fills, strict=True):
                whole = value if fill is None else ops.where(gap, fill, value)
                parts.append(ops.expand_dims(whole, 1))
        if column.mark:
            parts.append(ops.expand_dims(ops.astype(gap, "float64"), 1))
    return ops.concat(parts, 1)


def _take_texts(graph: Any, column: Column) -> None:
    """The input of a column takes texts, of which numbers are made first."""
    (given,) = [v for v in graph.input if v.name == column.name]
    number = _unused(graph, "number")
    for node in graph.node:
        node.input[:] = [number if name == column.name else name for name in node.input]
    given.type.tensor_type.elem_type = TensorProto.STRING
    keys = _numbered(column)
    encoder = helper.make_node(
        "LabelEncoder",
        [column.name],
        [number],
        name=number,
        domain=_ML,
        keys_strings=list(keys),
        values_int64s=list(keys.values()),
        default_int64=len(column.names) if column.rest else _UNKNOWN,
    )
    graph.node.insert(0, encoder)


def _numbered(column: Column) -> dict[str, int]:
    """Texts and their numbers: what is missing, in the cases that people write, and each name.

    A name that is a number stands for its usual spellings: "3" for "3.0", and the other way round.
    """
    keys: dict[str, int] = {}
    if column.fill is not None:
        for text in sorted(MISSING):
            keys.update(dict.fromkeys((text, text.upper(), text.title()), _MISSING))
        keys.update(dict.fromkeys(("NaN", "NaT", "<NA>", "n/A", "-NaN"), _MISSING))
    for place, name in enumerate(column.names):
        for spelling in _spellings(name):
            keys.setdefault(spelling, place)
        keys[name] = place
    return keys


def _spellings(name: str) -> list[str]:
    number = as_number(name)
    if number is None or label_key(name) == name or not np.isfinite(number):
        return [name]
    whole = [str(int(number))] if number.is_integer() else []
    return [name, *[text for text in (*whole, repr(number)) if label_key(text) == label_key(name)]]


def _give_labels(graph: Any, classes: Sequence[Any]) -> None:
    """The first output is the label itself, in place of its number."""
    label = graph.output[0].name
    place, table = _unused(graph, "place"), _unused(graph, "labels")
    for node in graph.node:
        node.output[:] = [place if name == label else name for name in node.output]
    known = np.array(classes, object if isinstance(classes[0], str) else None)
    graph.initializer.append(numpy_helper.from_array(known, table))
    graph.node.append(helper.make_node("Gather", [table, place], [label], name=table))
    kind = graph.initializer[-1].data_type
    graph.output[0].type.tensor_type.elem_type = kind


def _unused(graph: Any, hint: str) -> str:
    taken = {n for node in graph.node for n in (node.name, *node.input, *node.output)}
    taken |= {v.name for v in (*graph.input, *graph.output, *graph.initializer)}
    while hint in taken:
        hint += "_"
    return hint
