"""The persistent step: one cooperative launch runs many steps.

Comes in: loaded programs that take turns. Goes out: a kernel with a body for each of them, which
reads from the run's schedule whose turn it is, and `run`, which launches it for so many steps; or
the reason why there is none.

Holds in between: parameters of all parts stand in device memory, a table for each program. The
kernel reads the words and tables that `begin_step` reads and leaves the step number as that would:
so launched, recorded and persistent steps of a run may follow each other.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpubp.backends.cuda.branches import Plan, branched, chain_cost, setting
from gpubp.backends.cuda.codegen.shares import NoShareError, Share, publication, share
from gpubp.backends.cuda.codegen.steps_source import StepShares, StepsSource, steps_source
from gpubp.backends.cuda.drivers.base import CooperativeDriver, Memory
from gpubp.backends.cuda.execution import Choice, chosen, kept_for, obstacle
from gpubp.backends.cuda.executor import Executor
from gpubp.backends.cuda.kept import Published, room_of, shared_of, told
from gpubp.backends.cuda.launch import THREADS, Workspace
from gpubp.backends.cuda.loaded import Loaded
from gpubp.backends.cuda.repeats import loop_asked
from gpubp.compiler.parts import Part
from gpubp.compiler.program import Program
from gpubp.errors import BackendError

MOST_KERNELS = 8  # that one program keeps: for the programs that it took turns with


class Persistent:
    """A kernel that runs steps of some programs.

    Args:
        programs: those of a run, in the order that its schedule counts them in; None: not used.
        blocks: how many are wanted.
        executor: of the device, whose driver is cooperative.
        guess: see below.

    Attributes:
        blocks: how many there are.
        room: of each, for temporaries.
        source: the kernel's.
        guess: seconds that a step takes, before one has been measured: the cost model's.

    Raises:
        NoShareError: a part has no function of a share, or the device has no room for the kernel.
    """

    def __init__(
        self,
        programs: Sequence[Loaded | None],
        blocks: int,
        executor: Executor,
        guess: float = 0.0,
    ) -> None:
        self.guess = guess
        driver = executor.driver
        assert isinstance(driver, CooperativeDriver)
        self._driver, self._launch = driver, driver.launch_together
        used = [p for p in programs if p is not None]
        self.blocks, self.room = blocks, room_of(driver.architecture)
        shares = self._fitting(used, executor)
        self._keep: list[Memory] = []
        self._run = used[0].numbers.run
        self._arrived = self._uploaded(np.zeros(1, np.int64), executor)
        tables = [self._numbers(one.shares, executor) for one in shares]
        rows = iter(zip(used, tables, shares, self.source.bodies, strict=True))
        steps = [_steps_row(*next(rows)) if p is not None else [0] * 7 for p in programs]
        self._programs = self._uploaded(np.array(steps, np.int64), executor)

    def _fitting(self, used: Sequence[Loaded], executor: Executor) -> list[StepShares]:
        """Makes the source and the kernel, for as many blocks as the device has room for: with more
        rows each if they are fewer than wanted, without temporaries if it has room for none.
        """
        entries = max(p.numbers.order_entry for p in used) + 1
        most = shared_of(self._driver.architecture)
        while True:
            shares = [shares_of(p, self.blocks, self.room, most) for p in used]
            self.source: StepsSource = steps_source(shares, entries)
            self._kernel = executor.kernel(self.source.text, "run_steps")
            together = self._together()
            if together >= self.blocks:
                return shares
            if together >= 1:
                self.blocks = together
            elif self.room:
                self.room = 0
            else:
                needed = f"{self.source.shared:,} bytes of shared memory"
                raise NoShareError(f"a block needs {needed}")

    def _together(self) -> int:
        """How many blocks the device has room for at a time."""
        assert isinstance(self._driver, CooperativeDriver)
        shared = self.source.shared
        try:
            self._driver.allow_shared(self._kernel, shared)
        except BackendError:
            return 0
        return self._driver.blocks_together(self._kernel, THREADS, shared)

    def _numbers(self, shares: Sequence[Share], executor: Executor) -> int:
        packed = b"".join(one.params.pack() for one in shares)
        return self._uploaded(np.frombuffer(packed, np.int64), executor)

    def _uploaded(self, words: Any, executor: Executor) -> int:
        memory = executor.driver.allocate(words.nbytes)
        executor.driver.upload(memory.address, np.ascontiguousarray(words))
        self._keep.append(memory)
        return memory.address

    def run(self, steps: int) -> None:
        """Launch so many steps of the run's schedule."""
        params = struct.pack("<3Qq", self._run, self._arrived, self._programs, steps)
        grid, block = (self.blocks, 1, 1), (THREADS, 1, 1)
        self._launch(self._kernel, grid, block, self.source.shared, params)


def _steps_row(loaded: Loaded, numbers: int, shares: StepShares, body: int) -> list[int]:
    """A program as `Steps` of persistent.cuh."""
    own = loaded.numbers
    return [numbers, own.table, own.rows, shares.words, own.outputs, own.order_entry, body]


