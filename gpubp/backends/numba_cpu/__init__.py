"""The Numba CPU backend: whole runs in one native call, shared by several workers.

A program is encoded as int64 words. Each worker (a thread) enters the run loop once, with Python's
lock released, and runs every step of the schedule; workers meet at barriers made of atomics. The
kernels are compiled by Numba once per machine and kept as object code, so that a process that finds
them in the cache never imports Numba.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed, Probe
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.custom import CustomCall
from gpubp.backends.numba_cpu.encode import EncodedPart, encode
from gpubp.backends.numba_cpu.objects import addresses
from gpubp.backends.numba_cpu.pool import (
    MIN_FLOPS_PER_RUN,
    MIN_FLOPS_PER_STEP,
    Pool,
    max_workers,
)
from gpubp.errors import BackendError, DataError
from gpubp.program import Program
from gpubp.store import Bank, address_of, aligned_zeros, round_up

SPINS = 2000
_LOOP = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 6)
_PROBLEMS = {
    1: "a class label is out of range: labels must be 0 to (number of classes - 1).",
    2: "an index is out of range of the axis it indexes.",
}


class Loaded:
    """An encoded program with memory of its own."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.flops = program.flops
        self.residents = len(program.input_types) if program.batched else 0
        resident = len(program.buffers)
        order = resident + self.residents
        self.row = order + 1
        self.customs: list[CustomCall] = []
        self.record_of_part: list[int] = []
        parts: list[tuple[EncodedPart, int, bool]] = []
        sync = False
        for instruction in program.instructions:
            sync = sync or instruction.sync  # kept if the instruction turns out to be empty
            for part in instruction.parts:
                encoded = encode(part, resident, order)
                self.record_of_part.append(-1 if encoded is None else len(parts))
                if encoded is None:
                    continue
                if encoded.kernel == "custom":
                    self.customs.append(CustomCall(part))
                    encoded.words[0] = self.customs[-1].address
                parts.append((encoded, part.rows, sync))
                sync = False
        self.scratch_bytes = round_up(max([p.scratch for p, _, _ in parts], default=0) + 64, 64)
        self._link(parts)
        self._allocate()

    def _link(self, parts: list[tuple[EncodedPart, int, bool]]) -> None:
        """Put all code into one array and make the records of the run loop."""
        names = {p.kernel for p, _, _ in parts}
        names |= {name for p, _, _ in parts for _, name in p.needs}
        found = addresses(names | {"loop"})
        starts = np.cumsum([0] + [len(p.words) for p, _, _ in parts])
        for part, _, _ in parts:
            for word, name in part.needs:
                part.words[word] = found[name]
        self.code = np.array([w for p, _, _ in parts for w in p.words], np.int64)
        self.records = np.zeros((len(parts), words.RECORD_WORDS), np.int64)
        for i, (part, rows, sync) in enumerate(parts):
            address = address_of(self.code) + 8 * int(starts[i])
            self.records[i] = (found[part.kernel], address, rows, sync)

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
        self._workers = 0

    def table(self, feed: Feed, outputs: Sequence[NDArray[Any]], workers: int) -> list[int]:
        """The row of the program table for one run; see `kernels.loop`."""
        if workers > self._workers:
            self.scratch = aligned_zeros(self.scratch_bytes * workers, np.uint8)
            self.bases = np.zeros((workers, self.row), np.int64)
            for i, memory in enumerate(self.memory):
                if memory is not None:
                    self.bases[:, i] = address_of(memory)
            self._workers = workers
        buffers = self.program.buffers
        for i, buffer in enumerate(buffers):
            if buffer.kind == "input":
                self.bases[:, i] = address_of(feed.inputs[buffer.position])
        for i in range(self.residents):
            self.bases[:, len(buffers) + i] = address_of(feed.inputs[i])
        rows = [
            (i, address_of(outputs[buffers[i].position]), buffers[i].nbytes) for i in self.outputs
        ]
        self.output_list = np.array(rows, np.int64).reshape(-1, 3)
        return [
            address_of(self.records),
            len(self.records),
            self.row,
            address_of(self.bases),
            address_of(feed.order),
            len(rows),
            address_of(self.output_list),
            self.scratch_bytes,
            address_of(self.scratch),
        ]


