"""The pipeline: from a graph to a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gpubp.compiler import listing
from gpubp.compiler.axis_order import settle_axes
from gpubp.compiler.fuse import fuse
from gpubp.compiler.labels import index_limits
from gpubp.compiler.lower import Lowering
from gpubp.compiler.memory_plan import pack
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.compiler.row_padding import widen
from gpubp.compiler.schedule import plan
from gpubp.compiler.tall_sums import split_sums
from gpubp.compiler.unroll import unroll
from gpubp.compiler.verify import check_graph, check_program
from gpubp.compiler.views import canonicalize
from gpubp.core import Graph, Kind


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
    batched: bool | Sequence[int] = False,
    options: Options | None = None,
    splits_columns: Callable[[Part, str], bool] = _by_rows,
    wide_rows: Callable[[Part], Sequence[Sequence[Operand]]] = _back_to_back,
    watch: listing.Watch = listing.unwatched,
    loops: bool = True,
    tall: bool = False,
) -> Program:
    """Compile a graph.

    Args:
        graph: its slots must be packed into banks.
        batched: inputs are batches gathered from resident arrays by an index order: all of them, or
            those at these positions.
        options: see `Options`.
        splits_columns: which products the workers of the backend should share by columns.
        wide_rows: which operands of a part may have rows that are farther apart than long.
        loops: the backend runs loops; else they are written out, round after round.
        tall: sums over many rows of few columns are made in two steps.
        watch: called after each of `listing.PASSES` with its name and what describes the result.

    Returns:
        The program: ready to be loaded by any backend that can do what was said of the last two.
    """
    options = options or Options()
    if isinstance(batched, bool):
        batched = range(len(graph.inputs)) if batched else ()
    watch("trace", lambda: str(graph))
    settled = settle_axes(graph if loops else unroll(graph))
    settled = split_sums(settled) if tall else settled
    watch("axis_order", lambda: str(settled))
    canonical, layouts = canonicalize(settled)
    watch("views", lambda: listing.views(canonical, layouts))
    if options.verifying:
        check_graph(graph)
        if settled is not graph:
            check_graph(settled)
        check_graph(canonical)
    groups = fuse(canonical, layouts, options.fuse)
    watch("fuse", lambda: listing.groups(groups))
    apart = replace(options, reuse=False)  # a worker may be rounds ahead of another one
    lowered = Lowering(
        canonical, layouts, batched, splits_columns, lambda body: compile_graph(body, False, apart)
    ).run(groups)
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
        tuple(batched),
        *_unfused_cost(canonical),
        index_limits(canonical, layouts, batched),
    )
    watch("memory_plan", lambda: str(program))
    if options.verifying:
        check_program(program)
    return program


def _unfused_cost(graph: Graph) -> tuple[int, int]:
    """Bytes moved and kernels launched if every op ran alone."""
    sizes = {n.index: n.size * n.dtype.itemsize for n in graph.nodes}
    moved = count = 0
    for node in graph.nodes:
        if node.spec.kind not in (Kind.LEAF, Kind.VIEW):
            moved += sizes[node.index] + sum([sizes[n.index] for n in node.inputs])
            count += 1
    return moved, count
