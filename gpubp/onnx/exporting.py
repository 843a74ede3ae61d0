"""A module, or a function of modules, as a model of ONNX.

Comes in: a module and what it is called with. Goes out: an `onnx.ModelProto` whose outputs are
those of the module in eval mode. The module is traced into gpubp's graph, and each op is written by
its rule, so whatever is made of ops can be written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
from onnx import helper

from gpubp.compiler.trace import trace
from gpubp.core import CONST, INPUT, SLOT, Graph, Kind, Node, live_order
from gpubp.core.spec import describe
from gpubp.core.store import Slot
from gpubp.errors import DataError, FixedSizeError, ShapeError, TraceError
from gpubp.nn.module import Module
from gpubp.onnx import export_loops
from gpubp.onnx.export_formula import by_formula
from gpubp.onnx.families import RULES
from gpubp.onnx.rules import Op, Value
from gpubp.onnx.signature import Signature
from gpubp.onnx.sizes import Known
from gpubp.onnx.writer import OPSET, Writer, described, seen_inside

IR_VERSION = 9  # of the time of the opset, so that runtimes of that time read it
PARAMETERS, BUFFERS = "gpubp.parameters", "gpubp.buffers"


def exported(model: Callable[..., Any], signature: Signature, dynamic: bool | None) -> Any:
    """The model of ONNX.

    Args:
        model: a module, or a function of modules; modules are called in eval mode.
        signature: what it is called with, and names.
        dynamic: the size of the batch is free; None: if the traced function allows it.

    Raises:
        TraceError: an op that ONNX has not, or numbers drawn at random.
        FixedSizeError: with `dynamic`, a function that holds for one size of the batch.
    """
    if dynamic is None:
        try:
            return exported(model, signature, signature.has_batch)
        except FixedSizeError:
            return exported(model, signature, False)
    batches = signature.batches() if dynamic else [signature.batch]
    traced = [_traced(model, signature, n) for n in batches]
    graphs = [graph for graph, _ in traced]
    return _Export(graphs, batches, signature, traced[0][1]).model(_slot_names(model))


def _traced(model: Any, signature: Signature, batch: int) -> tuple[Graph, Any]:
    """A trace; FixedSizeError where the model refuses a batch that is not the example's."""
    try:
        with _judging(model):
            return trace(model, signature.types(batch))
    except (ShapeError, DataError, ValueError) as error:
        if batch == signature.batch:
            raise
        raise FixedSizeError(f"the model refuses a batch of {batch}: {error}") from error


@contextmanager
def _judging(model: Any) -> Any:
    """Eval mode for a while."""
    parts = list(model.modules()) if isinstance(model, Module) else []
    before = [m.training for m in parts]
    try:
        if parts:
            model.eval()
        yield
    finally:
        for part, mode in zip(parts, before, strict=True):
            part.training = mode


def _slot_names(model: Any) -> dict[int, str]:
    """The module's names of its parameters and buffers; first ones count."""
    found: dict[int, str] = {}
    if isinstance(model, Module):
        for name, slot in model._slots_by_name().items():
            found.setdefault(id(slot), name)
    return found


