"""A program on a device: its memory, its kernels in order, and the tables they read.

Comes in: a program. Goes out: a list of work for each step, which a run launches or replays.

Holds in between: what moves between steps or runs stands in `table` (an address for each input,
output, resident array, and the index order's place); everything else is an address that the
kernels' parameters keep. Nothing in a recorded launch changes with the step.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.autotune import Autotuner
from gpubp.backends.cuda.drivers.base import DeviceMemoryError, Driver, Memory
from gpubp.backends.cuda.encoded import Encoded
from gpubp.backends.cuda.launch import Context, Workspace
from gpubp.backends.cuda.memory import copy_of
from gpubp.backends.cuda.products import Work
from gpubp.backends.cuda.sources import begin_step
from gpubp.backends.cuda.tasks import Made, Places, step_tasks
from gpubp.backends.cuda.tuning_sandbox import size_workspace
from gpubp.compiler.program import Program
from gpubp.core.store import Bank
from gpubp.errors import BackendError

RUN_WORDS, STATUS_WORD = 4, 3  # step, schedule, order, status


class StepNumbers(NamedTuple):
    """Where a step finds its batch and outputs, as `kernels/step.cu` takes it.

    Attributes:
        run: the address of the run's words.
        table: of the program's table of moving addresses.
        rows: of what says where outputs are.
        outputs: how many.
        order_entry: which entry of the table is the batch's place in the index order.
    """

    run: int
    table: int
    rows: int
    outputs: int
    order_entry: int


class Loaded:
    """An encoded program with memory of its own.

    Attributes:
        program: what was loaded.
        recordable: its launches may be recorded; not so if it asks the host: for the user's Python
            functions, or because it finds out the length of a loop itself.
        launches: how many a step has.
        reports: it may find a label or an index out of range.
        start: gives the address of a buffer, within a step.
        context: what encoders know of its memory.
        numbers: where a step finds its batch and outputs.
        begin: lets the tables point at what the next step reads and writes.
        parts: for each part of the program, what launches its kernels.
        tasks: the same, with the step's start, what each reads and writes, and what it costs.
        made: steps that were launched kernel by kernel in runs.
        seconds: that a step takes, when a long run has measured it; else 0.
        replay: number of steps -> what runs so many recorded steps again.
        epochs: steps of this and other programs -> what runs these again; see `stepping.py`.
    """

    def __init__(
        self,
        program: Program,
        driver: Driver,
        chooser: Autotuner,
        run: int,
        precision: str = "float32",
    ) -> None:
        self.program = program
        self.seconds, self.made = 0.0, 0
        self._driver = driver
        self._residents = len(program.input_types) if program.batched else 0
        self._order = len(program.buffers) + self._residents
        self._rows = [i for i, b in enumerate(program.buffers) if b.kind == "output"]
        self._inputs: list[int] = [0] * len(program.input_types)
        self._tables = driver.allocate(8 * (self._order + 1 + 3 * len(self._rows)))
        self._run, self._chooser, self._executor = run, chooser, chooser.executor
        self.numbers = self._step_numbers()
        self.context = context = self._context(precision)
        processors = driver.processors
        try:
            self._allocate()
            encoded = Encoded(program, context, self._executor)
            self._keep += size_workspace(encoded.encode, context, driver)
            encoded.encode()
            begin = begin_step(self.numbers)
            self._executor.compile([begin, *encoded.made])
            self.begin = self._executor.bind(begin)
            self.parts = encoded.works()
            self.tasks = step_tasks(self.begin, self._made(encoded), self._places(), processors)
        except DeviceMemoryError as err:
            self._keep.clear()  # so that the advice counts it as free
            beside = context.copies.nbytes + context.workspace.nbytes
            raise DeviceMemoryError(f"{err} {_needs(program, driver, beside)}") from err
        self.start, self.reports = encoded.start, encoded.reports
        self.recordable, self.launches = encoded.recordable, encoded.launches
        self.replay: dict[int, Work] = {}
        self.epochs: dict[Hashable, Work] = {}
        self._told = b""

    def _allocate(self) -> None:
        self._fixed: dict[int, int] = {}
        self._keep: list[Memory] = []
        self._banks: list[tuple[int, Bank]] = []
        written = {o.buffer for p in self.program.parts for _, o in p.outputs}
        self._written = written
        for i, buffer in enumerate(self.program.buffers):
            if isinstance(buffer.payload, Bank):
                self._banks.append((i, buffer.payload))
                self._fixed[i] = copy_of(buffer.payload, self._driver).memory.address
            elif buffer.kind in ("arena", "const"):
                memory = self._driver.allocate(max(buffer.nbytes, 1))
                if buffer.kind == "const":
                    self._driver.upload(memory.address, np.asarray(buffer.payload))
                self._keep.append(memory)
                self._fixed[i] = memory.address

    def _locate(self, buffer: int) -> tuple[int, int | None]:
        if buffer in self._fixed:
            return self._fixed[buffer], None
        return 0, buffer

    def _step_numbers(self) -> StepNumbers:
        table = self._tables.address
        rows = table + 8 * (self._order + 1)
        return StepNumbers(self._run, table, rows, len(self._rows), self._order)

    def _context(self, precision: str) -> Context:
        return Context(
            self._locate,
            self._tables.address,
            self._run + 8 * STATUS_WORD,
            len(self.program.buffers),
            self._order,
            self._driver.processors,
            Workspace(),
            precision,
            self._chooser,
        )

    def prepare(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Before a run: addresses of inputs (0, if `move_inputs` tells one later) and of the first
        step's outputs; banks up to date.
        """
        self._inputs = list(inputs)
        buffers = self.program.buffers
        rows = [(i, outputs[buffers[i].position], buffers[i].nbytes) for i in self._rows]
        words = np.concatenate([self._table(), np.array(rows, np.int64).reshape(-1)])
        if words.tobytes() != self._told:
            self._driver.upload(self._tables.address, words)
            self._told = words.tobytes()
        for i, bank in self._banks:
            copy = copy_of(bank, self._driver)
            if copy.memory.address != self._fixed[i]:
                raise BackendError("a program's parameters were moved to another device.")
            copy.prepare(i in self._written)

    def move_inputs(self, batched: Sequence[int]) -> None:
        """Within a run: other addresses of the resident arrays, for the steps that follow."""
        for position, address in zip(self.program.batched, batched, strict=True):
            self._inputs[position] = address
        self._told = b""
        self._driver.upload(self._tables.address, self._table())

    def _table(self) -> NDArray[np.int64]:
        """The table's first words; those of outputs and order are each step's own doing."""
        inputs, buffers = self._inputs, self.program.buffers
        table = np.zeros(self._order + 1, np.int64)
        for i, buffer in enumerate(buffers):
            if buffer.kind == "input":
                table[i] = inputs[buffer.position]
        table[len(buffers) : len(buffers) + self._residents] = inputs[: self._residents]
        return table

    def _made(self, encoded: Encoded) -> list[Made]:
        found = []
        for i, (part, works) in enumerate(zip(self.program.parts, self.parts, strict=True)):
            count, run = encoded.count(i) if works else 0, _named(part.name, works)
            found.append(Made(part, encoded.of_parts[i], run, count, encoded.asked[i]))
        return found

    def _places(self) -> Places:
        """Where memory is, for the order of tasks."""
        kinds = enumerate(self.program.buffers)
        constant = frozenset(i for i, buffer in kinds if buffer.kind == "const")
        table, room = self._tables.address, self.context.workspace.address
        return Places(self._fixed, constant, table, self._run, id(self.context.copies), room)

    def step(self) -> None:
        """Launch all kernels of one step."""
        for task in self.tasks:
            task.run()


def _named(part: str, works: Sequence[Work]) -> Work:
    """Do this work; errors say in which part it is."""

    def run() -> None:
        try:
            for work in works:
                work()
        except BackendError as err:
            raise BackendError(f"{err} It happened in {part!r}.") from err

    return run


def _needs(program: Program, driver: Driver, beside: int) -> str:
    """What needs how much, and what would fit; `beside`: bytes for copies and partial results."""
    sizes = dict.fromkeys(("bank", "arena", "const"), 0)
    for buffer in program.buffers:
        if buffer.kind in sizes:
            sizes[buffer.kind] += buffer.nbytes
    text = (
        f"The program needs {sizes['bank']:,} bytes for parameters and state, {sizes['arena']:,} "
        f"for the activations of a step and {sizes['const']:,} for constants"
        + f", and {beside:,} for copies and partial results"
        * bool(beside)
    )
    free, needed = driver.free_bytes() - sizes["const"], sizes["arena"] + beside
    if program.batched and 0 < free < needed:
        fits = program.batch_size * free // needed
        return f"{text}; a batch of about {fits} samples instead of {program.batch_size} would fit."
    return f"{text}. Use a smaller batch or a smaller model."
