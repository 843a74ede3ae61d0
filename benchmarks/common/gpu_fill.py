"""Fills the kernel cache for a GPU that is not there, with NVRTC alone: so that a GPU's first hour
is not spent on compiling.

`python benchmarks/common/gpu_fill.py sm_90 132 480`: for which architecture and how many
multiprocessors (both decide which sources there are), and for how many seconds at most. What is
left is compiled by the next call. The cache's folder (GPUBP_CACHE_DIR) is then copied to the
machine with the GPU; it is of use there if NVRTC has the same version. Sources are those of all
conformance cases, of `tests/cuda/sources.py` and of the benchmark's rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import gpubp as gp
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.drivers import bare_nvrtc, nvrtc
from gpubp.cache import cache_root
from gpubp.core import bind

ROOT = Path(__file__).resolve().parents[2]
Work = Callable[[CupyBackend], Any]


def sources(
    architecture: str, processors: int, works: Iterator[Work] | None = None
) -> Iterator[str]:
    """The sources of some programs, each once.

    Args:
        architecture: such as "sm_90".
        processors: of the GPU.
        works: what is compiled; default: everything that is worth having.
    """
    from sources import CollectingDriver, WinningProducts  # of tests/cuda

    seen: set[str] = set()
    for work in works or everything():
        for products in (
            None,
            WinningProducts(),
        ):  # what our kernels do, and what follows cuBLASLt's
            driver = CollectingDriver(processors, products)
            driver.architecture = architecture
            with (
                np.errstate(all="ignore"),
                mock.patch.multiple(
                    "gpubp.backends.cuda.tuning_record",
                    read=lambda key: None,
                    write=lambda *_: None,
                ),
            ):
                work(CupyBackend(driver=driver))
            for source in driver.sources:
                if source not in seen:
                    seen.add(source)
                    yield source


def everything() -> Iterator[Work]:
    """Programs of conformance, of the table of registers, and of the benchmark's rows."""
    import sources as selection  # of tests/cuda
    from specs import ROWS, cases, special_cases

    yield from selection._programs().values()
    yield from _bench_rows()
    yield from (selection._convolutions() | selection._loops()).values()
    for row in ROWS.values():
        for case in (*cases(row), *special_cases(row)):
            yield partial(_case, case)


def _case(case: Any, backend: CupyBackend) -> None:
    op = partial(bind, case.row.spec, **case.attrs)
    gp.compile(op, backend=backend, options=gp.Options(verify=False))(*case.args())


def _bench_rows() -> Iterator[Work]:
    """The steps of `gpubp bench gpu`."""
    from gpu import DEFAULT, find

    from common.rows import OPTIMIZERS, Task

    for name in DEFAULT:
        for optimizer in OPTIMIZERS:
            # A batch is enough: the kernels are those of all.
            yield partial(_bench, Task(replace(find(name), batches=1, epochs=1), optimizer))


def _bench(task: Any, backend: CupyBackend) -> None:
    from common import peers_gpubp

    backend.precision = task.row.precision
    with mock.patch.object(peers_gpubp, "_backend", lambda row: backend):
        peers_gpubp.build("gpubp", task)


def fill(
    architecture: str, found: Iterator[str], seconds: float, workers: int = 2
) -> tuple[int, int]:
    """Compile sources into the cache.

    Args:
        architecture: such as "sm_90".
        found: the sources.
        seconds: after which no compilation is begun.
        workers: processes; default: a processor each.

    Returns:
        How many are there now, and how many were left for the next call.
    """
    end = time.monotonic() + seconds
    done = left = 0
    one = partial(_compiled, architecture=architecture, end=time.time() + seconds)
    # Processes: NVRTC's bindings do not let go of the interpreter.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting = []
        for source in found:
            waiting.append(pool.submit(one, source))
            if time.monotonic() > end:
                break
        for future in waiting:
            compiled = future.result()
            done, left = done + compiled, left + (not compiled)
    return done, left


def _compiled(source: str, architecture: str, end: float) -> bool:
    if time.time() > end:
        return False
    nvrtc.compiled(bare_nvrtc.BareNvrtc(), source, architecture)
    return True


def main(arguments: list[str]) -> int:
    """The exit code: 0 if nothing is left."""
    architecture, processors, seconds = arguments[0], int(arguments[1]), float(arguments[2])
    if bare_nvrtc.missing():
        print(f"error: {bare_nvrtc.missing()}", file=sys.stderr)
        return 2
    start = time.monotonic()
    done, left = fill(architecture, sources(architecture, processors), seconds)
    version = "{}.{}".format(*bare_nvrtc.version())
    print(f"{done} sources for {architecture} with {processors} multiprocessors, NVRTC {version}")
    print(f"in {cache_root() / 'cuda'}, {time.monotonic() - start:.0f} s")
    late = time.monotonic() - start > seconds
    if left or late:
        print(f"{left} or more are left: call it again")
    return int(bool(left or late))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / p) for p in ("benchmarks", "tests", "tests/cuda")]
    sys.exit(main(sys.argv[1:]))
