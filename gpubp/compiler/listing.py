"""What each pass makes, as text: for people, and for tests of single passes.

`PASSES` names them in order; `pipeline.compile_graph` shows each to the function it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gpubp.compiler.group import Group
from gpubp.compiler.lower import Lowered
from gpubp.compiler.parts import Instruction
from gpubp.compiler.program_text import lines_of
from gpubp.compiler.views import Layout
from gpubp.core import Graph

PASSES = ("trace", "axis_order", "views", "fuse", "lower", "row_padding", "schedule", "memory_plan")

# Told the name of a pass that is done, and a function that describes what it has made.
Watch = Callable[[str, Callable[[], str]], None]


def unwatched(_name: str, _text: Callable[[], str]) -> None:
    """A `Watch` that looks at nothing."""


def views(graph: Graph, layouts: Mapping[int, Layout]) -> str:
    """The canonical graph; of a view also the base, the offset and the strides that it stands for.

    `%5 = transpose(%1, axes=(1, 0)) : float32[4, 3]  = %1 at 0 by (1, 4)`
    """
    lines = str(graph).splitlines()
    for i, node in enumerate(graph.nodes):
        layout = layouts.get(node.index)
        if layout is not None and layout.base is not node:
            lines[i] += f"  = %{layout.base.index} at {layout.offset} by {layout.strides}"
    return "\n".join(lines)


def groups(instructions: Iterable[Sequence[Group]]) -> str:
    """Which ops run together. `&` begins a further part of one instruction."""
    lines = []
    for i, shared in enumerate(instructions):
        for j, group in enumerate(shared):
            mark = f"{i:3d} " if j == 0 else "  & "
            names = "+".join(node.spec.name for node in group.nodes)
            values = " ".join(f"%{node.index}" for node in group.nodes)
            anchor = "" if group.anchor is None else f", anchor %{group.anchor.index}"
            lines.append(f"{mark}{names}: {values} over {group.shape}{anchor}")
    return "\n".join(lines)


def parts(lowered: Lowered) -> str:
    """Buffers, and parts in the order of their groups; temporaries have buffers of their own."""
    instructions = [Instruction(list(shared)) for shared in lowered.instructions]
    return "\n".join(lines_of(lowered.buffers, instructions))


def schedule(lowered: Lowered, instructions: Sequence[Instruction]) -> str:
    """The same in the order in which they run, with barriers."""
    return "\n".join([*lines_of(lowered.buffers, instructions), "SYNC"])
