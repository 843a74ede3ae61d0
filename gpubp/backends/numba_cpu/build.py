"""Compiling the kernels that a program lacks, on all cores.

This process takes its part, and starts others only where that is worth it; the kernels that take
longest are given away first. What no program needs is never compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpubp.backends.numba_cpu.compiler import compile_into
from gpubp.errors import BackendError

START = 0.5  # of a process, in seconds
OF_FORMULAS = ("ops_", "scalar")  # made from the ops' table, which only this process knows for sure
MOST = 8  # processes
# Seconds, by how names begin; any other kernel takes less. Measured on one core of a Zen 3.
_SECONDS = {
    "ops_": 1.0,
    "matmul_": 0.5,
    "cross_entropy_": 0.5,
    "reduce_": 0.4,
    "chain_": 0.4,
    "tiles_adam": 0.5,
    "tiles_": 0.3,
    "windows_": 0.3,
    "conv_": 0.4,
    "loop": 0.3,
    "scalar": 0.2,
}


def seconds(name: str) -> float:
    """About how long it takes to compile a kernel."""
    return next((s for start, s in _SECONDS.items() if name.startswith(start)), 0.1)


def divided(names: list[str], processes: int) -> list[list[str]]:
    """The kernels of each process, the first of which is running already.

    It alone knows all ops: others are new, and do not know what was registered here.
    """
    shares: list[list[str]] = [[] for _ in range(processes)]
    loads = [0.0] + [START] * (processes - 1)
    own = {name for name in names if name.startswith(OF_FORMULAS)}
    for name in sorted(names, key=lambda n: (n not in own, -seconds(n), n)):
        least = 0 if name in own else loads.index(min(loads))
        shares[least].append(name)
        loads[least] += seconds(name)
    return [share for share in shares if share]


def compile_all(folder: Path, names: list[str]) -> None:
    """Compile kernels into a folder, and say so.

    Raises:
        BackendError: the folder cannot be written, or a process failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise BackendError(
            f"compiled CPU kernels cannot be kept in {folder} ({err.strerror}). Set "
            "GPUBP_CACHE_DIR to a folder that can be written."
        ) from err
    mine, *others = divided(names, min(_cores(), MOST))
    longest = max(sum(map(seconds, share)) for share in (mine, *others))
    kernels = "1 CPU kernel" if len(names) == 1 else f"{len(names)} CPU kernels"
    print(
        f"gpubp: compiling {kernels} for this machine (once; about "
        f"{max(longest + START * bool(others), 1):.0f} s; kept in {folder})",
        file=sys.stderr,
        flush=True,
    )
    with _running(folder, others):
        compile_into(folder, mine)


@contextmanager
def _running(folder: Path, shares: list[list[str]]) -> Iterator[None]:
    """Processes that compile, until they are done; ended where this one fails or is interrupted."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    command = [sys.executable, "-m", "gpubp.backends.numba_cpu.compiler", str(folder)]
    running: list[subprocess.Popen[Any]] = []
    try:
        for share in shares:
            running.append(
                subprocess.Popen(
                    [*command, *share],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=environment,
                    text=True,
                )
            )
        yield
        problems = [process.communicate()[1] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()
    if any(process.returncode for process in running):
        raise BackendError("compiling the CPU kernels failed:\n" + "\n".join(problems))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
