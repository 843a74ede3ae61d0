"""How the steps of a run are made: as recorded graphs, or by one kernel that stays.

Comes in: a program, encoded. Goes out: a `Choice`, with its reason. "auto" asks a cost model, whose
constants were not measured on hardware: they are the figures that docs/gpu.md names. What a kernel
that stays cannot run goes as graphs, whatever was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gpubp.backends.cuda.codegen.tiles import row_tile
from gpubp.backends.cuda.drivers.base import CooperativeDriver, Driver
from gpubp.backends.cuda.kept import Kept, keep
from gpubp.compiler.parts import PRODUCT, Operand, Part
from gpubp.compiler.program import Program

MODES = ("auto", "graph", "persistent")
MOST_PARTS = 96  # of a program in one kernel: the compiler's time grows with them. A guess.

# Microseconds, and what a multiprocessor does in one. None was measured on hardware.
NODE_US = 1.3  # from one kernel of a graph to the next
JOIN_US = 0.7  # for each further kernel that a kernel of a graph waits for
MEETING_US = 1.5  # of all blocks: an atomic operation, and the last one seen by all
PART_US = 0.4  # a part in a block: its barrier, and loads that wait for each other
COPIES_US = 0.1  # of what a block kept, for others: read again, perhaps behind a barrier
BYTES_A_US = 117e3  # read by a multiprocessor from the second-level cache
OWN_BYTES_A_US = 218e3  # read by it from shared memory: 128 bytes a clock
PRODUCTS_A_US = 54e3  # multiplications and additions of a multiprocessor: a quarter of its peak


@dataclass(frozen=True)
class Choice:
    """How a program's steps are made.

    Attributes:
        persistent: by one kernel that stays, else as graphs.
        blocks: of that kernel.
        reason: in words.
        cost: of a step in that kernel, in the model's microseconds; 0: not asked for.
        kept: what its blocks keep in shared memory, in words.
    """

    persistent: bool
    blocks: int
    reason: str
    cost: float = 0.0
    kept: str = ""


def steps_cost(program: Program, blocks: int, kept: Kept) -> float:
    """What a step in a kernel of so many blocks costs in the model: that of the block with most.

    Args:
        program: what runs.
        blocks: of the kernel.
        kept: what they keep in shared memory.
    """
    total = MEETING_US * program.syncs if blocks > 1 else 0.0
    for number, part in enumerate(program.parts):
        rows = -(-part.rows // blocks) if part.rows else 0
        moving = _moving(number, part, rows / part.rows if part.rows else 1.0, kept)
        total += PART_US + max(moving, _work(part, rows) / PRODUCTS_A_US)
    for copies in kept.published.values():
        nbytes = sum(-(-one.rows // blocks) * one.place.row for one in copies)
        total += COPIES_US + nbytes / BYTES_A_US
    return total


def kept_for(program: Program, blocks: int, room: int) -> tuple[float, Kept]:
    """What a step costs in the model, and what so many blocks keep then: with what they copy for
    others, or without.
    """
    plans = [keep(program, blocks, room, copies) for copies in (False, True)]
    return min(((steps_cost(program, blocks, one), one) for one in plans), key=lambda p: p[0])


def _moving(number: int, part: Part, share: float, kept: Kept) -> float:
    """How long a block with this share of the rows moves bytes: what has none it reads whole."""
    return sum(
        _bytes(operand, share)
        / (OWN_BYTES_A_US if kept.has(number, operand, write) else BYTES_A_US)
        for operand, write in part.operands()
    )


def _bytes(operand: Operand, share: float) -> float:
    return operand.unique_bytes * (1.0 if operand.axis is None else share)


def _work(part: Part, rows: int) -> float:
    """Multiplications of a block that has so many rows: a product's tiles are computed whole."""
    share = rows / part.rows if part.rows else 1.0
    if part.kernel != PRODUCT or part.anchor is None:
        return part.flops / 2 * share
    made = part.body[part.anchor]
    inner = part.type_of(made.args[0]).shape[-1]
    rows = rows or made.shape[-2]
    high = row_tile(rows, inner, made.dtype.itemsize)[0][0]
    return float(-(-rows // high) * high * made.shape[-1] * inner)


def fewest_costs(program: Program, processors: int, room: int) -> tuple[int, float]:
    """The number of blocks at which the model's cost is least, and that cost; `room`: of a block,
    for temporaries.
    """
    most = max((part.rows for part in program.parts), default=1)
    counts = _counts(min(most, processors))
    costs = ((n, kept_for(program, n, room)[0]) for n in counts)
    return min(costs, key=lambda found: found[1])


def _counts(most: int) -> Iterator[int]:
    blocks = 1
    while blocks < most:
        yield blocks
        blocks *= 2
    yield max(most, 1)


def obstacle(program: Program, recordable: bool, waits: bool, driver: Driver) -> str:
    """Why a program cannot run in a kernel that stays, as far as can be said before its parts are
    looked at; "" if nothing is in the way.
    """
    if waits:
        return "GPUBP_CUDA_SYNC looks after each kernel"
    if not isinstance(driver, CooperativeDriver):
        return f"{driver.name} has no launches whose blocks may meet"
    if not recordable:
        return "a part of it runs on the host, or the host looks after each round of a loop"
    if not program.parts:
        return "it has no parts"
    if len(program.parts) > MOST_PARTS:
        return f"{len(program.parts)} parts are more than the {MOST_PARTS} of one kernel"
    return ""


def chosen(mode: str, program: Program, graph: float, processors: int, room: int) -> Choice:
    """What is best by the mode and the model, where nothing is in the way.

    Args:
        mode: one of MODES.
        program: what runs.
        graph: what a step as a graph costs in the model.
        processors: of the device.
        room: see `fewest_costs`.
    """
    blocks, cost = fewest_costs(program, processors, room)
    if mode != "auto":
        return Choice(mode == "persistent", blocks, f'execution="{mode}"', cost)
    reason = f"cost model, not measured: {cost:.1f} in one kernel, {graph:.1f} as a graph"
    return Choice(cost < graph, blocks, reason, cost)
