"""Graphs of ONNX computed by gpubp's ops, node by node: on arrays at once, or in a trace.

Comes in: a graph and the values of its inputs and initialisers. Goes out: its outputs.

Holds in between: what is known while tracing (shapes, and what is made of them) is computed at once
and stays known, so that it can decide shapes.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gpubp.core import tracing
from gpubp.errors import DTypeError, OperatorError, ShapeError
from gpubp.onnx.import_common import DTYPES, RefusedError
from gpubp.onnx.import_table import TABLE


def evaluate(graph: Any, values: dict[str, Any], opset: int = 0) -> list[Any]:
    """The outputs of a graph.

    Args:
        graph: an `onnx.GraphProto`.
        values: by name; initialisers that are not among them are added, and all results.
        opset: for errors.

    Raises:
        OperatorError: an operator, an option or a dtype that gpubp has not; names the node.
    """
    values.setdefault("", None)
    for tensor in graph.initializer:
        if tensor.name not in values:
            values[tensor.name] = array_of(tensor)
    for node in graph.node:
        try:
            results = _results(node, values)
        except RefusedError as error:
            raise OperatorError(f"{described(node, opset)}: {error}.") from error
        except (ShapeError, DTypeError) as error:
            raise type(error)(f"{described(node, opset)}: {error}") from error
        for name, value in zip(node.output, results, strict=False):
            if name:
                values[name] = value
    return [values[v.name] for v in graph.output]


def described(node: Any, opset: int) -> str:
    """`Conv "features.0" (opset 17)`."""
    name = node.name or next((n for n in node.output if n), "")
    version = f" (opset {opset})" if opset else ""
    return f"ONNX's {node.op_type} {name!r}{version}"


def array_of(tensor: Any) -> Any:
    """The numbers of a tensor."""
    return supported(numpy_helper.to_array(tensor))


def supported(value: Any) -> Any:
    """A value, if it is of a dtype that gpubp has."""
    if value is not None and str(getattr(value, "dtype", "")) not in DTYPES.values():
        kind = getattr(value, "dtype", type(value).__name__)
        raise RefusedError(f"a dtype that gpubp has not: {kind}")
    return value


def _results(node: Any, values: dict[str, Any]) -> tuple[Any, ...]:
    compute = TABLE.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if compute is None:
        raise RefusedError(f"no such op in gpubp: {node.op_type}")
    options = _attributes(node, values)
    taken = inspect.signature(compute).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()) and set(options) - set(taken):
        raise RefusedError(f"an option that gpubp has not: {min(set(options) - set(taken))}")
    if "outputs" in taken:
        options["outputs"] = len(node.output)
    given = [supported(values[name]) for name in node.input]
    known = all(v is None or isinstance(v, (np.ndarray, np.generic)) for v in given)
    bodies = any(callable(v) for v in options.values())
    with at_once() if known and given and not bodies else nullcontext():
        result = compute(*given, **options)
    return result if isinstance(result, tuple) else (result,)


def at_once() -> Any:
    """Compute what is known, also while a function is traced."""
    return tracing(None)  # type: ignore[arg-type]


def _attributes(node: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Graphs among them as functions, which see the values around them."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    for name, value in found.items():
        if isinstance(value, onnx.TensorProto):
            found[name] = array_of(value)
        elif isinstance(value, onnx.GraphProto):
            found[name] = partial(_called, value, values)
        elif isinstance(value, bytes):
            found[name] = value.decode()
    return found


def _called(graph: Any, around: dict[str, Any], *given: Any) -> tuple[Any, ...]:
    """The outputs of a graph inside of a node."""
    names = [v.name for v in graph.input]
    inside = {**around, **dict(zip(names, given, strict=True))}
    return tuple(evaluate(graph, inside))