class _Export:
    """One model that is being written."""

    def __init__(
        self, graphs: Sequence[Graph], batches: Sequence[int], signature: Signature, structure: Any
    ) -> None:
        self._graph, self._signature, self._structure = graphs[0], signature, structure
        _refuse_state(self._graph)
        self._known = Known(graphs, batches)
        self._dynamic = len(graphs) > 1
        self._w = Writer(self._known)
        self._slots: dict[str, list[str]] = {PARAMETERS: [], BUFFERS: []}
        self._names_of_slots: dict[int, str] = {}
        self._pieces: dict[int, dict[Any, str]] = {}

    def model(self, names_of_slots: dict[int, str]) -> Any:
        """The whole file."""
        self._names_of_slots = names_of_slots
        names: dict[int, str] = {}
        inputs = [self._input(node, names) for node in self._graph.inputs]
        self._emit(self._w, live_order(self._graph), names)
        outputs = self._outputs(names)
        ends = [v.name for v in outputs]
        nodes = self._w.used(ends)
        used = {n for node in nodes for n in (*node.input, *seen_inside(node))}
        kept = [t for name, t in self._w.initializers.items() if name in used]
        graph = helper.make_graph(nodes, "gpubp", inputs, outputs, kept)
        made = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="gpubp",
        )
        helper.set_model_props(made, {k: json.dumps(v) for k, v in self._slots.items()})
        onnx.checker.check_model(made, full_check=True)
        return made

    def _input(self, node: Node, names: dict[int, str]) -> Any:
        position = int(node.payload)
        name = self._w.fresh(self._signature.names[position])
        names[node.index] = name
        axis = self._signature.axes[position]
        if self._dynamic and axis is not None and self._w.batch_input is None:
            self._w.batch_input = name, axis
        return described(name, node.dtype, self._known.shape(node))

    def _outputs(self, names: dict[int, str]) -> list[Any]:
        found = []
        for hint, node in zip(self._signature.outputs(self._structure), self._graph.outputs):
            name = self._w.fresh(hint)
            source = names[node.index]
            self._w.nodes.append(helper.make_node("Identity", [source], [name], name=name))
            found.append(described(name, node.dtype, self._known.shape(node)))
        return found

    def _emit(self, w: Writer, nodes: Sequence[Node], names: dict[int, str]) -> None:
        """Write nodes; their results' names go into `names`."""
        wanted: dict[int, list[Any]] = {}
        for node in nodes:
            if node.spec.kind is Kind.PIECE:
                piece = node.attrs["kind"], node.attrs["at"]
                wanted.setdefault(node.inputs[0].index, []).append(piece)
        pieces: dict[int, dict[Any, str]] = {}
        for node in nodes:
            if node.index in names or node.spec is INPUT:
                continue
            if node.spec.kind is Kind.LOOP:
                given = [names[i.index] for i in node.inputs]
                pieces[node.index] = export_loops.written(
                    w, node, given, wanted[node.index], self._emit
                )
                names[node.index] = ""
            elif node.spec.kind is Kind.PIECE:
                found = pieces[node.inputs[0].index]
                names[node.index] = found[node.attrs["kind"], node.attrs["at"]]
            else:
                names[node.index] = self._written(w, node, names)

    def _written(self, w: Writer, node: Node, names: dict[int, str]) -> str:
        if node.spec is CONST:
            return w.of_graph(node)
        if node.spec is SLOT:
            return self._slot(node.payload)
        values = [Value(names[i.index], self._known.shape(i), i.dtype) for i in node.inputs]
        op = Op(node.spec, values, self._known.attrs(node), self._known.shape(node), node.dtype)
        write = RULES.get(node.spec.name)
        if write is None and node.spec.formula is None:
            raise TraceError(_refusal(node))
        return (write or by_formula)(w, op)

    def _slot(self, slot: Slot) -> str:
        name = self._w.parameter(self._names_of_slots.get(id(slot), slot.name), slot.value)
        self._slots[PARAMETERS if hasattr(slot, "requires_grad") else BUFFERS].append(name)
        return name


def _refuse_state(graph: Graph) -> None:
    drawn = next((n for n in graph.nodes if n.spec.kind is Kind.RANDOM), None)
    if drawn is not None:
        raise TraceError(_refusal(drawn))
    if graph.writes:
        raise TraceError(
            f"the model changes {graph.writes[0][0].name} when it is called, which a file of ONNX "
            "cannot do. Export it in eval mode."
        )


def _refusal(node: Node) -> str:
    if node.spec.kind is Kind.RANDOM:
        return (
            "the model draws random numbers in eval mode, which ONNX draws otherwise: the file "
            "would give other results. Draw them outside, and hand them in."
        )
    given = ", ".join(describe(i) for i in node.inputs)
    return (
        f"{node.spec.name} of {given} cannot be written to ONNX (opset {OPSET}); "
        "gpubp.onnx.supported() lists what can. Compute it outside of the exported function."
    )
