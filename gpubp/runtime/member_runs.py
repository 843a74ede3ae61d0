"""One run of a population: every member's batches, in its own order, over programs they share.

Comes in: the data, checked, and for each member its rows and its stream of orders. Goes out: what
each member's steps returned.

Holds in between: what a member computes is what a lone step would: the same programs, in the same
order, on the same rows. Members share the data and the programs' code, and nothing that is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed, MemberRun
from gpubp.core import Graph
from gpubp.core.store import Bank
from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.batches import Batches, check_values, epoch_batches, updates_after
from gpubp.runtime.member_schedules import MemberSchedules
from gpubp.runtime.member_state import MemberState
from gpubp.runtime.nesting import turn
from gpubp.runtime.orders import Drawn
from gpubp.runtime.outputs import OutputBuffers
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready
from gpubp.runtime.rank_digest import digest, hashed
from gpubp.runtime.rank_members import RankMembers, Room
from gpubp.runtime.settings import require_count
from gpubp.runtime.step_programs import StepPrograms


@dataclass(eq=False)
class Task:
    """What one member is to do in a run.

    Attributes:
        member: which.
        drawn: the orders of its samples.
        order: of rows of the data: those orders, one behind the other.
        batches: of it.
        buffers: what its steps return.
        is_drawn: the orders were drawn, not given.
        which: the program of each step.
    """

    member: int
    drawn: Drawn
    order: NDArray[np.int64]
    batches: Batches
    buffers: OutputBuffers
    is_drawn: bool = True
    which: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def epochs(self) -> int:
        """How many it was to do."""
        return len(self.drawn.orders)

    @property
    def begun(self) -> int:
        """How many of them were begun."""
        return self.buffers.begun_of(self.epochs)


Part = tuple[Task, int, int]  # the steps from the first number to the second


def require_batch(batch_size: int, samples: int, member: int) -> None:
    """Raise DataError unless a member can make batches of this size."""
    require_count("batch_size", batch_size)
    if batch_size > samples:
        raise DataError(
            f"batch_size is {batch_size}, but member {member} has only {samples} samples."
        )


class MemberRuns:
    """Runs tasks.

    Args:
        programs: of the step.
        state: of the members.
        schedules: theirs, if they have some.
        arrays: the data, checked.
        ranks: that share the members, if there are several.
    """

    def __init__(
        self,
        programs: StepPrograms,
        state: MemberState,
        schedules: MemberSchedules | None,
        arrays: Arguments,
        ranks: RankMembers | None = None,
    ) -> None:
        self._programs, self._schedules = programs, schedules
        self._state, self._memory = state, state.memory
        self._arrays, self.ranks = arrays, ranks

    @property
    def backend(self) -> Backend:
        """That runs them."""
        return self._programs.backend

    def task(
        self,
        member: int,
        drawn: Drawn,
        rows: NDArray[np.int64] | None,
        batch_size: int,
        drop_last: bool,
        accumulate: int,
        pending: int,
    ) -> Task:
        """What a member is to do.

        Args:
            member: which.
            drawn: orders of its rows.
            rows: of the data, that are its; None: all.
            batch_size, drop_last: as of `Step.run`.
            accumulate: batches to an update.
            pending: batches that wait for one.
        """
        size, count = len(drawn.orders[0]), len(drawn.orders)
        require_batch(batch_size, size, member)
        steps = size // batch_size if drop_last else -(-size // batch_size)
        final = updates_after(steps, count, accumulate, pending, True)
        batches = epoch_batches(size, batch_size, drop_last, count, final)
        order = np.concatenate(drawn.orders)
        order = order if rows is None else rows[order]
        buffers = self._programs.output_buffers(self._arrays, batches)
        return Task(member, drawn, np.ascontiguousarray(order, np.int64), batches, buffers)

    @contextmanager
    def opened(self, tasks: Sequence[Task], checked: bool) -> Iterator[Opened]:
        """While open, the programs of these tasks are this thread's to run."""
        programs = self._programs
        with turn(programs.updating):
            programs.require_own_weights()
            readies = self._readies(tasks)
            programs.updating.last = readies[0]
            if not checked:
                for ready in readies:
                    check_values(ready.program, self._arrays, True)
            banks = self._memory.banks_of(ready.program for ready in readies)
            if self.ranks is not None:
                self.ranks.agree(facts_of_tasks(tasks, readies[0].graph))
                self.ranks.settle(self._state.live())
            with programs.running(readies):
                yield Opened(self, [r.loaded for r in readies], banks, list(self._segments(tasks)))

    def _readies(self, tasks: Sequence[Task]) -> list[Ready]:
        """The programs of all tasks; each task is told which of them its steps are."""
        kinds = list(dict.fromkeys(kind for t in tasks for kind in t.batches.kinds[0]))
        for task in tasks:
            mine, which = task.batches.kinds
            task.which = np.array([kinds.index(kind) for kind in mine])[which]
        return [self._programs.ready(self._arrays, size, final) for size, final in kinds]

    def _segments(self, tasks: Sequence[Task]) -> Iterator[list[Part]]:
        """Parts of the tasks that no schedule's table is too short for."""
        if self._schedules is None:
            yield [(task, 0, len(task.which)) for task in tasks]
            return
        for task in tasks:
            self._schedules.require(task.member, int(task.batches.final.sum()))
        cut = [list(task.batches.segments(self._schedules.capacity)) for task in tasks]
        for k in range(max(map(len, cut))):
            yield [(t, *parts[k]) for t, parts in zip(tasks, cut) if k < len(parts)]

    def fill(self, parts: Sequence[Part]) -> None:
        """Let schedules look ahead, for parts of tasks that are about to run."""
        if self._schedules is not None:
            for task, start, stop in parts:
                self._schedules.fill(task.member, int(task.batches.final[start:stop].sum()))

    def settle(self, parts: Sequence[Part]) -> None:
        """They have run, as far as they came."""
        if self._schedules is not None:
            for task, _, _ in parts:
                self._schedules.settle(task.member)

    def room(self, part: Part) -> Room:
        """What a part writes."""
        task, start, stop = part
        own = [values[task.member, ...] for values in self._state.live().values()]
        return Room([*own, *task.buffers.rows(start, stop)], task.buffers, stop)

    def member_run(self, part: Part, programs: slice, banks: Sequence[Bank]) -> MemberRun:
        """What a backend runs of a task.

        Args:
            part: of it.
            programs: where those of all tasks stand among the loaded ones.
            banks: that they name.
        """
        task, start, stop = part
        schedule = np.empty((stop - start, 2), np.int64)
        schedule[:, 0] = task.which[start:stop]
        schedule[:, 1] = task.batches.starts[start:stop]

        def look(done: int) -> None:
            task.buffers.done = start + done

        outputs = task.buffers.rows(start, stop)
        count = programs.stop - programs.start
        feed = Feed(self._arrays.arrays, task.order, [outputs] * count, look=look)
        return MemberRun(self._memory.of(task.member, banks), schedule, feed, programs)


