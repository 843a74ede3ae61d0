"""The pipeline: from a graph to a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpubp.compiler import listing
from gpubp.compiler.fuse import fuse
from gpubp.compiler.labels import index_limits
from gpubp.compiler.lower import Lowering
from gpubp.compiler.memory_plan import pack
from gpubp.compiler.program import Operand, Part, Program
from gpubp.compiler.row_padding import widen
from gpubp.compiler.schedule import plan
from gpubp.compiler.verify import check_graph, check_program
from gpubp.compiler.views import canonicalize
from gpubp.core import Graph, Kind, Node


@dataclass(frozen=True)
class Options:
    """What the pipeline may do.

    Attributes:
        fuse: group ops into instructions; if False, one instruction per op.
        reuse: let temporaries share memory.
        verify: check graph and program after the passes; default is the environment variable
            GPUBP_VERIFY.
    """

    fuse: bool = True
    reuse: bool = True
    verify: bool | None = None

    @property
    def verifying(self) -> bool:
        if self.verify is None:
            return os.environ.get("GPUBP_VERIFY", "") not in ("", "0")
        return self.verify


def _by_rows(_part: Part, _why: str) -> bool:
    return False


def _back_to_back(_part: Part) -> Sequence[Sequence[Operand]]:
    return ()


def compile_graph(
    graph: Graph,
    batched: bool = False,
    options: Options | None = None,
    splits_columns: Callable[[Part, str], bool] = _by_rows,
    wide_rows: Callable[[Part], Sequence[Sequence[Operand]]] = _back_to_back,
    watch: listing.Watch = listing.unwatched,
) -> Program:
    """Compile a graph.

    Args:
        graph: its slots must be packed into banks.
        batched: inputs are batches gathered from resident arrays by an index order.
        options: see `Options`.
        splits_columns: which products the workers of the backend should share by columns.
        wide_rows: which operands of a part may have rows that are farther apart than long.
        watch: called after each of `listing.PASSES` with its name and what describes the result.

    Returns:
        The program: ready to be loaded by any backend that can do what was said of the last two.
    """
    options = options or Options()
    watch("trace", lambda: str(graph))
    canonical, layouts = canonicalize(graph)
    watch("views", lambda: listing.views(canonical, layouts))
    if options.verifying:
        check_graph(graph)
        check_graph(canonical)
    groups = fuse(canonical, layouts, options.fuse)
    watch("fuse", lambda: listing.groups(groups))
    lowered = Lowering(canonical, layouts, batched, splits_columns).run(groups)
    watch("lower", lambda: listing.parts(lowered))
    widen(lowered, wide_rows)
    watch("row_padding", lambda: listing.parts(lowered))
    instructions, phases = plan(lowered.buffers, lowered.instructions)
    watch("schedule", lambda: listing.schedule(lowered, instructions))
    buffers = pack(lowered.buffers, instructions, phases, options.reuse)
    program = Program(
        buffers,
        instructions,
        [(n.shape, n.dtype) for n in canonical.inputs],
        [(n.shape, n.dtype) for n in canonical.outputs],
        batched,
        *_unfused_cost(canonical),
        index_limits(canonical, layouts, batched),
    )
    watch("memory_plan", lambda: str(program))
    if options.verifying:
        check_program(program)
    return program


def _unfused_cost(graph: Graph) -> tuple[int, int]:
    """Bytes moved and kernels launched if every op ran alone."""
    ops = [n for n in graph.nodes if not n.is_leaf and n.spec.kind is not Kind.VIEW]
    return sum(_node_bytes(n) for n in ops), len(ops)


def _node_bytes(node: Node) -> int:
    return sum(n.size * n.dtype.itemsize for n in (node, *node.inputs))
