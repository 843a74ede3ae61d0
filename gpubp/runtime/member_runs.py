"""One run of a population: every member's batches, in its own order, over programs they share.

Comes in: the data, checked, and for each member its rows and its stream of orders. Goes out: what
each member's steps returned.

Holds in between: what a member computes is what a lone step would: the same programs, in the same
order, on the same rows. Members share the data and the programs' code, and nothing that is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Feed, MemberRun
from gpubp.core.store import Bank
from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.batches import Batches, check_values, epoch_batches, updates_after
from gpubp.runtime.member_schedules import MemberSchedules
from gpubp.runtime.memory import Memory
from gpubp.runtime.nesting import turn
from gpubp.runtime.orders import Drawn
from gpubp.runtime.outputs import OutputBuffers
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready
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
        memory: of the members.
        schedules: theirs, if they have some.
        arrays: the data, checked.
    """

    def __init__(
        self,
        programs: StepPrograms,
        memory: Memory,
        schedules: MemberSchedules | None,
        arrays: Arguments,
    ) -> None:
        self._programs, self._memory, self._schedules = programs, memory, schedules
        self._arrays = arrays

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

    def run(self, tasks: Sequence[Task], checked: bool, pauses: Pauses) -> None:
        """Run them all; see `Population.run`."""
        programs = self._programs
        with turn(programs.updating):
            programs.require_own_weights()
            readies = self._readies(tasks)
            programs.updating.last = readies[0]
            if not checked:
                for ready in readies:
                    check_values(ready.program, self._arrays, True)
            banks = self._memory.banks_of(ready.program for ready in readies)
            with programs.running(readies):
                for parts in self._segments(tasks):
                    self._run(parts, readies, banks, pauses)

    def _readies(self, tasks: Sequence[Task]) -> list[Ready]:
        """The programs of all tasks; each task is told which of them its steps are."""
        kinds = list(dict.fromkeys(kind for t in tasks for kind in t.batches.kinds[0]))
        for task in tasks:
            mine, which = task.batches.kinds
            task.which = np.array([kinds.index(kind) for kind in mine])[which]
        return [self._programs.ready(self._arrays, size, final) for size, final in kinds]

    def _segments(self, tasks: Sequence[Task]) -> Iterator[list[tuple[Task, int, int]]]:
        """Parts of the tasks that no schedule's table is too short for."""
        if self._schedules is None:
            yield [(task, 0, len(task.which)) for task in tasks]
            return
        for task in tasks:
            self._schedules.require(task.member, int(task.batches.final.sum()))
        cut = [list(task.batches.segments(self._schedules.capacity)) for task in tasks]
        for k in range(max(map(len, cut))):
            yield [(t, *parts[k]) for t, parts in zip(tasks, cut) if k < len(parts)]

    def _run(
        self,
        parts: Sequence[tuple[Task, int, int]],
        readies: Sequence[Ready],
        banks: Sequence[Bank],
        pauses: Pauses,
    ) -> None:
        schedules = self._schedules
        if schedules is not None:
            for task, start, stop in parts:
                schedules.fill(task.member, int(task.batches.final[start:stop].sum()))
        runs = [self._member_run(*part, len(readies), banks) for part in parts]
        try:
            loaded = [ready.loaded for ready in readies]
            self._programs.backend.run_members(loaded, runs, pauses.look)
        finally:
            if schedules is not None:
                for task, _, _ in parts:
                    schedules.settle(task.member)
        for task, _, stop in parts:
            task.buffers.done = stop

    def _member_run(
        self, task: Task, start: int, stop: int, programs: int, banks: Sequence[Bank]
    ) -> MemberRun:
        schedule = np.empty((stop - start, 2), np.int64)
        schedule[:, 0] = task.which[start:stop]
        schedule[:, 1] = task.batches.starts[start:stop]

        def look(done: int) -> None:
            task.buffers.done = start + done

        outputs = task.buffers.rows(start, stop)
        feed = Feed(self._arrays.arrays, task.order, [outputs] * programs, look=look)
        return MemberRun(self._memory.of(task.member, banks), schedule, feed)
