"""CUDA through CuPy: the same programs on NVIDIA GPUs, from CUDA C++ kernels compiled by NVRTC.

A program is loaded as a list of kernel launches. The first runs of it launch them one by one; then
they are recorded as a CUDA graph of one step, and one of several, so that a run of many steps costs
the host little. Learning rates, step counts, the batch's place in the index order and the
generator's counter live on the device and advance there.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed, Probe
from gpubp.backends.cupy.driver import Driver
from gpubp.backends.cupy.library import Library
from gpubp.backends.cupy.loaded import RUN_WORDS, Loaded
from gpubp.backends.cupy.memory import Staging
from gpubp.backends.cupy.nvmath_products import describe
from gpubp.backends.cupy.products import PIP
from gpubp.backends.cupy.sources import Kernels
from gpubp.device_array import DeviceArray
from gpubp.errors import BackendError, DataError, unknown_name
from gpubp.program import Program
from gpubp.store import Bank

STEPS_A_GRAPH = 16  # recorded together, for long runs
RECORD_FROM = 8  # steps in a run that are worth a recording
PRECISIONS = {"float32": 0, "tf32": 80, "bf16": 80, "float16": 80}  # and the least architecture
_PROBLEMS = {
    1: "a class label is out of range: labels must be 0 to (number of classes - 1).",
    2: "an index is out of range of the axis it indexes.",
}


class CupyBackend(Backend):
    """Runs programs on one GPU.

    Args:
        device: number of the GPU.
        driver: instead of a GPU; see `driver.Driver`.
        precision: what float32 matrix products are computed in: "float32", or on tensor cores with
            float32 sums "tf32", "bf16" or "float16". Arrays stay float32, weights included, so
            these lose precision in the factors of products only. Default is GPUBP_PRECISION, else
            "float32".

    Raises:
        UnknownNameError: another precision.
        BackendError: no such GPU, or one without the tensor cores for it.
    """

    name = "cupy"
    reads_device_arrays = True

    def __init__(
        self, device: int = 0, driver: Driver | None = None, precision: str | None = None
    ) -> None:
        driver = driver or _on_gpu(device)
        self.driver = driver
        self.precision = _checked_precision(precision, driver)
        self._library = Library(driver, Kernels(driver))
        self._run = driver.allocate(8 * RUN_WORDS)
        self._staging = Staging(driver)
        self._results = Staging(driver)
        self._lock = threading.RLock()  # one stream, one run block

    @classmethod
    def on_device(cls, number: int) -> CupyBackend:
        return cls(number)

    @classmethod
    def probe(cls) -> Probe:
        if importlib.util.find_spec("cupy") is None:
            return Probe(cls.name, False, f"CuPy is not installed: {PIP}")
        from gpubp.backends.cupy.device import probe

        available, reason, details = probe()
        return Probe(cls.name, available, reason, details, lambda: {"cublaslt": describe()})

    def load(self, program: Program) -> Loaded:
        with self._lock:
            return Loaded(program, self.driver, self._library, self._run.address, self.precision)

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
        banks = [b.payload for b in loaded.program.buffers if isinstance(b.payload, Bank)]
        saved = [bank.data.copy() for bank in banks]
        with self._lock:
            self._prepare([loaded], np.zeros((1, 2), np.int64), feed)
            loaded.step()
            self.driver.synchronize()
            times = [self._timed(works, repeats) for works in loaded.parts]
        for bank, before in zip(banks, saved, strict=True):
            bank.data[...] = before
        return times

    def _timed(self, works: Sequence[Callable[[], None]], repeats: int) -> float:
        found = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(repeats):
                for work in works:
                    work()
            self.driver.synchronize()
            found.append((time.perf_counter() - start) / repeats)
        return min(found)

    def run(self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed) -> None:
        if feed.check is not None:
            feed.check()
        with self._lock:
            outputs = self._prepare(loaded, schedule, feed)
            which = schedule[:, 0]
            start = 0
            while start < len(which):
                stop = start + 1
                while stop < len(which) and which[stop] == which[start]:
                    stop += 1
                self._steps(loaded[which[start]], stop - start)
                start = stop
            self._collect(outputs)

    def _prepare(
        self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed
    ) -> list[tuple[int, NDArray[Any]]]:
        """Upload what the run reads; returns where its outputs will be."""
        steps = np.ascontiguousarray(schedule, np.int64)
        host = [a for a in feed.inputs if not isinstance(a, DeviceArray)]
        *uploaded, order, listed = self._staging.upload([*host, feed.order, steps])
        at = iter(uploaded)
        inputs = [self._address(a) if isinstance(a, DeviceArray) else next(at)
                  for a in feed.inputs]  # fmt: skip
        self.driver.upload(self._run.address, np.array([0, listed, order, 0], np.int64))
        flat = [a for outputs in feed.outputs for a in outputs]
        distinct = list({id(a): a for a in flat}.values())
        places = self._results.place([a.nbytes for a in distinct])
        place_of = {id(a): p for a, p in zip(distinct, places, strict=True)}
        for target, outputs in zip(loaded, feed.outputs, strict=True):
            target.prepare(inputs, [place_of[id(a)] for a in outputs])
        return list(zip(places, distinct, strict=True))

    def _address(self, array: DeviceArray) -> int:
        """Where an array of the user's is, once the work that was queued on it is done."""
        if array.stream is not None:
            self.driver.wait_for(array.stream)
        return array.address

    def _steps(self, loaded: Loaded, count: int) -> None:
        """Run `count` steps of one program."""
        if count < RECORD_FROM or not loaded.recordable:
            for _ in range(count):
                loaded.step()
            return
        loaded.step()  # first as it is: kernels are loaded outside of a recording
        count -= 1
        while count >= STEPS_A_GRAPH:
            self._replay(loaded, STEPS_A_GRAPH)
            count -= STEPS_A_GRAPH
        for _ in range(count):
            self._replay(loaded, 1)

    def _replay(self, loaded: Loaded, steps: int) -> None:
        replay = loaded.replay.get(steps)
        if replay is None:

            def work() -> None:
                for _ in range(steps):
                    loaded.step()

            replay = loaded.replay[steps] = self.driver.record(work)
        replay()

    def _collect(self, outputs: list[tuple[int, NDArray[Any]]]) -> None:
        """Wait for the run; fetch its outputs."""
        self.driver.synchronize()
        for place, array in outputs:
            if array.nbytes:
                self.driver.download(place, array)
        words = np.zeros(RUN_WORDS, np.int64)
        self.driver.download(self._run.address, words)
        if words[3]:
            raise DataError(_PROBLEMS[int(words[3])])


def _on_gpu(device: int) -> Driver:
    from gpubp.backends.cupy.device import CupyDriver

    return CupyDriver(device)


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
