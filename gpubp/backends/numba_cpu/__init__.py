"""The CPU backend `numba`: whole runs in one native call, shared by several workers.

A program is encoded as int64 words. Each worker (a thread) enters the run loop once, with Python's
lock released, and runs every step of the schedule; workers meet at barriers made of atomics. The
kernels are compiled once per machine, when a program first needs them, and kept as object code.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import truth
from gpubp.backends.apart import most_threads, runs_apart
from gpubp.backends.base import (
    LOOK_SECONDS,
    PROBLEMS,
    Backend,
    Feed,
    MemberRun,
    Peak,
    Probe,
)
from gpubp.backends.kept import banks_kept
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.bound import Bound, Step, either_step, one_step
from gpubp.backends.numba_cpu.custom import RAISED
from gpubp.backends.numba_cpu.encode_matmul import splits_columns
from gpubp.backends.numba_cpu.job import Job, Loaded, checks_of
from gpubp.backends.numba_cpu.members import run_flops, run_on_threads
from gpubp.backends.numba_cpu.pace import Pace
from gpubp.backends.numba_cpu.peak import measure_peak
from gpubp.backends.numba_cpu.pool import (
    MAX_MEASURED_FLOPS,
    MIN_FLOPS_PER_RUN,
    MIN_FLOPS_PER_STEP,
    Pool,
    max_workers,
    native,
)
from gpubp.backends.numba_cpu.trial import Trial
from gpubp.backends.numba_cpu.wide import wide_rows
from gpubp.backends.poison import check_writes
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.errors import DataError

PROFILE_SECONDS = 0.05  # at most about so long for each of five runs of a part
_REFUSED = -1
_PROBLEMS = {
    _REFUSED: "an input holds a label or index out of range, NaN or infinity.",
    **PROBLEMS,
}


class NumbaBackend(Backend):
    """Runs programs natively on the CPU.

    Args:
        workers: always use this many threads; default is chosen for each run, at most
            GPUBP_NUM_THREADS or the processors this process may use.
        flush_denormal: in runs of programs that write parameters or state (training steps) and call
            no custom ops, denormal numbers (below 1.2e-38 in float32, 2.2e-308 in float64) are 0,
            as `torch.set_flush_denormal` does and XLA always: many CPUs take a hundred times as
            long for them, and gradients that vanish over a long sequence are made of them. Other
            programs keep them.
    """

    name, splits_sums = "numba", True
    _peak: ClassVar[Peak | None] = None  # one for the process: it belongs to the machine
    _peak_lock: ClassVar[threading.Lock] = threading.Lock()  # see the end of this file

    def __init__(self, workers: int | None = None, flush_denormal: bool = True) -> None:
        self._workers = workers
        self._flush_denormal = truth("NumbaBackend", "flush_denormal", flush_denormal)
        self._pool = Pool()

    def __reduce__(self) -> tuple[Any, ...]:
        return NumbaBackend, (self._workers, self._flush_denormal)

    @classmethod
    def probe(cls) -> Probe:
        if importlib.util.find_spec("llvmlite") is None:
            return Probe(cls.name, False, "llvmlite is not installed: pip install llvmlite")
        details = {
            "llvmlite": version("llvmlite"),
            "cpu": platform.processor() or platform.machine(),
            "threads": str(max_workers()),
        }
        return Probe(cls.name, True, "fused native kernels on all cores", details)

    def splits_columns(self, part: Part, why: str) -> bool:
        return splits_columns(part, why)

    def wide_rows(self, part: Part) -> Sequence[Sequence[Operand]]:
        return wide_rows(part)

    def listing(self, program: Program) -> str:
        from gpubp.backends.numba_cpu.disassemble import listing

        return listing(program)

    def load(self, program: Program) -> Loaded:
        return Loaded(program)

    def run(self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed) -> None:
        self._run(loaded, schedule, feed, self._most_workers(loaded, len(schedule)))

    def run_members(
        self, loaded: Sequence[Loaded], members: Sequence[MemberRun], look: Callable[[], None]
    ) -> None:
        count = most_threads(max_workers() if self._workers is None else self._workers)
        if any(target.customs for target in loaded):
            count = 1  # Python runs inside, one thread at a time, and may look who runs what
        work = sum(run_flops(loaded, member) for member in members)
        if self._workers is None and work < MIN_FLOPS_PER_RUN:
            count = 1
        run_on_threads(self._run, loaded, members, look, min(count, len(members)))

    def _run(
        self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed, workers: int
    ) -> None:
        job = self._job(loaded, np.ascontiguousarray(schedule), feed, workers)
        largest = max(loaded, key=lambda target: target.pace.flops)
        pace = largest.pace
        done = 0
        while done < job.steps and job.status == 0:
            now, steps = workers, job.steps
            if workers > 1 and self._workers is None and pace.flops < MAX_MEASURED_FLOPS:
                now, steps = pace.plan(workers)
            elif feed.look is not None:
                steps = pace.steps_in(LOOK_SECONDS, workers)
            stop = min(done + steps, job.steps)
            job.cut(done, stop, now, pace.work_between_shares(now, largest.cost))
            start = time.perf_counter()
            if now == 1:
                native("loop")(job.address)
            elif not self._pool.run(job.address, now):
                job.cut(done, stop, 1, 0)
                native("loop")(job.address)
                now = 0  # the threads are busy: that says nothing about them
            if now:
                pace.note(now, stop - done, time.perf_counter() - start)
            done = stop
            if feed.look is not None and job.status == 0:
                feed.look(done)
        _finish(job, loaded, feed)

    def bind(self, loaded: Loaded, feed: Feed) -> Step:
        alone = self._bound(loaded, feed, 1)
        workers = self._most_workers([loaded], 1)
        if workers == 1:
            return one_step(alone)
        measured = self._workers is None and loaded.pace.flops < MAX_MEASURED_FLOPS
        pace = Pace(loaded.pace.flops) if measured else None
        return either_step(alone, self._bound(loaded, feed, workers), workers, pace)

    def _bound(self, loaded: Loaded, feed: Feed, workers: int) -> Bound:
        job = self._job([loaded], np.zeros((1, 2), np.int64), feed, workers)
        job.cut(0, 1, workers, loaded.pace.work_between_shares(workers, loaded.cost))
        pool = self._pool if workers > 1 else None
        return Bound(job, loaded, feed, pool, lambda: _finish(job, [loaded], feed))

    def _job(
        self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed, workers: int
    ) -> Job:
        made = [t.table(feed, o, workers) for t, o in zip(loaded, feed.outputs)]
        checks = checks_of([t.program for t in loaded], feed)
        bases = [keep[0] for _, keep in made]
        rows, flushes = [row for row, _ in made], self._flushes(loaded)
        return Job(rows, schedule, checks, workers, bases, (feed, made), flushes)

    def _flushes(self, loaded: Sequence[Loaded]) -> bool:
        return self._flush_denormal and all(target.trains for target in loaded)

    def _most_workers(self, loaded: Sequence[Loaded], steps: int) -> int:
        """How many may be worth it; `run` finds out whether they are."""
        if runs_apart():
            return 1
        if self._workers is not None:
            return self._workers
        flops = max(target.pace.flops for target in loaded)
        if flops < MIN_FLOPS_PER_STEP or flops * steps < MIN_FLOPS_PER_RUN:
            return 1
        return max_workers()

    def profile(self, loaded: Loaded, feed: Feed, repeats: int = 200) -> list[float]:
        """Seconds that each part takes when it runs alone, by one worker, caches warm.

        Parameters and state are as before afterwards.

        Args:
            loaded: from `load`.
            feed: arrays for one step.
            repeats: runs of each part, fewer of one that takes long; the shortest of five times is
                divided by it.

        Returns:
            One number for each part of the program; 0 for parts that have nothing to do.

        Raises:
            Exception: what a user-defined op raised.
        """
        with banks_kept(loaded.program):
            times = self._times(loaded, feed, repeats)
        for error in [call.take_error() for call in loaded.customs]:
            if error is not None:
                raise error
        return times

    def _times(self, loaded: Loaded, feed: Feed, repeats: int) -> list[float]:
        table, keep = loaded.table(feed, feed.outputs[0], 1)
        keep[1][:, 2] = 0  # every repeat writes the first step's outputs
        times, flushes = [], self._flushes([loaded])
        for record in loaded.record_of_part:
            if record < 0:
                times.append(0.0)
                continue
            alone = [table[0] + 8 * words.RECORD_WORDS * record, 1, *table[2:]]
            one = np.zeros((1, 2), np.int64)
            once = self._timed(Job([alone], one, (), 1, (), keep, flushes))
            count = max(1, min(repeats, int(PROFILE_SECONDS / once)))
            job = Job([alone], np.zeros((count, 2), np.int64), (), 1, (), keep, flushes)
            times.append(min(self._timed(job) for _ in range(5)) / count)
        return times

    def check_writes(self, loaded: Loaded) -> None:
        with banks_kept(loaded.program):
            check_writes(loaded.program, Trial(loaded))

    def peak(self) -> Peak:
        """The rates that one worker's kernels reach in cache, in float32; measured once a process.

        `flops` is that of a product of two 192 x 192 matrices, `bytes` that of a sum of two arrays
        (24 or 197 kB with the result, the faster one), each operand counted once. float64 reaches
        about half of `flops`; a part that keeps its data in registers may pass `bytes`, and one
        measured while the machine is quicker passes both.
        """
        with self._peak_lock:
            if NumbaBackend._peak is None:
                NumbaBackend._peak = measure_peak(
                    lambda program, feed, repeats: self.profile(self.load(program), feed, repeats)
                )
            return NumbaBackend._peak

    def _timed(self, job: Job) -> float:
        start = time.perf_counter()
        native("loop")(job.address)
        return time.perf_counter() - start


def _finish(job: Job, loaded: Sequence[Loaded], feed: Feed) -> None:
    """Raise what went wrong in a run."""
    status = job.status
    job.clear()
    if status == _REFUSED and feed.check is not None:
        feed.check()
    errors = [call.take_error() for target in loaded for call in target.customs]
    for error in errors:
        if status == RAISED and error is not None:
            raise error
    if status:
        raise DataError(_PROBLEMS[status])


def _unlock() -> None:
    """In a forked child; nobody measures there yet."""
    NumbaBackend._peak_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)
