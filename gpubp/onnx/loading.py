"""`gp.onnx.load`: a file of ONNX as a module that trains."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import onnx
from onnx import inliner, version_converter

from gpubp.arguments import shown
from gpubp.errors import ArgumentError, CheckpointError, OperatorError
from gpubp.onnx.evaluating import described
from gpubp.onnx.import_table import TABLE
from gpubp.onnx.imported import OnnxModule
from gpubp.onnx.places import nodes_of, roles, with_own_statistics

OLDEST = 13  # versions before are converted


def load(file: str | os.PathLike[str], parameters: str | Sequence[str] = "weights") -> OnnxModule:
    """Read a model of ONNX as a module.

    The module computes what the file says, in train and in eval mode: dropout and batch
    normalisation stay as they were exported. Weights have the names of the file, whose dots are
    levels of modules.

    Args:
        file: `.onnx`; operator sets before 13 are converted by onnx.
        parameters: what trains: "weights" (what a file of gpubp's names; in others what goes into
            products, convolutions, recurrent layers, normalisations, additions and
            multiplications), "all" float initialisers, "none", or their names.

    Raises:
        CheckpointError: no file of ONNX.
        OperatorError: an operator that gpubp has not; names its node and the operator set.
        ArgumentError: parameters that the file has not.
    """
    model = _read(file)
    return from_model(model, parameters)


def from_model(model: Any, parameters: str | Sequence[str] = "weights") -> OnnxModule:
    """An `onnx.ModelProto` as a module; see `load`."""
    if len(model.functions):
        model = inliner.inline_local_functions(model)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    _require_operators(model, opset)
    if opset < OLDEST:
        model = _converted(model, opset)
    model = with_own_statistics(model)
    return OnnxModule(model, *_chosen(model, parameters))


def _read(file: str | os.PathLike[str]) -> Any:
    try:
        model = onnx.load(os.fspath(file))
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: there is no such file.") from error
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{file} is no model of ONNX that can be read: {text}") from error
    return model


def _require_operators(model: Any, opset: int) -> None:
    for node in nodes_of(model.graph):
        domain = node.domain not in ("", "ai.onnx")
        if domain or node.op_type not in TABLE:
            of = f" of {node.domain}" if domain else ""
            raise OperatorError(
                f"{described(node, opset)}{of} has no counterpart in gpubp; "
                "gpubp.onnx.supported() lists what has."
            )


def _converted(model: Any, opset: int) -> Any:
    try:
        return version_converter.convert_version(model, OLDEST)
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        raise OperatorError(
            f"the model is of opset {opset}, and onnx cannot convert it to {OLDEST}: {text}. "
            "Export it anew with a newer opset."
        ) from error


def _chosen(model: Any, parameters: str | Sequence[str]) -> tuple[set[str], set[str]]:
    """(parameters, buffers)."""
    weights, statistics = roles(model)
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    floats = {t.name for t in model.graph.initializer if t.data_type in kinds}
    names = {t.name for t in model.graph.initializer}
    if isinstance(parameters, str):
        known = {"weights": weights & floats, "all": floats, "none": set()}
        if parameters not in known:
            raise ArgumentError(
                f'parameters is {shown(parameters)}, expected "weights", "all", "none", or names.'
            )
        chosen = known[parameters]
    else:
        chosen = set(parameters)
        if chosen - floats:
            raise ArgumentError(
                f"the file has no float initialiser {min(chosen - floats)!r}; it has "
                f"{', '.join(sorted(floats)[:12])}."
            )
    return chosen, ((weights | statistics) & names) - chosen
