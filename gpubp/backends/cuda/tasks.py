"""The launches of a step as tasks: what each reads and writes, and how long it takes in the model.

Comes in: parts of a program with their launches, and where their memory is. Goes out: a `Task` for
each part that launches something, for `branches.py`.

Memory of the program is known by its address, so programs that take turns on the same parameters
are ordered, too. What moves from step to step is a piece of its own for each buffer; the table that
says where it is belongs to who reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpubp.backends.cuda.branches import Access, Task
from gpubp.backends.cuda.execution import BYTES_A_US, PRODUCTS_A_US
from gpubp.backends.cuda.launch import AnyLaunch, Context, KernelLaunch, Launch, ProductLaunch
from gpubp.backends.cuda.products import Work
from gpubp.compiler.parts import Part

_ALL = 1 << 62  # of a piece that is touched as a whole


@dataclass
class Beside:
    """What the encoder of a part asked for beside its operands.

    Attributes:
        copies: see `Copies.touched`.
        workspace: room for partial results.
    """

    copies: list[tuple[tuple[int, str, int], int, int, bool]] = field(default_factory=list)
    workspace: bool = False


def beside(context: Context) -> Beside:
    """What was asked for since the last time."""
    found = Beside(list(context.copies.touched), context.workspace.asked)
    context.copies.touched.clear()
    context.workspace.asked = False
    return found


@dataclass(frozen=True)
class Places:
    """Where a program's buffers are.

    Attributes:
        fixed: address of each that stays.
        constant: numbers of those that nobody writes.
        table: the address of the table of those that move.
        run: of the run's words.
        copies: names the program's copies.
        workspace: address of room for partial results.
    """

    fixed: dict[int, int]
    constant: frozenset[int]
    table: int
    run: int
    copies: int
    workspace: int


@dataclass(frozen=True)
class Made:
    """What became of a part.

    Attributes:
        part: the part.
        launches: as data; of loops, and of what the host does, none.
        run: launches them, or calls the host.
        count: how many launches it has.
        asked: what they use beside its operands.
    """

    part: Part
    launches: Sequence[AnyLaunch]
    run: Work
    count: int
    asked: Beside


def step_tasks(
    begin: Work, made: Sequence[Made], memory: Places, processors: int
) -> tuple[Task, ...]:
    """Of a whole step, in its order: its start, which counts the step and writes the table, and
    each part that launches something.
    """
    accesses = (_whole("table", memory.table, True), _whole("run", memory.run, True))
    first = Task(begin, 1, accesses, name="begin_step")
    return first, *(_task(one, memory, processors) for one in made if one.count)


def _task(made: Made, memory: Places, processors: int) -> Task:
    """A part's launches. What the host has to do with, and loops, is `alone`."""
    part, launches = made.part, made.launches
    products = any(isinstance(launch, ProductLaunch) for launch in launches)
    users = any(isinstance(launch, KernelLaunch) for launch in launches)
    accesses = [
        _operand(operand.buffer, operand.extent, writes, memory)
        for operand, writes in part.operands()
        if operand.buffer not in memory.constant
    ]
    for key, first, last, anew in made.asked.copies:
        accesses.append(Access(("copy", memory.copies, *key), first, last, anew))
    if made.asked.workspace:
        accesses.append(_whole("workspace", memory.workspace, True))
    if products:
        accesses.append(_whole("library", 0, True))
    if any(isinstance(launch, Launch) and "table" in launch.source for launch in launches):
        accesses.append(_whole("table", memory.table, False))
    return Task(
        made.run,
        made.count,
        tuple(accesses),
        _busy(part, launches, processors),
        alone=not launches,
        pinned=products or users,
        name=part.name,
    )


def _whole(what: str, place: int, writes: bool) -> Access:
    return Access((what, place), 0, _ALL, writes)


def _operand(buffer: int, extent: tuple[int, int], writes: bool, memory: Places) -> Access:
    if buffer in memory.fixed:
        return Access(("memory", memory.fixed[buffer]), *extent, writes)
    return Access(("moving", memory.table, buffer), *extent, writes)


def _busy(part: Part, launches: Sequence[AnyLaunch], processors: int) -> tuple[float, float]:
    """Microseconds on as many multiprocessors as have a block, and on all of them."""
    grids = [launch.grid for launch in launches if isinstance(launch, Launch)]
    blocks = max((x * y * z for x, y, z in grids), default=processors)
    work = max(part.bytes_moved / BYTES_A_US, part.flops / 2 / PRODUCTS_A_US)
    return work / max(1, min(blocks, processors)), work / max(1, processors)