class Opened(NamedTuple):
    """Tasks of one population that can run now.

    Attributes:
        runs: that made them.
        loaded: their programs.
        banks: that these name.
        segments: parts of the tasks, one behind the other.
    """

    runs: MemberRuns
    loaded: Sequence[Any]
    banks: Sequence[Bank]
    segments: Sequence[Sequence[Part]]


def run_side_by_side(
    jobs: Sequence[tuple[MemberRuns, Sequence[Task]]], checked: bool, pauses: Pauses
) -> None:
    """Run the tasks of one population, or of several on one backend: a thread takes whole tasks."""
    with ExitStack() as stack:
        opened = [stack.enter_context(runs.opened(tasks, checked)) for runs, tasks in jobs]
        for k in range(max(len(one.segments) for one in opened)):
            _run_parts([(one, one.segments[k]) for one in opened if k < len(one.segments)], pauses)


def _run_parts(jobs: Sequence[tuple[Opened, Sequence[Part]]], pauses: Pauses) -> None:
    loaded: list[Any] = []
    members: list[MemberRun] = []
    for one, parts in jobs:
        one.runs.fill(parts)
        mine = slice(len(loaded), len(loaded) + len(one.loaded))
        loaded += one.loaded
        members += [one.runs.member_run(part, mine, one.banks) for part in parts]
    try:
        _run_members(jobs, loaded, members, pauses)
    finally:
        for one, parts in jobs:
            one.runs.settle(parts)
    for _, parts in jobs:
        for task, _, stop in parts:
            task.buffers.done = stop


def _run_members(
    jobs: Sequence[tuple[Opened, Sequence[Part]]],
    loaded: Sequence[Any],
    members: Sequence[MemberRun],
    pauses: Pauses,
) -> None:
    """Run all members; where ranks share them, those of this one, and take over the others."""
    runs = jobs[0][0].runs
    if runs.ranks is None:
        runs.backend.run_members(loaded, members, pauses.look)
        return
    mine = [member for k, member in enumerate(members) if runs.ranks.owns(k)]
    rooms = [one.runs.room(part) for one, parts in jobs for part in parts]

    def look() -> None:
        if pauses.heard:
            raise KeyboardInterrupt

    def work() -> None:
        if mine:
            runs.backend.run_members(loaded, mine, look)

    runs.ranks.run(work, rooms, pauses)


def facts_of_tasks(tasks: Sequence[Task], graph: Graph) -> dict[str, str]:
    """What ranks compare of the tasks of a run's members, and the graph of the first program."""
    return {
        "the members that are trained": str([task.member for task in tasks]),
        "the sizes of their batches": hashed(*[task.batches.sizes for task in tasks]),
        "the batches that update": hashed(*[task.batches.final for task in tasks]),
        "the order of their samples": hashed(*[task.order for task in tasks]),
        "what the step computes": digest(graph),
    }
