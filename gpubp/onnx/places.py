"""Which initialisers of a graph are weights: what is said of them, or where they stand.

A file of ONNX does not tell parameters from constants. Files of gpubp's own name them; in others
they are known by the operators that they go into.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpubp.onnx.exporting import BUFFERS, PARAMETERS
from gpubp.onnx.import_table import STATIC

# Operator -> positions of its weights.
_WEIGHTS = {
    "BatchNormalization": (1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2), "DeformConv": (1, 3),
    "GRU": (1, 2, 3), "Gather": (0,), "Gemm": (0, 1, 2), "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2), "LSTM": (1, 2, 3, 7), "LayerNormalization": (1, 2),
    "MatMul": (0, 1), "PRelu": (1,), "RMSNormalization": (1,), "RNN": (1, 2, 3),
}  # fmt: skip
# Whose arrays of more than one element are weights: biases, scales.
_BINARY = ("Add", "Mul", "Sub", "Div", "Einsum")
_STATISTICS = {"BatchNormalization": (3, 4)}
# Through which a weight goes and stays one.
_MOVES = ("Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose")
_MOVING = (*_MOVES, "Unsqueeze", "Split", "Expand")


def roles(model: Any) -> tuple[set[str], set[str]]:
    """(weights, statistics) among the initialisers of a model, by their names."""
    said = {p.key: p.value for p in model.metadata_props}
    if PARAMETERS in said:
        weights, buffers = (set(json.loads(said.get(k, "[]"))) for k in (PARAMETERS, BUFFERS))
        return weights, buffers
    graph = model.graph
    return _by_place(graph, _WEIGHTS, True), _by_place(graph, _STATISTICS, False)


def _by_place(graph: Any, places: Mapping[str, Sequence[int]], binary: bool) -> set[str]:
    sources = dict(_sources(graph))
    found: set[str] = set()
    for node in _nodes(graph):
        positions: Iterable[int] = places.get(node.op_type, ())
        if binary and node.op_type in _BINARY:
            positions = range(len(node.input))
        fixed = STATIC.get(node.op_type, ())
        for i in positions:
            if i < len(node.input) and i not in fixed:
                found.update(sources.get(node.input[i], ()))
    sizes = {t.name: t.dims for t in graph.initializer}
    return {name for name in found if not binary or any(n != 1 for n in sizes[name])}


def _sources(graph: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names -> the initialisers that they are moved from."""
    found: dict[str, tuple[str, ...]] = {t.name: (t.name,) for t in graph.initializer}
    for node in _nodes(graph):
        if node.op_type in _MOVING:
            given = node.input if node.op_type == "Concat" else node.input[:1]
            names = tuple(n for g in given for n in found.get(g, ()))
            if names:
                found.update(dict.fromkeys(node.output, names))
    yield from found.items()


def _nodes(graph: Any) -> Iterator[Any]:
    """Those of a graph, and of the bodies in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def with_own_statistics(model: Any) -> Any:
    """The model, in which no running statistic is a weight as well.

    PyTorch's exporter makes one initialiser of equal ones, a fresh variance and a scale.
    """
    weights, statistics = roles(model)
    both = weights & statistics
    if not both:
        return model
    found = type(model)()
    found.CopyFrom(model)
    tensors = {t.name: t for t in found.graph.initializer if t.name in both}
    taken = {t.name for t in found.graph.initializer}
    for node in _nodes(found.graph):
        for i in _STATISTICS.get(node.op_type, ()):
            if i < len(node.input) and node.input[i] in both:
                copy = type(tensors[node.input[i]])()
                copy.CopyFrom(tensors[node.input[i]])
                copy.name = f"{node.input[i]}_statistic"
                while copy.name in taken:
                    copy.name += "_"
                taken.add(copy.name)
                found.graph.initializer.append(copy)
                node.input[i] = copy.name
    return found


def nodes_of(graph: Any) -> list[Any]:
    """All nodes, those of bodies too."""
    return list(_nodes(graph))
