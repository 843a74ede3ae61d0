"""A program on a device: its memory, its kernels in order, and the tables they read.

Comes in: a program. Goes out: a list of work for each step, which a run launches or replays.

Holds in between: what moves between steps or runs stands in `table` (an address for each input,
output, resident array, and the index order's place); everything else is an address that the
kernels' parameters keep. Nothing in a recorded launch changes with the step.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.autotune import Autotuner
from gpubp.backends.cuda.codegen.encode import encode
from gpubp.backends.cuda.drivers.base import DeviceMemoryError, Driver, Memory
from gpubp.backends.cuda.launch import AnyLaunch, Context, Workspace
from gpubp.backends.cuda.memory import copy_of
from gpubp.backends.cuda.products import Work
from gpubp.backends.cuda.sources import begin_step
from gpubp.backends.cuda.tuning_sandbox import size_workspace
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.core import evaluate
from gpubp.core.store import Bank
from gpubp.errors import BackendError

RUN_WORDS, STATUS_WORD = 4, 3  # step, schedule, order, status


class Loaded:
    """An encoded program with memory of its own.

    Attributes:
        program: what was loaded.
        recordable: its launches may be recorded; not so if it calls Python functions.
        reports: it may find a label or an index out of range.
        begin: lets the tables point at what the next step reads and writes.
        parts: for each part of the program, what launches its kernels.
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
        self.recordable = not any(_on_host(p) for p in program.parts)
        context = self._context(precision)
        try:
            self._allocate()
            self.parts = self._encode(context)
        except DeviceMemoryError as err:
            self._keep.clear()  # so that the advice counts it as free
            beside = context.copies.nbytes + context.workspace.nbytes
            raise DeviceMemoryError(f"{err} {_needs(program, driver, beside)}") from err
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

    def _begin_numbers(self) -> list[int]:
        table = self._tables.address
        rows = table + 8 * (self._order + 1)
        return [self._run, table, rows, len(self._rows), self._order]

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

    def _encode(self, context: Context) -> list[list[Work]]:
        self._keep += size_workspace(lambda: self._launches(context), context, self._driver)
        made = self._launches(context)
        self.reports = context.reports
        begin = begin_step(self._begin_numbers())
        self._executor.compile([begin, *itertools.chain(*made)])
        self.begin = self._executor.bind(begin)
        return [self._works(*pair) for pair in zip(self.program.parts, made, strict=True)]

    def _launches(self, context: Context) -> list[Sequence[AnyLaunch]]:
        """The launches of each part, in the order in which they run."""
        context.copies.begin()
        made = []
        for part in self.program.parts:
            made.append([] if _on_host(part) else encode(part, context))
            context.copies.written(part)
        return made

    def _works(self, part: Part, made: Sequence[AnyLaunch]) -> list[Work]:
        if _on_host(part):
            return [lambda: self._call_custom(part)]
        return [self._executor.bind(launch) for launch in made]

    def _call_custom(self, part: Part) -> None:
        """Run a user's NumPy function on the host: there and back through the host's memory."""
        compute = part.body[0]
        args = [self._fetch(part.inputs[i]) for i in compute.args]
        result = evaluate(compute.spec, args, compute.attrs)
        for _, operand in part.outputs:
            place = self.start(operand.buffer) + operand.place[1]
            self._driver.upload(place, np.ascontiguousarray(result))

    def start(self, buffer: int) -> int:
        """The address of a buffer, within a step."""
        found, entry = self._locate(buffer)
        if entry is None:
            return found
        word = np.zeros(1, np.int64)
        self._driver.download(self._tables.address + 8 * entry, word)
        return int(word[0])

    def _fetch(self, operand: Operand) -> NDArray[Any]:
        out = np.empty(operand.shape, operand.dtype)
        self._driver.download(self.start(operand.buffer) + operand.place[1], out)
        return out

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

    def step(self) -> None:
        """Launch all kernels of one step."""
        self.begin()
        for part, works in zip(self.program.parts, self.parts, strict=True):
            try:
                for work in works:
                    work()
            except BackendError as err:
                raise BackendError(f"{err} It happened in {part.name!r}.") from err


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


def _on_host(part: Part) -> bool:
    """A user's op without CUDA source."""
    return part.kernel == "custom" and part.body[0].spec.cuda is None
