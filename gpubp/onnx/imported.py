"""A model of ONNX as a module: its weights are parameters, its forward is the graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpubp.errors import ArgumentError, OperatorError
from gpubp.nn.module import Module
from gpubp.nn.parameter import Buffer, Parameter
from gpubp.onnx.evaluating import array_of, evaluate
from gpubp.onnx.import_common import RefusedError


class OnnxModule(Module):
    """The graph of a file, made by `gp.onnx.load`.

    Args:
        model: an `onnx.ModelProto`.
        trained: initialisers that are parameters.
        kept: those that are buffers; all others are constants.

    Attributes:
        input_names, output_names: of the graph, in order.
    """

    def __init__(self, model: Any, trained: set[str], kept: set[str]) -> None:
        super().__init__()
        graph = model.graph
        own = self.__dict__
        tensors = {t.name: t for t in graph.initializer}
        values = {n: _numbers(t) for n, t in tensors.items()}
        own["_constants"] = {n: v for n, v in values.items() if n not in trained | kept}
        own["_graph"], own["_opset"] = graph, model.opset_import[0].version
        own["input_names"] = [v.name for v in graph.input if v.name not in tensors]
        own["output_names"] = [v.name for v in graph.output]
        own["_paths"] = {}
        for name in [t for t in tensors if t in trained or t in kept]:
            value = values[name]
            slot = (
                Parameter(value) if name in trained and value.dtype.kind == "f" else Buffer(value)
            )
            own["_paths"][name] = self._placed(name, slot)

    def _placed(self, name: str, slot: Buffer) -> str:
        """Register a slot under the parts of its name; modules on the way are made.

        Returns the dotted name that it has now.
        """
        *path, last = [part or "_" for part in name.split(".")]
        owner: Module = self
        taken: list[str] = []
        for part in path:
            found = owner._modules.get(part)
            if found is None:
                part = _free(owner, part)
                owner.add_module(part, Module())
                found = owner._modules[part]
            owner = found
            taken.append(part)
        last = _free(owner, last)
        setattr(owner, last, slot)
        return ".".join([*taken, last])

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The output, or a tuple of several.

        Args:
            *inputs: in the order of the graph.
            **named: by their names in the graph.

        Raises:
            ArgumentError: another number of inputs, or names that are none.
            OperatorError: what gpubp cannot compute, with its node.
        """
        own = self.__dict__
        given = self._given(own["input_names"], inputs, named)
        slots = self._slots_by_name()
        weights = {name: slots[path] for name, path in own["_paths"].items()}
        values = {**own["_constants"], **weights, **given}
        found = evaluate(own["_graph"], values, own["_opset"])
        return found[0] if len(found) == 1 else tuple(found)

    def _given(self, names: list[str], inputs: Any, named: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(zip(names, inputs)) | dict(named)
        if len(inputs) > len(names) or set(found) != set(names):
            raise ArgumentError(
                f"the graph takes {', '.join(names)}; got {len(inputs)} arrays"
                + (f" and {', '.join(named)}." if named else ".")
            )
        return {name: _as_array(found[name]) for name in names}

    def extra_repr(self) -> str:
        """What goes in and comes out."""
        own = self.__dict__
        return f"{', '.join(own['input_names'])} -> {', '.join(own['output_names'])}"


def _numbers(tensor: Any) -> Any:
    try:
        return array_of(tensor)
    except RefusedError as error:
        raise OperatorError(
            f"the initialiser {tensor.name!r} has {error}. Convert the model to float32."
        ) from error


def _as_array(value: Any) -> Any:
    return value if hasattr(value, "dtype") else np.asarray(value)


def _free(owner: Module, name: str) -> str:
    """A name that stands for nothing else: `train` of a module is a method."""
    name = re.sub(r"^$", "_", name)
    while name in owner._modules or name in owner._parameters or hasattr(type(owner), name):
        name += "_"
    return name