class NumbaBackend(Backend):
    """Runs programs natively on the CPU.

    Args:
        workers: always use this many threads; default is chosen for each run, at most
            GPUBP_NUM_THREADS or the processors this process may use.
    """

    name = "numba"

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._pool = Pool()
        self._loop: Any = None

    @classmethod
    def probe(cls) -> Probe:
        for package in ("numba", "llvmlite"):
            if importlib.util.find_spec(package) is None:
                return Probe(cls.name, False, f"{package} is not installed: pip install {package}")
        details = {
            "numba": version("numba"),
            "llvmlite": version("llvmlite"),
            "cpu": platform.processor() or platform.machine(),
            "threads": str(max_workers()),
        }
        return Probe(cls.name, True, "fused native kernels on all cores", details)

    def load(self, program: Program) -> Loaded:
        loaded = Loaded(program)
        if self._loop is None:
            self._loop = _LOOP(addresses({"loop"})["loop"])
        return loaded

    def run(self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed) -> None:
        workers = self._choose_workers(loaded, schedule)
        schedule = np.ascontiguousarray(schedule)
        if workers > 1 and self._run(loaded, schedule, feed, workers):
            return
        self._run(loaded, schedule, feed, 1)

    def _choose_workers(self, loaded: Sequence[Loaded], schedule: NDArray[np.int64]) -> int:
        if self._workers is not None:
            return self._workers
        flops = max(target.flops for target in loaded)
        if flops < MIN_FLOPS_PER_STEP or flops * len(schedule) < MIN_FLOPS_PER_RUN:
            return 1
        return max_workers()

    def _run(
        self,
        loaded: Sequence[Loaded],
        schedule: NDArray[np.int64],
        feed: Feed,
        workers: int,
    ) -> bool:
        tables = [t.table(feed, o, workers) for t, o in zip(loaded, feed.outputs)]
        if not self._run_tables(tables, schedule, workers):
            return False
        for target in loaded:
            for call in target.customs:
                call.raise_error()
        return True

    def _run_tables(
        self, tables: list[list[int]], schedule: NDArray[np.int64], workers: int
    ) -> bool:
        """Enter the run loop with every worker; False if the threads are busy."""
        programs = np.array(tables, np.int64)
        shared = aligned_zeros(32, np.int64)
        context = np.array(
            [
                len(schedule),
                address_of(schedule),
                address_of(programs),
                address_of(shared),
                address_of(shared[16:]),
                workers,
                SPINS,
            ],
            np.int64,
        )
        if workers == 1:
            self._enter(context, 0)
        elif not self._pool.run(lambda w: self._enter(context, w), workers):
            return False
        if shared[16]:
            raise DataError(_PROBLEMS[int(shared[16])])
        return True

    def profile(self, loaded: Loaded, feed: Feed, repeats: int = 200) -> list[float]:
        """Seconds that each part takes when it runs alone, by one worker, caches warm.

        Parameters and state are as before afterwards.

        Args:
            loaded: from `load`.
            feed: arrays for one step.
            repeats: runs of each part; the shortest of five times is divided by it.

        Returns:
            One number for each part of the program; 0 for parts that have nothing to do.
        """
        banks = [b.payload.data for b in loaded.program.buffers if isinstance(b.payload, Bank)]
        saved = [bank.copy() for bank in banks]
        table = loaded.table(feed, feed.outputs[0], 1)
        loaded.output_list[:, 2] = 0  # every repeat writes the first step's outputs
        schedule = np.zeros((repeats, 2), np.int64)
        times = []
        for record in loaded.record_of_part:
            best = 0.0
            if record >= 0:
                alone = list(table)
                alone[0], alone[1] = table[0] + 8 * words.RECORD_WORDS * record, 1
                best = min(self._timed(alone, schedule) for _ in range(5)) / repeats
            times.append(best)
        for bank, before in zip(banks, saved):
            bank[...] = before
        return times

    def _timed(self, table: list[int], schedule: NDArray[np.int64]) -> float:
        start = time.perf_counter()
        self._run_tables([table], schedule, 1)
        return time.perf_counter() - start

    def _enter(self, context: NDArray[np.int64], worker: int) -> None:
        out = (ctypes.c_int64 * 2)()
        at = ctypes.addressof(out)
        status = self._loop(at, at + 8, address_of(context), worker, 0, 0, 0, 0)
        if status != 0:
            raise BackendError(f"the CPU run loop ended with status {status}.")
