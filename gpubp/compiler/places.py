"""Where values live: buffers for leaves and results, and one for each temporary.

Values that leave their group get a place: the slot or output they are written to, else a buffer of
their own (the planner packs those into the arena).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpubp.compiler.parts import Buffer, Operand
from gpubp.compiler.views import Layout
from gpubp.core import CONST, SLOT, Graph, Node
from gpubp.core.store import ALIGN_BYTES, Bank, Slot, round_up
from gpubp.core.strided import c_strides


class Place(NamedTuple):
    """Where a value lives: the number of a buffer, and the offset in elements of its dtype."""

    buffer: int
    offset: int


class Places:
    """The buffers of a program that is being made, and the values in them.

    Args:
        graph: a canonical one; its leaves and results get their places at once.
        batched: positions of the inputs that are gathered into temporaries, not given.

    Attributes:
        buffers: all so far; temporaries are one buffer of kind "temp" each.
    """

    def __init__(self, graph: Graph, batched: Sequence[int]) -> None:
        self.buffers: list[Buffer] = []
        self._places: dict[int, Place] = {}
        self._banks: dict[int, int] = {}
        self._place_constants([n for n in graph.nodes if n.spec is CONST])
        for node in graph.nodes:
            if node.spec is SLOT:
                self._places[node.index] = self._slot_place(node.payload)
        for i, node in enumerate(graph.inputs):
            if i not in batched:
                self._give(node, f"input{i}", "input", i)
        for slot, node in graph.writes:
            self._places[node.index] = self._slot_place(slot)
        for i, node in enumerate(graph.outputs):
            self._give(node, f"output{i}", "output", i)

    def __contains__(self, index: int) -> bool:
        """A node has a place by now."""
        return index in self._places

    def result(self, node: Node, rows: int) -> Operand:
        """A computed value, as the part of so many rows writes it."""
        place, shape = self._place(node), node.shape
        axis = 0 if rows > 0 and shape and shape[0] == rows else None
        return Operand(
            place.buffer, node.dtype, place.offset, shape, c_strides(shape), node.index, axis
        )

    def operand(self, layout: Layout, dtype: np.dtype[Any], axis: int | None) -> Operand:
        """A value as a part reads it."""
        base, offset, shape, strides = layout
        place = self._place(base)
        return Operand(place.buffer, dtype, place.offset + offset, shape, strides, base.index, axis)

    def kind(self, operand: Operand) -> str:
        """The kind of the buffer that an operand lies in."""
        return self.buffers[operand.buffer].kind

    def _place(self, node: Node) -> Place:
        return self._places.get(node.index) or self._give(node, f"t{node.index}", "temp")

    def _give(self, node: Node, name: str, kind: str, position: int = 0) -> Place:
        """A buffer for a node alone."""
        made = Buffer(name, kind, node.dtype, node.size, None, position)
        place = self._places[node.index] = Place(self._add(made), 0)
        return place

    def _add(self, buffer: Buffer) -> int:
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def _place_constants(self, nodes: list[Node]) -> None:
        if not nodes:
            return
        offsets, total = [], 0
        for node in nodes:
            offsets.append(total)
            total += round_up(max(node.payload.nbytes, 1), ALIGN_BYTES)
        pool = np.zeros(total, np.uint8)
        number = self._add(Buffer("const", "const", pool.dtype, total, pool))
        for node, start in zip(nodes, offsets):
            raw = np.frombuffer(node.payload.tobytes(), np.uint8)
            pool[start : start + raw.size] = raw
            self._places[node.index] = Place(number, start // node.dtype.itemsize)

    def _slot_place(self, slot: Slot) -> Place:
        bank = slot.bank
        assert isinstance(bank, Bank), f"{slot.name} was not packed"
        number = self._banks.get(id(bank))
        if number is None:
            name = f"{bank.label}{len(self._banks)}"
            number = self._add(Buffer(name, "bank", bank.dtype, bank.size, bank))
            self._banks[id(bank)] = number
        return Place(number, slot.offset)
