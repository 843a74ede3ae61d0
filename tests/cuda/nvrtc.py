"""Compiles CUDA sources with NVRTC for real GPUs, without one, and reads what ptxas says of them.

Comes in: a source and an architecture. Goes out: for each kernel its registers, stack frame and
spills, and what in its PTX makes it slow. Registers are the compiler's doing as much as ours, so
there is a table of them for each version of NVRTC that is watched, the oldest and the newest that
the extras admit. `python tests/cuda/nvrtc.py` compiles everything with the installed one and writes
its table; `--add` only what its table lacks.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import ptx_checks

from gpubp.atomic import replacing
from gpubp.backends.cuda.drivers import bare_nvrtc
from gpubp.backends.cuda.drivers.nvrtc import OPTIONS

HERE = Path(__file__).resolve().parent
TABLES = HERE / "registers"  # one a version: "13.0.json"
INSTALL = 'pip install "gpubp[cuda-check]"'
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
# CUDA's own sine and cosine reduce large arguments with an array in local memory: these sources may
# have a stack frame of so many bytes. One that has none any more is a complaint.
FRAME = 40
FRAMES = ("op sin float32 0", "op sin float64 0", "op cos float32 0", "op cos float64 0")
# Bytes that one compiler puts aside in a kernel for one architecture, which others do not.
SPILLS = {(13, 0, "sm_100"): {"product nn 1000/kernel": 16}}
# One division an element, beside a loop over its window: those of empty windows are split off.
_SPLIT = ("op max_pool_pick float32 0", "op max_pool_pick float64 0")
DIVIDES = {(13, minor, "sm_100"): _SPLIT for minor in (0, 5)}
# More than this above the table is a jump; compilers of one minor version differ by less.
SLACK = 4
WORKERS = 2


@dataclass(frozen=True)
class Usage:
    """What ptxas says of a kernel: registers of a thread; bytes of stack and of spills.

    Attributes:
        slow: what in its PTX makes it slow (`ptx_checks.py`).
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    slow: tuple[str, ...] = ()


def missing() -> str:
    """Why NVRTC cannot be used; empty if it can."""
    reason = bare_nvrtc.missing()
    if reason:
        return reason.replace(bare_nvrtc.INSTALL, INSTALL)
    return "" if bare_nvrtc.include_folders() else f"needs CUDA's headers: {INSTALL}"


def compile_source(source: str, architecture: str) -> dict[str, Usage]:
    """Compile to machine code.

    Returns:
        Kernel's name -> what it uses.

    Raises:
        BackendError: the compiler's messages.
    """
    how = (*OPTIONS, "--ptxas-options=-v", f"--gpu-architecture={architecture}")
    made = bare_nvrtc.built(source, how)
    slow = ptx_checks.findings(made.ptx)
    found = parse(made.log)
    return {name: replace(usage, slow=tuple(slow[name])) for name, usage in found.items()}


def ptx_of(source: str, architecture: str) -> str:
    """Compile to PTX, where instructions have names that tell what they divide.

    Raises:
        BackendError: the compiler's messages.
    """
    virtual = architecture.replace("sm", "compute")
    return bare_nvrtc.built(source, (*OPTIONS, f"--gpu-architecture={virtual}")).ptx


def parse(log: str) -> dict[str, Usage]:
    """Read ptxas's messages; functions that are called count for the kernel before them."""
    found: dict[str, Usage] = {}
    kernel = ""
    worst = (0, 0, 0)
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            kernel, worst = entry[1], (0, 0, 0)
        elif frame := re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line
        ):
            worst = tuple(map(max, worst, map(int, frame.groups())))  # type: ignore[assignment]
        elif used := re.search(r"Used (\d+) registers", line):
            found[kernel] = Usage(int(used[1]), *worst)
    return found


def compile_all(sources: Mapping[str, str], architecture: str) -> dict[str, Usage]:
    """Compile many sources; `source/kernel` -> what it uses."""
    # Threads would take turns: NVRTC's bindings do not let go of the interpreter.
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        compiled = partial(compile_source, architecture=architecture)
        results = pool.map(compiled, sources.values(), chunksize=8)
        return {
            f"{name}/{kernel}": usage
            for name, found in zip(sources, results)
            for kernel, usage in found.items()
        }


def table_path() -> Path:
    """Where the table of the installed version is, or would be."""
    return TABLES / "{}.{}.json".format(*bare_nvrtc.version())


def read_table(path: Path | None = None) -> dict[str, dict[str, int]] | None:
    """Architecture -> `source/kernel` -> registers; None if there is none of this version."""
    path = path or table_path()
    if not path.exists():
        return None
    table: dict[str, dict[str, int]] = json.loads(path.read_text())
    return table


def faults(found: Mapping[str, Usage], architecture: str) -> list[str]:
    """What is wrong with the kernels of one architecture whichever compiler made them."""
    lines = []
    which = (*bare_nvrtc.version(), architecture)
    spills, quiet = SPILLS.get(which, {}), (*FRAMES, *DIVIDES.get(which, ()))
    for name, usage in found.items():
        known = spills.get(name, 0)
        frame = FRAME if name.split("/")[0] in FRAMES else known
        if usage.stack > frame or max(usage.spill_stores, usage.spill_loads) > known:
            lines.append(f"{name}: {usage}: spills or has a stack frame")
        if frame and not usage.stack:
            lines.append(f"{name}: has no stack frame any more; take it out of FRAMES or SPILLS")
        if name.split("/")[0] not in quiet:  # of FRAMES tables and arrays are CUDA's own
            lines += [f"{name}: {line}" for line in usage.slow]
    return lines


def jumps(found: Mapping[str, Usage], table: Mapping[str, int]) -> list[str]:
    """Registers that are not those of the compiler's table, a line each."""
    lines = [
        f"{name}: {usage.registers} registers, {table[name]} in the table"
        for name, usage in found.items()
        if name in table and usage.registers > table[name] + SLACK
    ]
    lines += [f"{name}: not in the table" for name in found.keys() - table.keys()]
    return lines + [f"{name}: in the table, but gone" for name in table.keys() - found.keys()]


def write_table(sources_for: Callable[[str], Mapping[str, str]], add: bool) -> None:
    """Compile everything, or what the table has not, and write what it uses."""
    table = read_table() or {}
    for architecture in filter(bare_nvrtc.knows, ARCHITECTURES):
        sources = sources_for(architecture)
        known = table.get(architecture, {}) if add else {}
        known = {name: n for name, n in known.items() if name.split("/")[0] in sources}
        done = {name.split("/")[0] for name in known}
        new = {name: text for name, text in sources.items() if name not in done}
        found = compile_all(new, architecture)
        known |= {name: usage.registers for name, usage in found.items()}
        table[architecture] = dict(sorted(known.items()))
    TABLES.mkdir(exist_ok=True)
    with replacing(table_path(), "w") as file:
        file.write(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.append(str(HERE.parent))
    from sources import sources_for

    reason = missing()
    if reason:
        sys.exit(f"error: {reason}")
    write_table(sources_for, add="--add" in sys.argv)
    print(f"wrote {table_path()}")
