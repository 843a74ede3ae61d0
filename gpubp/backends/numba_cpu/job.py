"""A run of the native loop: encoded programs, their memory, and the tables that the loop reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Feed
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.custom import CustomCall
from gpubp.backends.numba_cpu.encode import encoded_parts
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.backends.numba_cpu.object_code import addresses
from gpubp.backends.numba_cpu.pace import Pace
from gpubp.compiler.parts import Part
from gpubp.compiler.program import Program
from gpubp.compiler.shares import equal_bounds
from gpubp.compiler.views import collapse
from gpubp.core.store import Bank, address_of, aligned_zeros, round_up

BYTE_COST = 4  # how many operations take as long as a byte that is moved
STATUS = words.SHARED_STATUS + 2  # word of `Job.shared`; those before it are for the workers


class Loaded:
    """An encoded program with memory of its own."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.residents = len(program.input_types) if program.batched else 0
        self.row = len(program.buffers) + self.residents + 1
        self.customs: list[CustomCall] = []
        self.lanes: list[Loaded] = []  # the same program again, for threads that run members
        self._keep: list[Any] = []
        self.record_of_part: list[int] = []
        parts: list[tuple[EncodedPart, Part, bool, float]] = []
        flops = 0.0
        encoded_in_order = iter(encoded_parts(program))
        sync = False
        for instruction in program.instructions:
            sync = sync or instruction.sync  # kept if the instruction turns out to be empty
            for part in instruction.parts:
                encoded, operations = next(encoded_in_order), part.flops
                flops += operations
                self.record_of_part.append(-1 if encoded is None else len(parts))
                if encoded is None:
                    continue
                for word, custom in encoded.customs:
                    self.customs.append(CustomCall(custom))
                    encoded.words[word] = self.customs[-1].address
                self._keep += encoded.keep
                parts.append((encoded, part, sync, operations))
                sync = False
        self.pace = Pace(flops, bool(self.customs))
        self.scratch_bytes = round_up(max([p[0].scratch for p in parts], default=0) + 64, 64)
        self._link(parts)
        self._allocate()

    def _link(self, parts: list[tuple[EncodedPart, Part, bool, float]]) -> None:
        """Put all code into one array and make the records of the run loop."""
        names = {"loop", "lead", "serve"}
        for encoded, *_ in parts:
            names.update([encoded.kernel, *[name for _, name in encoded.needs]])
        found = addresses(names)
        code: list[int] = []
        records: list[tuple[int, ...]] = []
        self.cost = 0  # of a step, in the unit of the records
        for encoded, part, sync, operations in parts:
            for word, name in encoded.needs:
                encoded.words[word] = found[name]
            cost = int((operations + BYTE_COST * part.bytes_moved) / max(part.rows, 1)) + 1
            place = found[encoded.kernel], 8 * len(code)
            records.append((*place, part.rows, sync, cost, part.grain))
            code += encoded.words
            self.cost += max(part.rows, 1) * cost
        self.code = np.array(code, np.int64)
        self.records = np.array(records, np.int64).reshape(-1, words.RECORD_WORDS)
        self.records[:, words.RECORD_CODE] += address_of(self.code)

    def _allocate(self) -> None:
        self.memory: list[NDArray[Any] | None] = []
        for buffer in self.program.buffers:
            if isinstance(buffer.payload, Bank):
                self.memory.append(buffer.payload.data)
            elif buffer.kind == "const":
                pool = aligned_zeros(buffer.size, np.uint8)
                pool[:] = np.asarray(buffer.payload)
                self.memory.append(pool)
            elif buffer.kind == "arena":
                self.memory.append(aligned_zeros(buffer.size, np.uint8))
            else:
                self.memory.append(None)
        self.outputs = [i for i, b in enumerate(self.program.buffers) if b.kind == "output"]
        self._addresses = np.zeros(self.row, np.int64)
        for i, memory in enumerate(self.memory):
            self._addresses[i] = 0 if memory is None else address_of(memory)
        written = sorted({o.buffer for part in self.program.parts for _, o in part.outputs})
        self._banks = [
            (i, b.payload)
            for i, b in enumerate(self.program.buffers)
            if isinstance(b.payload, Bank)
        ]
        self._written_banks = [i for i, _ in self._banks if i in written]
        self._note_written()
        self._fixed = address_of(self.records), len(self.records), self.row
        self.scratch = aligned_zeros(0, np.uint8)

    def _note_written(self) -> None:
        """What the program writes of its banks: from where to where."""
        arrays = [self.memory[i] for i in self._written_banks]
        self._written = [(address_of(b), address_of(b) + b.nbytes) for b in arrays if b is not None]

    def place(self, banks: Mapping[Bank, NDArray[Any]]) -> None:
        """Let the next run read and write these arrays in the place of the banks."""
        for i, bank in self._banks:
            self.memory[i] = banks[bank]
            self._addresses[i] = address_of(banks[bank])
        self._note_written()

    @property
    def trains(self) -> bool:
        """It writes parameters or state, and calls nothing of the user's."""
        return bool(self._written_banks) and not self.customs

    def sync_host(self) -> None:
        """Fetch what a device has computed into the banks."""
        for buffer in self.program.buffers if Bank.has_device_copies else ():
            if isinstance(buffer.payload, Bank):
                buffer.payload.sync_host()

    def apart(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, or a copy of one that lies in memory which the program writes."""
        start = address_of(array)
        met = any(start < stop and low < start + array.nbytes for low, stop in self._written)
        return array.copy() if met else array

    def table(
        self, feed: Feed, outputs: Sequence[NDArray[Any]], workers: int
    ) -> tuple[list[int], list[NDArray[Any]]]:
        """The row of the program table for one run (see `kernels.loop`), and arrays to keep."""
        if self.scratch.size < self.scratch_bytes * workers:
            self.scratch = aligned_zeros(self.scratch_bytes * workers, np.uint8)
        buffers = self.program.buffers
        self.sync_host()
        arrays = [self.apart(a) for a in feed.inputs]
        inputs = [address_of(a) for a in arrays]
        bases = np.tile(self._addresses, (workers, 1))
        for i, buffer in enumerate(buffers):
            if buffer.kind == "input":
                bases[:, i] = inputs[buffer.position]
        bases[:, len(buffers) : len(buffers) + self.residents] = inputs[: self.residents]
        rows = [
            (i, address_of(outputs[buffers[i].position]), buffers[i].nbytes) for i in self.outputs
        ]
        listed = np.array(rows, np.int64).reshape(-1, 3)
        row = [
            *self._fixed,
            address_of(bases),
            address_of(feed.order),
            len(rows),
            address_of(listed),
            self.scratch_bytes,
            address_of(self.scratch),
        ]
        return row, [bases, listed, self.scratch, *arrays]


class Job:
    """One run, ready to be entered by its workers: at once, in slices, or again and again.

    Args:
        tables: rows of the program table.
        schedule: (program, position) of each step.
        checks: rows of `checks_of`.
        workers: how many enter, at most.
        bases: the address tables that rows point at, one a program.
        keep: other arrays that rows point at.
        flushes: denormal numbers are 0.
    """

    def __init__(
        self,
        tables: Sequence[Sequence[int]],
        schedule: NDArray[np.int64],
        checks: Sequence[Sequence[int]],
        workers: int,
        bases: Sequence[NDArray[np.int64]] = (),
        keep: Any = None,
        flushes: bool = False,
    ) -> None:
        programs = np.array(tables, np.int64)
        looked_at = np.array(checks, np.int64).reshape(-1, words.CHECK_WORDS)
        bounds = equal_bounds(workers)
        worked = round_up(words.SHARED_BOUNDS + len(bounds), 8)
        self.shared = aligned_zeros(worked + 8 * workers, np.int64)
        self.shared[words.SHARED_WORKED] = 8 * worked
        self.shared[words.SHARED_BOUNDS : words.SHARED_BOUNDS + len(bounds)] = bounds
        self._bases, self._checks = bases, looked_at
        self._keep = keep, programs, schedule
        self.context = np.zeros(words.CONTEXT_WORDS, np.int64)
        self.context[words.CONTEXT_STOP] = len(schedule)
        self.context[words.CONTEXT_SCHEDULE] = address_of(schedule)
        self.context[words.CONTEXT_PROGRAMS] = address_of(programs)
        self.context[words.CONTEXT_SHARED] = address_of(self.shared)
        self.context[words.CONTEXT_WORKERS] = workers
        self.context[words.CONTEXT_FLUSH] = int(flushes)
        self._looks = len(checks)
        self.context[words.CONTEXT_CHECKS] = self._looks
        self.context[words.CONTEXT_CHECK_LIST] = address_of(looked_at)
        self.address = address_of(self.context)
        self.steps = len(schedule)

    def cut(self, first: int, stop: int, workers: int, every: int) -> None:
        """Let the next entry run steps [first, stop); inputs are looked at before step 0.
        Shares change when a worker has done so much work, by `Loaded.cost`; 0: never.
        """
        self.context[words.CONTEXT_FIRST], self.context[words.CONTEXT_STOP] = first, stop
        self.context[words.CONTEXT_WORKERS], self.context[words.CONTEXT_WORK] = workers, every
        self.context[words.CONTEXT_CHECKS] = 0 if first else self._looks

    def addresses_of(
        self, loaded: Loaded, position: int, array: NDArray[Any]
    ) -> list[NDArray[np.int64]]:
        """The words, of a job of one program, that hold the address of this input."""
        buffers = loaded.program.buffers
        columns = [i for i, b in enumerate(buffers) if b.kind == "input" and b.position == position]
        if position < loaded.residents:
            columns.append(len(buffers) + position)
        found = [self._bases[0][:, i] for i in columns]
        checked = np.flatnonzero(self._checks[:, words.CHECK_ADDRESS] == address_of(array))
        return found + [self._checks[i : i + 1, words.CHECK_ADDRESS] for i in checked]

    @property
    def status(self) -> int:
        """What the kernels reported: 0 if all is well."""
        return int(self.shared[STATUS])

    def clear(self) -> None:
        """Forget what was reported."""
        self.shared[words.SHARED_STATUS : words.SHARED_REFUSED + 1] = 0


def checks_of(programs: Sequence[Program], feed: Feed) -> list[tuple[int, ...]]:
    """What the run loop looks at before any work: rows of `words.CHECK_WORDS`."""
    if feed.check is None:
        return []
    found: list[tuple[int, ...]] = []
    for limit in {limit: None for p in programs for limit in p.index_limits}:
        array = feed.inputs[limit.input]
        what = words.CHECK_INT32 if array.dtype == np.int32 else words.CHECK_INT64
        shape, strides = limit.layout(array)
        for first, count, stride in _straight(limit.offset, shape, strides):
            at = first * array.itemsize
            found.append((what, address_of(array), at, count, stride, limit.limit))
    for array in feed.inputs if feed.finite else ():
        if array.dtype.kind == "f":
            what = words.CHECK_FLOAT32 if array.dtype == np.float32 else words.CHECK_FLOAT64
            found.append((what, address_of(array), 0, array.size, 1, 0))
    return found


def _straight(
    offset: int, shape: Sequence[int], strides: tuple[int, ...]
) -> list[tuple[int, int, int]]:
    """(first element, count, stride) of lines that hold all elements of a strided array."""
    dims, (steps,) = collapse(tuple(shape), strides)
    if 0 in dims:
        return []
    walked = max(range(len(dims)), key=dims.__getitem__)
    starts = [offset]
    for n, step in [pair for i, pair in enumerate(zip(dims, steps)) if i != walked]:
        starts = [start + i * step for start in starts for i in range(n if step else 1)]
    return [(start, dims[walked], steps[walked]) for start in starts]
