"""Which launches of recorded steps may run beside each other, and whether that pays.

Comes in: tasks in the order in which they would run one after the other, and what each reads and
writes. Goes out: a plan: the edges of a graph, and lanes (streams) to record it on; with its depth
and its cost in the model of `execution.py`.

Two tasks are ordered where one writes what the other reads or writes: where memory is used again
for another value, that is an edge, too. Edges that others imply are left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpubp.backends.cuda.drivers.base import Driver
from gpubp.backends.cuda.drivers.recordings import BranchingDriver, Node
from gpubp.backends.cuda.execution import JOIN_US, NODE_US
from gpubp.backends.cuda.products import Work
from gpubp.backends.cuda.switches import switch
from gpubp.errors import BackendError

MOST_LANES = 8  # streams that a recording uses
MOST_TASKS = 1 << 10  # of a recording that is planned; longer ones are chains


class Access(NamedTuple):
    """What a task reads or writes: bytes `low` to before `high` of a piece of memory."""

    space: Hashable
    low: int
    high: int
    writes: bool


@dataclass(frozen=True)
class Task:
    """Launches that run one after the other: those of a part, or the start of a step.

    Attributes:
        run: launches them.
        launches: how many they are.
        accesses: what they read and write.
        busy: microseconds that they take in the model, and the same on all multiprocessors.
        alone: nothing is known of what it touches: nothing runs beside it.
        pinned: it is launched on the driver's own stream, whatever the lane.
        name: for messages.
    """

    run: Work
    launches: int
    accesses: tuple[Access, ...]
    busy: tuple[float, float] = (0.0, 0.0)
    alone: bool = False
    pinned: bool = False
    name: str = ""


@dataclass(frozen=True)
class Plan:
    """A graph of tasks.

    Attributes:
        before: for each task, those that end before it starts, without those that they imply: but
            always the one before it in its lane.
        lanes: on which of several streams each is recorded.
        depth: kernels on the longest way through it.
        launches: kernels in all.
        cost: of the graph, in the model's microseconds.
        chain: what the same tasks one after the other cost there.
    """

    before: tuple[tuple[int, ...], ...]
    lanes: tuple[int, ...]
    depth: int
    launches: int
    cost: float
    chain: float

    @property
    def pays(self) -> bool:
        """It is cheaper than the chain."""
        return self.cost < self.chain

    @property
    def edges(self) -> int:
        """Between kernels: those within a task, and between the last of one and the first of
        another.
        """
        return self.launches - len(self.before) + sum(map(len, self.before))

    def nodes(self, tasks: Sequence[Task], early: bool = False) -> list[Node]:
        """What a driver records; a task is behind the one before it in its lane anyway.

        Args:
            tasks: that were planned.
            early: kernels wait themselves for the one before them; see `Node.early`. Those that are
                behind several do not begin early, nor what libraries and users launch, nor what is
                behind that.
        """
        last: dict[int, int] = {}
        found = []
        for i, (lane, before) in enumerate(zip(self.lanes, self.before, strict=True)):
            after = tuple(j for j in before if j != last.get(lane))
            own = not (tasks[i].pinned or tasks[i].alone)
            tail = last.get(lane, -1)
            first = own and before == (tail,) and not (tasks[tail].pinned or tasks[tail].alone)
            found.append(Node(tasks[i].run, lane, after, (first, own) if early else (False, False)))
            last[lane] = i
        return found


def setting() -> str:
    """GPUBP_BRANCHES: "" where they pay, "0" never, "1" always.

    Raises:
        UnknownNameError: something else.
    """
    return switch("GPUBP_BRANCHES")


def overlap_asked(driver: Driver) -> bool:
    """GPUBP_OVERLAP is 1: kernels of recordings begin before those before them have ended.

    Raises:
        UnknownNameError: it is something else.
        BackendError: it is 1, and the driver or the device cannot do that.
    """
    asked = switch("GPUBP_OVERLAP") == "1"
    if asked and not (isinstance(driver, BranchingDriver) and driver.overlaps):
        raise BackendError(
            f"GPUBP_OVERLAP=1, but {driver.name} ({driver.architecture}) has no launches that begin"
            ' early: they need compute capability 9.0 and backend="numba_cuda" (CuPy has none).'
        )
    return asked


def branched(tasks: Sequence[Task], driver: Driver, asked: str) -> Plan | None:
    """The plan by which these tasks are recorded; None: one after the other.

    Args:
        tasks: of one or several steps.
        driver: that records.
        asked: see `setting`.
    """
    if asked == "0" or len(tasks) > MOST_TASKS or not isinstance(driver, BranchingDriver):
        return None
    plan = planned(tasks)
    return plan if plan.pays or asked == "1" else None


def recorded(tasks: Sequence[Task], driver: Driver, asked: str = "", early: bool = False) -> Work:
    """What launches these tasks again, as one graph; `early`: see `Plan.nodes`."""
    plan = branched(tasks, driver, asked)
    if plan is None and early and len(tasks) <= MOST_TASKS:
        plan = planned(tasks, 1)
    if plan is not None and isinstance(driver, BranchingDriver):
        return driver.record_branches(plan.nodes(tasks, early))

    def work() -> None:
        for task in tasks:
            task.run()

    return driver.record(work)


class _Order:
    """Tasks that come before each one, as bits of an integer, that one included."""

    def __init__(self) -> None:
        self.upto: list[int] = []

    def reduced(self, before: set[int]) -> tuple[int, ...]:
        """Without those that others imply, of which the latest comes first."""
        kept: list[int] = []
        known = 0
        for j in sorted(before, reverse=True):
            if not known >> j & 1:
                kept.append(j)
                known |= self.upto[j]
        return tuple(sorted(kept))

    def add(self, before: tuple[int, ...]) -> None:
        bits = 1 << len(self.upto)
        for j in before:
            bits |= self.upto[j]
        self.upto.append(bits)


def dependencies(tasks: Sequence[Task]) -> list[tuple[int, ...]]:
    """For each task the earlier ones that must end before it, without those that they imply."""
    order, held = _Order(), _Held()
    found = []
    for i, task in enumerate(tasks):
        before = held.met(i, task)
        if i and not before:
            before = {0}  # recordings begin on one stream
        found.append(order.reduced(before))
        order.add(found[-1])
    return found


class _Held:
    """Who has read and written what so far."""

    def __init__(self) -> None:
        self._known: dict[Hashable, list[tuple[int, int, int, bool]]] = {}
        self._since = 0  # tasks before it are before everything

    def met(self, i: int, task: Task) -> set[int]:
        """The tasks that it must come after; remembers what it touches."""
        if task.alone:
            before = set(range(self._since, i))
            self._known.clear()
            self._since = i
            return before
        before = {self._since} if self._since else set()
        for space, low, high, writes in task.accesses:
            known = self._known.get(space, [])
            before |= {j for a, b, j, w in known if a < high and low < b and (writes or w)}
        before.discard(i)
        for space, low, high, writes in task.accesses:
            known = self._known.setdefault(space, [])
            if writes:  # what it covers is ordered before all that meets it from now on
                known[:] = [k for k in known if k[0] < low or k[1] > high or k[2] == i]
            known.append((low, high, i, writes))
        return before


def chain_cost(tasks: Sequence[Task]) -> float:
    """Microseconds of the model for these tasks, one after the other."""
    return sum(NODE_US * task.launches + task.busy[0] for task in tasks)


def planned(tasks: Sequence[Task], most: int = MOST_LANES) -> Plan:
    """The graph of these tasks, on so many lanes at most.

    Where no lane is free of tasks that a task need not wait for, it waits for some anyway.
    """
    wanted, lanes, order = dependencies(tasks), _Lanes(most), _Order()
    before: list[tuple[int, ...]] = []
    depths: list[int] = []
    ends: list[float] = []
    for i, task in enumerate(tasks):
        lane = lanes.choose(task, wanted[i], order.upto, ends)
        tail = lanes.tails[lane]
        behind = {tail} if tail >= 0 else set()  # a stream's edge is there, implied or not
        mine = tuple(sorted({*order.reduced({*wanted[i], *behind})} | behind))
        lanes.tails[lane] = i
        lanes.taken.append(lane)
        before.append(mine)
        order.add(mine)
        start = max((ends[j] for j in mine), default=0.0) + JOIN_US * max(len(mine) - 1, 0)
        ends.append(start + NODE_US * task.launches + task.busy[0])
        depths.append(max((depths[j] for j in mine), default=0) + task.launches)
    launches = sum(task.launches for task in tasks)
    least = sum(task.busy[1] for task in tasks)  # all multiprocessors are busy
    cost = max(max(ends, default=0.0), least)
    depth, chain = max(depths, default=0), chain_cost(tasks)
    return Plan(tuple(before), tuple(lanes.taken), depth, launches, cost, chain)


class _Lanes:
    """Streams, each with the task that it ends with."""

    def __init__(self, most: int) -> None:
        self.tails = [-1] * most
        self.taken: list[int] = []

    def choose(
        self, task: Task, before: tuple[int, ...], upto: Sequence[int], ends: Sequence[float]
    ) -> int:
        """Behind the latest of those that it waits for, where one is the end of a lane; else on an
        empty lane; else where the end is before it anyway, or is early.
        """
        if task.pinned or not before:
            return 0
        implied = 0
        for j in before:
            implied |= upto[j]

        def rank(lane: int) -> tuple[int, float]:
            tail = self.tails[lane]
            if tail in before:
                return 0, -ends[tail]
            if tail < 0:
                return 1, lane
            return (2, -ends[tail]) if implied >> tail & 1 else (3, ends[tail])

        return min(range(len(self.tails)), key=rank)
