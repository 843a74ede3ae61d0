"""From fused groups to parts: where each value lives and which operands each kernel gets.

Comes in: groups from `fuse`. Goes out: parts whose operands point into buffers. Values that leave
their group get a place: the slot or output they are written to, else a buffer of their own (the
planner packs those into the arena).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpubp.compiler.group import Group
from gpubp.compiler.program import FINE, PRODUCT, Buffer, Compute, Operand, Part
from gpubp.compiler.views import Layout
from gpubp.core import CONST, SLOT, ArrayType, Graph, Kind, Node, OpSpec, Shape
from gpubp.core.store import ALIGN_BYTES, Bank, Slot, round_up
from gpubp.core.strided import c_strides


def _load_batch_infer(*_: Any, shape: Shape, dtype: str, **__: Any) -> ArrayType:
    return ArrayType(shape, np.dtype(dtype))


def _load_batch_reference(*_: Any, **__: Any) -> Any:
    raise TypeError("load_batch reads the rows named by the index order: backends do it")


# Of these kinds one kernel computes all ops.
_ONE_KERNEL = (Kind.MATMUL, Kind.REDUCE, Kind.CUSTOM)
LOAD_BATCH = OpSpec("load_batch", Kind.MOVE, _load_batch_infer, _load_batch_reference, flops=0.0)


@dataclass(eq=False)
class Place:
    """Where a computed value lives: a buffer, and the offset in elements of its dtype."""

    buffer: Buffer
    offset: int


@dataclass(eq=False)
class Lowered:
    """Parts in the order of their groups, before scheduling.

    Attributes:
        buffers: all buffers; temporaries are one buffer of kind "temp" each.
        instructions: one list of parts for each instruction.
    """

    buffers: list[Buffer]
    instructions: list[list[Part]]


class Lowering:
    """Assigns places and builds parts; one use a program."""

    def __init__(
        self,
        graph: Graph,
        layouts: dict[int, Layout],
        batched: bool,
        splits_columns: Callable[[Part, str], bool],
    ) -> None:
        self.graph = graph
        self._splits_columns = splits_columns
        self._split: set[int] = set()  # values that workers share by columns
        self.layouts = layouts
        self.batched = batched
        self.buffers: list[Buffer] = []
        self.places: dict[int, Place] = {}
        self._index: dict[int, int] = {}
        self._bank_buffers: dict[int, Buffer] = {}
        self._leaving: set[int] = set()
        self._updated = {slot for slot, _ in graph.writes}
        self._products: dict[int, list[int]] = {}  # of a node: the products that read it

    def run(self, instructions: Sequence[Sequence[Group]]) -> Lowered:
        """Place every value and build all parts."""
        self._place_leaves()
        self._place_results()
        groups = [g for i in instructions for g in i]
        self._find_leaving(groups)
        self._find_products()
        loads = self._load_batch(groups)
        built = [[self._part(g) for g in i] for i in instructions]
        made = ([loads] if loads else []) + built
        self._refine([part for instruction in made for part in instruction])
        return Lowered(self.buffers, made)

    def _refine(self, parts: list[Part]) -> None:
        """Finer shares of rows, but where as many columns are shared: workers would meet in a cache
        line of every row (updates of few rows are exempt). Parts of equally many rows share alike.
        """
        columns = {part.rows for part in parts if part.outputs[0][1].value in self._split}
        for part in parts:
            if part.rows not in columns:
                part.grain = FINE

    def _buffer(
        self,
        name: str,
        kind: str,
        dtype: Any,
        size: int,
        payload: Any = None,
        position: int = 0,
    ) -> Buffer:
        buffer = Buffer(name, kind, np.dtype(dtype), size, payload, position)
        self._index[id(buffer)] = len(self.buffers)
        self.buffers.append(buffer)
        return buffer

    def _place_leaves(self) -> None:
        constants = [n for n in self.graph.nodes if n.spec is CONST]
        if constants:
            self._place_constants(constants)
        for node in self.graph.nodes:
            if node.spec is SLOT:
                self.places[node.index] = self._slot_place(node.payload)
        for i, node in enumerate(self.graph.inputs):
            if not self.batched:
                source = self._buffer(f"input{i}", "input", node.dtype, node.size, None, i)
                self.places[node.index] = Place(source, 0)

    def _place_constants(self, nodes: list[Node]) -> None:
        offsets, total = [], 0
        for node in nodes:
            offsets.append(total)
            total += round_up(max(node.payload.nbytes, 1), ALIGN_BYTES)
        pool = np.zeros(total, np.uint8)
        buffer = self._buffer("const", "const", np.uint8, total, pool)
        for node, start in zip(nodes, offsets):
            raw = np.frombuffer(node.payload.tobytes(), np.uint8)
            pool[start : start + raw.size] = raw
            self.places[node.index] = Place(buffer, start // node.dtype.itemsize)

    def _slot_place(self, slot: Slot) -> Place:
        bank = slot.bank
        assert isinstance(bank, Bank), f"{slot.name} was not packed"
        buffer = self._bank_buffers.get(id(bank))
        if buffer is None:
            name = f"{bank.label}{len(self._bank_buffers)}"
            buffer = self._buffer(name, "bank", bank.dtype, bank.size, bank)
            self._bank_buffers[id(bank)] = buffer
        return Place(buffer, slot.offset)

    def _place_results(self) -> None:
        for slot, node in self.graph.writes:
            self.places[node.index] = self._slot_place(slot)
        for i, node in enumerate(self.graph.outputs):
            buffer = self._buffer(f"output{i}", "output", node.dtype, node.size, None, i)
            self.places[node.index] = Place(buffer, 0)

    def _find_leaving(self, groups: list[Group]) -> None:
        """Values read by another group, or by their own anchor's kernel in another role."""
        of = {n.index: g for g in groups for n in g.nodes}
        for group in groups:
            for node in group.nodes:
                for source in node.inputs:
                    base = self.layouts[source.index].base
                    if base.index in of and of[base.index] is not group:
                        self._leaving.add(base.index)
        self._leaving.update(i for i in self.places if i in of)

    def _load_batch(self, groups: list[Group]) -> list[Part]:
        if not self.batched:
            return []
        used = {self.layouts[i.index].base.index for g in groups for n in g.nodes for i in n.inputs}
        parts = []
        for i, node in enumerate(self.graph.inputs):
            if node.index in used:
                attrs = {"input": i, "shape": node.shape, "dtype": str(node.dtype)}
                body = [Compute(LOAD_BATCH, (), attrs, node.shape, node.dtype)]
                out = self._result(node, node.shape[0])
                parts.append(Part(LOAD_BATCH.name, body, 0, [], [(0, out)], node.shape[0]))
        return parts

    def _place(self, node: Node) -> Place:
        place = self.places.get(node.index)
        if place is None:
            buffer = self._buffer(f"t{node.index}", "temp", node.dtype, node.size)
            place = self.places[node.index] = Place(buffer, 0)
        return place

    def _result(self, node: Node, rows: int) -> Operand:
        place = self._place(node)
        axis = 0 if rows > 0 and len(node.shape) > 0 and node.shape[0] == rows else None
        return Operand(
            self._index[id(place.buffer)],
            node.dtype,
            place.offset,
            node.shape,
            c_strides(node.shape),
            node.index,
            axis,
        )

    def _operand(self, layout: Layout, dtype: Any, axis: int | None) -> Operand:
        place = self._place(layout.base)
        return Operand(
            self._index[id(place.buffer)],
            dtype,
            place.offset + layout.offset,
            layout.shape,
            layout.strides,
            layout.base.index,
            axis,
        )

    def _prologue(self, group: Group) -> set[int]:
        """A reduction and the nodes of its group that it depends on."""
        if group.anchor is None or group.anchor.spec.kind is not Kind.REDUCE:
            return set()
        found = {group.anchor.index}
        for node in reversed(group.nodes):
            if node.index in found:
                found.update(self.layouts[i.index].base.index for i in node.inputs)
        return found

    def _part(self, group: Group) -> Part:
        rows = _rows(group)
        prologue = self._prologue(group)
        numbers: dict[tuple[int, int], int] = {}
        inputs: list[Operand] = []
        inside = {n.index for n in group.nodes}
        keys: dict[tuple[int, int | None], int] = {}
        for node in group.nodes:
            for position, source in enumerate(node.inputs):
                layout = self.layouts[source.index]
                if layout.base.index in inside:
                    continue
                axis = _shared_axis(group, node, position, layout, rows, prologue)
                key = (source.index, axis)
                if key not in keys:
                    keys[key] = len(inputs)
                    inputs.append(self._operand(layout, source.dtype, axis))
                numbers[node.index, position] = keys[key]
        results = {n.index: len(inputs) + i for i, n in enumerate(group.nodes)}
        body = []
        for node in group.nodes:
            args = tuple(
                numbers[node.index, i]
                if self.layouts[s.index].base.index not in inside
                else results[self.layouts[s.index].base.index]
                for i, s in enumerate(node.inputs)
            )
            body.append(Compute(node.spec, args, node.attrs, node.shape, node.dtype))
        outputs = [
            (results[n.index], self._result(n, rows))
            for n in group.nodes
            if n.index in self._leaving
        ]
        anchor = None if group.anchor is None else group.nodes.index(group.anchor)
        part = Part(_kernel(group), body, anchor, inputs, outputs, rows)
        return self._by_columns(group, part) or part

    def _by_columns(self, group: Group, part: Part) -> Part | None:
        """The same product shared by columns, where that leaves more to each worker alone.

        That is so where B is a weight that nothing else reads: the worker that updates rows of it,
        as it is stored, reads no others. And where the result of such a product is read again, for
        the gradient before the activation, which is what the update of these weights reads.
        """
        anchor = group.anchor
        if part.kernel != PRODUCT or anchor is None or len(anchor.shape) != 2:
            return None
        why = self._why_columns(group, anchor, part)
        if why is None or not self._splits_columns(part, why):
            return None
        if why != "update":
            self._split.update(n.index for n in group.nodes if n.shape == anchor.shape)
        return _shared_by_columns(part, anchor.shape[1])

    def _why_columns(self, group: Group, anchor: Node, part: Part) -> str | None:
        """See `Backend.splits_columns`."""
        beside = [s for n in group.nodes for s in n.inputs if n is not anchor]
        bases = {self.layouts[s.index].base.index for s in beside if s.shape == anchor.shape}
        if bases & self._split:
            return "follows"
        if self._is_own_weight(anchor):
            return "weight"
        kinds = {self.buffers[o.buffer].kind for _, o in part.outputs}
        return "update" if kinds == {"bank"} else None

    def _is_own_weight(self, product: Node) -> bool:
        """B is the transpose of a slot that is updated and that no other product reads."""
        weight = self.layouts[product.inputs[1].index]
        if weight.base.spec is not SLOT or weight.base.payload not in self._updated:
            return False
        alone = self._products[weight.base.index] == [product.index]
        return alone and weight.strides == (1, weight.shape[0])

    def _find_products(self) -> None:
        """Which products read a slot, directly or through a view."""
        for node in self.graph.nodes:
            if node.spec.kind is Kind.MATMUL:
                for index in {self.layouts[s.index].base.index for s in node.inputs}:
                    self._products.setdefault(index, []).append(node.index)


