"""CUDA: the same programs on NVIDIA GPUs, from CUDA C++ kernels compiled by NVRTC, through CuPy or
through numba-cuda and cuda.core (`drivers/`).

A program is loaded as a list of kernel launches. The first runs of it launch them one by one; then
they are recorded as a CUDA graph of one step, and one of several, so that a run of many steps costs
the host little. Learning rates, step counts, the batch's place in the index order and the
generator's counter live on the device and advance there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed, Probe, feed_of_zeros
from gpubp.backends.cuda import chunks, drivers
from gpubp.backends.cuda.autotune import Autotuner
from gpubp.backends.cuda.branches import overlap_asked
from gpubp.backends.cuda.chunks import Chunks
from gpubp.backends.cuda.drivers.base import DeviceMemoryError, Driver
from gpubp.backends.cuda.exchange import import_array
from gpubp.backends.cuda.execution import MODES
from gpubp.backends.cuda.executor import Executor
from gpubp.backends.cuda.loaded import STATUS_WORD, Loaded
from gpubp.backends.cuda.nvmath_products import describe
from gpubp.backends.cuda.persistent import Executions
from gpubp.backends.cuda.stepping import Stepping
from gpubp.backends.cuda.transfers import Transfers
from gpubp.backends.cuda.trial import Trial
from gpubp.backends.device_array import DeviceArray
from gpubp.backends.kept import banks_kept
from gpubp.backends.poison import check_writes
from gpubp.compiler.program import Program
from gpubp.core.forks import anew_in_child
from gpubp.errors import BackendError, unknown_name

PRECISIONS = {"float32": 0, "tf32": 80, "bf16": 80, "float16": 80}  # and the least architecture


class CudaBackend(Backend):
    """Runs programs on one GPU, through the driver that has this backend's name.

    Args:
        device: number of the GPU.
        driver: instead of a GPU; see `driver.Driver`.
        precision: what float32 matrix products are computed in: "float32", or on tensor cores with
            float32 sums "tf32", "bf16" or "float16". Arrays stay float32, weights included, so
            these lose precision in the factors of products only. Default is GPUBP_PRECISION, else
            "float32".
        resident_bytes: host data of more bytes are uploaded in chunks while others are computed on.
            Default is GPUBP_RESIDENT_BYTES, else a share of the free memory (see `chunks`).
        execution: how steps are made: as recorded "graph"s; "persistent", by one kernel that stays
            for all steps of a run, where a program allows it; or "auto", as a cost model says.
            Default is GPUBP_EXECUTION, else "auto". Reports say which it was, and why.

    Raises:
        UnknownNameError: another precision, or execution.
        BackendError: no such GPU, or one without the tensor cores for it.
    """

    reads_device_arrays = True
    nests = False

    def __init__(
        self,
        device: int = 0,
        driver: Driver | None = None,
        precision: str | None = None,
        resident_bytes: int | None = None,
        execution: str | None = None,
    ) -> None:
        self._made = device, driver, precision, resident_bytes, execution
        mode = _checked_execution(execution)
        driver = driver or drivers.opened(self.name, device)
        self.driver = driver
        self.precision = _checked_precision(precision, driver)
        waits = os.environ.get("GPUBP_CUDA_SYNC", "") not in ("", "0")
        self._chooser = Autotuner(Executor(driver, waits, overlap_asked(driver)))
        self._executions = Executions(mode, self._chooser.executor)
        self._stepping = Stepping(driver, self._chooser.executor, self._executions)
        self._transfers = Transfers(driver)
        self._chunks = Chunks(driver)
        self._resident_bytes = chunks.resident_bytes(resident_bytes)
        self._lock = threading.RLock()  # one stream, one run block
        self._lost = False
        anew_in_child(self)

    def start_anew(self) -> None:
        """A forked child cannot use a GPU that its parent used: CUDA does not survive it."""
        self._lock = threading.RLock()
        self._lost = True

    def _require_own_process(self) -> None:
        if self._lost:
            raise BackendError(
                "this process was forked from one that used the GPU, which CUDA does not allow. "
                "Start it anew: multiprocessing.get_context('spawn')."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made

    @classmethod
    def on_device(cls, number: int) -> CudaBackend:
        return cls(number)

    @classmethod
    def probe(cls) -> Probe:
        available, reason, details = drivers.probed(cls.name)
        return Probe(cls.name, available, reason, details, lambda: {"cublaslt": describe()})

    def load(self, program: Program) -> Loaded:
        self._require_own_process()
        run = self._transfers.block.address
        with self._lock:
            try:
                return Loaded(program, self.driver, self._chooser, run, self.precision)
            except DeviceMemoryError:
                if not self._transfers.resident.let_go():
                    raise
                return Loaded(program, self.driver, self._chooser, run, self.precision)

    def profile(self, loaded: Loaded, feed: Feed, repeats: int = 50) -> list[float]:
        """Seconds that each part of a program takes on the device, when it runs alone again and
        again; parameters and state are as before afterwards.

        Args:
            loaded: from `load`.
            feed: arrays for one step.
            repeats: runs of each part; the shortest of five times is divided by it.

        Returns:
            One number for each part of the program.
        """
        with self._lock, banks_kept(loaded.program):
            self._transfers.prepare([loaded], np.zeros((1, 2), np.int64), feed)
            loaded.step()
            self.driver.synchronize()
            plain = loaded.recordable and not self._chooser.executor.waits
            return [self._timed(works, repeats, plain and bool(works)) for works in loaded.parts]

    def remarks(self, loaded: Loaded) -> list[str]:
        with self._lock:
            choice, plan = self._executions.choice(loaded), self._executions.plan(loaded)
        if not choice.persistent:
            rows = f", {plan.depth} of them one after the other" if plan is not None else ""
            made = f"{loaded.launches + 1} kernels a step{rows}"
            return [f"execution graph: {made} ({choice.reason})"]
        blocks, syncs = choice.blocks, loaded.program.syncs
        met = f"{syncs} times a step" if blocks > 1 else "never"
        return [
            f"execution persistent: one launch for the steps of a run, of {blocks} blocks that "
            f"meet {met}; {choice.kept} ({choice.reason})"
        ]

    def check_writes(self, loaded: Loaded) -> None:
        with self._lock, banks_kept(loaded.program):
            feed = feed_of_zeros(loaded.program)
            self._transfers.prepare([loaded], np.zeros((1, 2), np.int64), feed)
            loaded.begin()
            status = self._transfers.block.address + 8 * STATUS_WORD
            trial = Trial(loaded, self.driver, status)
            check_writes(loaded.program, trial)

    def _timed(self, works: Sequence[Callable[[], None]], repeats: int, recordable: bool) -> float:
        def run() -> None:
            for _ in range(repeats):
                for work in works:
                    work()

        again: Callable[[], None] = run
        if recordable:  # launched one by one, small kernels would take as long as Python
            again = self.driver.record(run)
            again()  # the first launch of a recording brings it to the device
            self.driver.synchronize()
        found = []
        for _ in range(5):
            start = time.perf_counter()
            again()
            self.driver.synchronize()
            found.append((time.perf_counter() - start) / repeats)
        return min(found)

    def import_array(
        self, value: Any, name: str, floating: np.dtype[Any] | None = None
    ) -> DeviceArray:
        self._require_own_process()
        with self._lock:
            return import_array(self.driver, value, name, floating)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self.driver.empty(shape, dtype)

    def to_user_array(self, value: Any) -> Any:
        return self.driver.to_user_array(value)

    def run(self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed) -> None:
        self._require_own_process()
        if feed.check is not None:
            feed.check()
        with self._lock:
            cut = self._plan(loaded, schedule, feed)
            which = schedule[:, 0]
            reports = any(program.reports for program in loaded)

            def look(done: int) -> None:
                try:
                    assert feed.look is not None
                    feed.look(done)
                except BaseException:
                    self._transfers.collect(outputs, feed, reports)  # of the steps that were made
                    raise

            def steps(first: int, stop: int) -> None:
                listen = None if feed.look is None else look
                self._stepping.run(loaded, which, first, stop, listen)
                if listen is not None and cut is not None:
                    listen(stop)

            if cut is None:
                outputs = self._transfers.prepare(loaded, schedule, feed)
            else:
                apart, order = loaded[0].program.batched, np.arange(cut.most)
                pieces = replace(feed, order=order)
                outputs = self._transfers.prepare(loaded, cut.schedule, pieces, apart)
            if cut is None:
                steps(0, len(which))
            else:
                resident = replace(feed, inputs=[feed.inputs[i] for i in apart])
                self._chunks.run(cut, resident, loaded, steps)
            self._transfers.collect(outputs, feed, reports)

    def _plan(
        self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed
    ) -> chunks.Plan | None:
        """How to cut a run whose data go to the device in chunks; None if they go as a whole."""
        programs = [target.program for target in loaded]
        arrays = [feed.inputs[i] for i in programs[0].batched]
        if not arrays or any(p.batched != programs[0].batched for p in programs):
            return None
        if any(isinstance(a, DeviceArray) for a in arrays):
            return None
        limit = self._resident_bytes
        if limit is None:
            if sum(a.nbytes for a in arrays) <= chunks.SMALL_BYTES:
                return None
            free = self.driver.free_bytes() + self._transfers.nbytes
            limit = int(chunks.RESIDENT_SHARE * free)
        sizes = [p.batch_size for p in programs]
        return chunks.plan_if_needed(arrays, schedule, sizes, limit)


class CupyBackend(CudaBackend):
    """CUDA through CuPy: arrays are CuPy's."""

    name = "cupy"


class NumbaCudaBackend(CudaBackend):
    """CUDA through numba-cuda and cuda.core, without CuPy: arrays are Numba's."""

    name = "numba_cuda"


def _checked_execution(execution: str | None) -> str:
    found = execution or os.environ.get("GPUBP_EXECUTION") or "auto"
    if found not in MODES:
        raise unknown_name("execution", found, MODES)
    return found


def _checked_precision(precision: str | None, driver: Driver) -> str:
    found = precision or os.environ.get("GPUBP_PRECISION") or "float32"
    if found not in PRECISIONS:
        raise unknown_name("precision", found, PRECISIONS)
    needed = PRECISIONS[found]
    if int(driver.architecture.removeprefix("sm_")) < needed:
        raise BackendError(
            f"precision {found!r} needs a GPU of compute capability {needed / 10}, and "
            f'{driver.name} is {driver.architecture}. Use "float32".'
        )
    return found
