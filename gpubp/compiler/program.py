"""The program: a flat list of instructions over buffers, the form that every backend runs.

Everything here is data: it prints, and `to_dict` gives JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpubp.compiler.labels import IndexLimit
from gpubp.compiler.parts import Buffer, Instruction, Part
from gpubp.compiler.program_text import lines_of, part_dict
from gpubp.core import Shape


@dataclass(eq=False)
class Program:
    """What a backend runs for one step.

    Attributes:
        buffers: all memory.
        instructions: in order; a barrier also stands after the last one.
        input_shapes, output_shapes: types of what is fed and returned, a step.
        batched: positions of the inputs that are resident arrays from which a batch is gathered by
            an index order; the others are read where they are.
        unfused_bytes, unfused_ops: what the same step moves and launches with one kernel per op.
        index_limits: what is looked at before any work.
    """

    buffers: list[Buffer]
    instructions: list[Instruction]
    input_types: list[tuple[Shape, np.dtype[Any]]]
    output_types: list[tuple[Shape, np.dtype[Any]]]
    batched: tuple[int, ...]
    unfused_bytes: int
    unfused_ops: int
    index_limits: list[IndexLimit] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        return self.input_types[self.batched[0]][0][0] if self.batched else 0

    @property
    def syncs(self) -> int:
        """Barriers a step, the one at its end included."""
        return sum(i.sync for i in self.instructions) + 1

    @property
    def arena_bytes(self) -> int:
        return sum(b.nbytes for b in self.buffers if b.kind == "arena")

    @property
    def parts(self) -> list[Part]:
        return [p for i in self.instructions for p in i.parts]

    @property
    def flops(self) -> float:
        return sum(p.flops for p in self.parts)

    @property
    def bytes_moved(self) -> int:
        return sum(p.bytes_moved for p in self.parts)

    def __str__(self) -> str:
        return "\n".join([*lines_of(self.buffers, self.instructions), "SYNC"])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable description: everything but the contents of the buffers."""
        return {
            "batched": list(self.batched),
            "buffers": [
                {"name": b.name, "kind": b.kind, "dtype": str(b.dtype), "size": b.size}
                for b in self.buffers
            ],
            "instructions": [
                {"sync": i.sync, "parts": [part_dict(p) for p in i.parts]}
                for i in self.instructions
            ],
            "input_types": [[list(s), str(d)] for s, d in self.input_types],
            "output_types": [[list(s), str(d)] for s, d in self.output_types],
            "unfused_bytes": self.unfused_bytes,
            "unfused_ops": self.unfused_ops,
        }