def shares_of(loaded: Loaded, blocks: int, room: int, most: int) -> StepShares:
    """One of so many blocks' share of each part of a program, with what it copies for others.

    Args:
        loaded: the program.
        blocks: how many there are.
        room: bytes of shared memory for temporaries that a block keeps.
        most: bytes of shared memory that a block can have.

    Raises:
        NoShareError: a part has no share, or a block cannot have what it needs.
    """
    context = replace(loaded.context, written=set(), workspace=Workspace())
    kept = kept_for(loaded.program, blocks, room)[1]
    phases: list[list[tuple[Part | Published, Share]]] = [[]]
    number = 0
    for instruction in loaded.program.instructions:
        if instruction.sync:
            phases.append([])
        for part in instruction.parts:
            phases[-1].append((part, share(part, context, blocks, kept.of_part(number))))
            number += 1
    for phase, copies in kept.published.items():
        phases[phase] += [(one, publication(one, context)) for one in copies]
    found = StepShares(phases, kept.nbytes)
    words = found.words + loaded.numbers.order_entry + 1
    shared = found.scratch + 8 * words
    if shared > most:
        raise NoShareError(f"{shared:,} bytes of shared memory are more than {most:,}")
    return found


def _with_kept(choice: Choice, program: Program, blocks: int, room: int) -> Choice:
    """The choice for so many blocks, which says what they keep."""
    kept = told(program, blocks, kept_for(program, blocks, room)[1]) if choice.persistent else ""
    return replace(choice, blocks=blocks, kept=kept)


@dataclass
class _Known:
    """What is known of a program: how it runs alone, and how it ran."""

    own: Choice
    ran: Choice | None = None


class Executions:
    """Decides how programs run, and keeps the kernels for those that stay.

    Args:
        mode: one of `execution.MODES`.
        executor: of the device.

    Attributes:
        branches: whether recordings have any; see `branches.setting`.
        loops: runs are repeated by the device; see `repeats.loop_asked`.
    """

    def __init__(self, mode: str, executor: Executor) -> None:
        self.mode, self.branches, self._executor = mode, setting(), executor
        self.loops = loop_asked(executor.driver)
        self._known: weakref.WeakKeyDictionary[Loaded, _Known] = weakref.WeakKeyDictionary()
        self._kernels: weakref.WeakKeyDictionary[Loaded, dict[Any, Persistent | str]]
        self._kernels = weakref.WeakKeyDictionary()

    def choice(self, loaded: Loaded) -> Choice:
        """How a program ran last, or would run alone."""
        known = self._of(loaded)
        return known.ran or known.own

    def _of(self, loaded: Loaded) -> _Known:
        known = self._known.get(loaded)
        if known is None:
            known = self._known[loaded] = _Known(self._decide(loaded))
        return known

    def _decide(self, loaded: Loaded) -> Choice:
        if self.mode == "graph":
            return Choice(False, 0, 'execution="graph"')
        driver, program = self._executor.driver, loaded.program
        why = obstacle(program, loaded.recordable, self._executor.waits, driver)
        if why:
            return Choice(False, 0, why)
        room = room_of(driver.architecture)
        graph = self._graph_cost(loaded)
        found = chosen(self.mode, program, graph, driver.processors, room)
        if found.persistent:
            try:
                shares_of(loaded, found.blocks, room, shared_of(driver.architecture))
            except NoShareError as err:
                return Choice(False, 0, str(err))
        return _with_kept(found, program, found.blocks, room)

    def plan(self, loaded: Loaded) -> Plan | None:
        """The branches of a step's graph; None: its kernels run one after the other."""
        return branched(loaded.tasks, self._executor.driver, self.branches)

    def _graph_cost(self, loaded: Loaded) -> float:
        plan = self.plan(loaded)
        return chain_cost(loaded.tasks) if plan is None else plan.cost

    def kernel(
        self, loaded: Sequence[Loaded], used: Sequence[int], steps: int
    ) -> Persistent | None:
        """The kernel for a run of these programs, of which it uses some; None: it goes as graphs.

        Args:
            loaded: the programs, as the run's schedule counts them.
            used: numbers of those that have a step.
            steps: of the run.
        """
        if not used:
            return None
        several = [self._of(loaded[i]) for i in used]
        if self.mode == "auto" and steps == 1:  # what saves nothing is not compiled
            several[0].ran = Choice(False, 0, "a run of one step")
            return None
        against = next((known.own for known in several if not known.own.persistent), None)
        if against is not None:
            turns = f"a program that it takes turns with goes as graphs: {against.reason}"
            for known in several:
                reason = turns if known.own.persistent else known.own.reason
                known.ran = Choice(False, 0, reason)
            return None
        most = max((known.own for known in several), key=lambda own: own.blocks)
        found = self._kept(loaded, used, most)
        for i, known in zip(used, several, strict=True):
            if isinstance(found, Persistent):
                known.ran = _with_kept(known.own, loaded[i].program, found.blocks, found.room)
            else:
                known.ran = Choice(False, 0, found)
        return found if isinstance(found, Persistent) else None

    def _kept(
        self, loaded: Sequence[Loaded], used: Sequence[int], choice: Choice
    ) -> Persistent | str:
        """The kernel, made if there is none for these programs yet; or why there is none."""
        held = self._kernels.setdefault(loaded[used[0]], {})
        # By weak references: a kernel keeps no program alive, and one that is gone has none.
        key = tuple((i, weakref.ref(loaded[i])) for i in used)
        if key not in held:
            if len(held) >= MOST_KERNELS:
                held.clear()
            programs = [p if i in used else None for i, p in enumerate(loaded)]
            try:
                guess = choice.cost / 1e6
                held[key] = Persistent(programs, choice.blocks, self._executor, guess)
            except NoShareError as err:
                held[key] = str(err)
        return held[key]