def _shared_by_columns(part: Part, columns: int) -> Part:
    """A product of two matrices whose workers share columns instead of rows."""
    assert part.anchor is not None
    left = part.body[part.anchor].args[0]
    inputs = [
        replace(o, axis=_last_axis(o, columns) if i != left else None)
        for i, o in enumerate(part.inputs)
    ]
    outputs = [(v, replace(o, axis=1)) for v, o in part.outputs]
    return replace(part, inputs=inputs, outputs=outputs, rows=columns)


def _last_axis(operand: Operand, columns: int) -> int | None:
    """The last axis, if it has the columns' number."""
    if not operand.shape or operand.shape[-1] != columns or operand.strides[-1] == 0:
        return None
    return len(operand.shape) - 1


def _kernel(group: Group) -> str:
    if group.anchor is None:
        return "scalar" if group.compute == "scalar" else "elementwise"
    spec = group.anchor.spec
    return spec.kernel or (spec.kind.value if spec.kind in _ONE_KERNEL else spec.name)


def _rows(group: Group) -> int:
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


def _shared_axis(
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
    if node.spec.kind in (Kind.ROWWISE, Kind.MOVE):
        return position in (_row_inputs(node) or ())
    if node is not anchor:
        return len(layout.shape) == len(node.shape)
    if node.spec.kind is Kind.MATMUL:
        plain = len(node.shape) == 2
        return position == 0 if plain else len(layout.shape) == len(node.shape)
    return False
