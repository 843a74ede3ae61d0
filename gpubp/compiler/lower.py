"""From fused groups to parts: which operands each kernel gets.

Comes in: groups from `fuse`. Goes out: parts whose operands point into buffers. `places.py` says
where values live, `shared_rows.py` and `shared_columns.py` how workers share a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp.compiler.group import Group
from gpubp.compiler.loop_parts import Compile, loop_part
from gpubp.compiler.parts import Buffer, Compute, Operand, Part
from gpubp.compiler.places import Places
from gpubp.compiler.shared_columns import Columns
from gpubp.compiler.shared_rows import rows_of, shared_axis
from gpubp.compiler.views import Layout
from gpubp.core import ArrayType, Graph, Kind, OpSpec, Shape


def _load_batch_infer(*_: Any, shape: Shape, dtype: str, **__: Any) -> ArrayType:
    return ArrayType(shape, np.dtype(dtype))


def _load_batch_reference(*_: Any, **__: Any) -> Any:
    raise TypeError("load_batch reads the rows named by the index order: backends do it")


# Of these kinds one kernel computes all ops.
_ONE_KERNEL = (Kind.MATMUL, Kind.REDUCE, Kind.CUSTOM)
LOAD_BATCH = OpSpec("load_batch", Kind.MOVE, _load_batch_infer, _load_batch_reference, flops=0.0)


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
    """Builds parts; one use a program.

    Args:
        graph, layouts: from `canonicalize`.
        batched: positions of the inputs that are gathered from resident arrays by an index order.
        splits_columns: see `Backend.splits_columns`.
        compiled: makes a program of the body of a loop.
    """

    def __init__(
        self,
        graph: Graph,
        layouts: dict[int, Layout],
        batched: Sequence[int],
        splits_columns: Callable[[Part, str], bool],
        compiled: Compile,
    ) -> None:
        self._compiled = compiled
        self._graph, self._layouts, self._batched = graph, layouts, batched
        self._places = Places(graph, batched)
        self._columns = Columns(graph, layouts, self._places, splits_columns)

    def run(self, instructions: Sequence[Sequence[Group]]) -> Lowered:
        """Place every value and build all parts."""
        groups = [g for i in instructions for g in i]
        used, leaving = self._reads(groups)
        loads = self._load_batch(used)
        built = [[self._part(g, leaving) for g in i] for i in instructions]
        made = ([loads] if loads else []) + built
        self._columns.refine([part for instruction in made for part in instruction])
        return Lowered(self._places.buffers, made)

    def _reads(self, groups: list[Group]) -> tuple[set[int], set[int]]:
        """What groups read, and which computed values are read by another group or are results."""
        of = {n.index: g for g in groups for n in g.nodes}
        used: set[int] = set()
        leaving = {i for i in of if i in self._places}
        for group in groups:
            for node in group.nodes:
                for source in node.inputs:
                    base = self._layouts[source.index].base.index
                    used.add(base)
                    if base in of and of[base] is not group:
                        leaving.add(base)
        return used, leaving

    def _load_batch(self, used: set[int]) -> list[Part]:
        parts = []
        for i in self._batched:
            node = self._graph.inputs[i]
            if node.index in used:
                attrs = {"input": i, "shape": node.shape, "dtype": str(node.dtype)}
                body = [Compute(LOAD_BATCH, (), attrs, node.shape, node.dtype)]
                out = self._places.result(node, node.shape[0])
                parts.append(Part(LOAD_BATCH.name, body, 0, [], [(0, out)], node.shape[0]))
        return parts

    def _prologue(self, group: Group) -> set[int]:
        """A reduction and the nodes of its group that it depends on."""
        if group.anchor is None or group.anchor.spec.kind is not Kind.REDUCE:
            return set()
        found = {group.anchor.index}
        for node in reversed(group.nodes):
            if node.index in found:
                found.update(self._layouts[i.index].base.index for i in node.inputs)
        return found

    def _part(self, group: Group, leaving: set[int]) -> Part:
        if group.anchor is not None and group.anchor.spec.kind is Kind.LOOP:
            return loop_part(group, self._layouts, self._places, leaving, self._compiled)
        rows, nodes = rows_of(group), group.nodes
        position = {n.index: i for i, n in enumerate(nodes)}
        inputs, numbers = self._inputs(group, rows, position)
        first, body = len(inputs), []
        for node in nodes:
            args = []
            for source in node.inputs:
                base = self._layouts[source.index].base.index
                args.append(first + position[base] if base in position else next(numbers))
            body.append(Compute(node.spec, tuple(args), node.attrs, node.shape, node.dtype))
        outputs = [
            (first + i, self._places.result(node, rows))
            for i, node in enumerate(nodes)
            if node.index in leaving
        ]
        anchor = None if group.anchor is None else position[group.anchor.index]
        part = Part(_kernel(group), body, anchor, inputs, outputs, rows)
        return self._columns.share(group, part) or part

    def _inputs(
        self, group: Group, rows: int, inside: Mapping[int, int]
    ) -> tuple[list[Operand], Iterator[int]]:
        """What a group reads of others, each once; and the numbers of these, use by use."""
        prologue = self._prologue(group)
        inputs: list[Operand] = []
        known: dict[tuple[int, int | None], int] = {}
        uses: list[int] = []
        for node in group.nodes:
            for position, source in enumerate(node.inputs):
                layout = self._layouts[source.index]
                if layout.base.index in inside:
                    continue
                axis = shared_axis(group, node, position, layout, rows, prologue)
                number = known.setdefault((source.index, axis), len(inputs))
                if number == len(inputs):
                    inputs.append(self._places.operand(layout, source.dtype, axis))
                uses.append(number)
        return inputs, iter(uses)


def _kernel(group: Group) -> str:
    """The name of what computes a group."""
    if group.anchor is None:
        return "scalar" if group.compute == "scalar" else "elementwise"
    spec = group.anchor.spec
    return spec.kernel or (spec.kind.value if spec.kind in _ONE_KERNEL else spec.name)
