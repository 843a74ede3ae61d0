"""The steps of a GPU's first hour: each a command of its own with a limit of time, and what it says
about what nobody could prove before.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 470.0  # of a step: below eight minutes with the start of its process
PARTS = 4  # of the conformance rows
KEPT = 200_000  # of a log's characters, from its end
# Ops that between them run every kernel header: under compute-sanitizer all would take too long.
EVERY_HEADER = (
    *("add", "cast", "matmul", "softmax", "sum", "argmax", "gather", "scatter_add", "concat"),
    *("attention", "conv_weight", "max_pool", "normal", "adam_update"),
)
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SMALL_ROWS = "xor,rl,digits,mnist,mnistdeep"
LARGE_ROWS = "w128-b64k,w4096,wide@tf32,w128-b64k@bf16,w4096@bf16"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: for --rows, and of its files.
        title: what it is for.
        command: arguments, from the checkout's folder.
        environment: beside the process's own.
        gpu: it needs one.
    """

    name: str
    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = True


def steps(folder: Path, target: str) -> dict[str, Step]:
    """All of them, in the order in which they are best run.

    Args:
        folder: of the results.
        target: "sm_90/132", for `prepare`.
    """
    python = sys.executable
    architecture, _, processors = target.partition("/")
    fill = ("benchmarks/common/gpu_fill.py", architecture, processors, str(SECONDS - 30))
    found = [Step("prepare", "fill the kernel cache", (python, *fill), gpu=False)]
    test = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    for i in range(1, PARTS + 1):
        part = {"GPUBP_TEST_PART": f"{i}/{PARTS}"}
        command = (*test, "tests/gpu/test_ops_on_gpu.py")
        found.append(Step(f"conformance-{i}", f"every op, part {i} of {PARTS}", command, part))
    others = ("training", "persistent", "arrays", "library", "loops")
    for name in others:
        command = (*test, f"tests/gpu/test_{name}_on_gpu.py")
        found.append(Step(f"tests-{name}", f"tests/gpu: {name}", command))
    numba = {"GPUBP_TEST_DRIVER": "numba_cuda", "GPUBP_TEST_PART": f"1/{PARTS}"}
    command = (*test, "tests/gpu", "-k", "not cupy")
    found.append(Step("numba-cuda", "the same through cuda.core, a quarter", command, numba))
    for name, setting in (("early", "GPUBP_OVERLAP"), ("looped", "GPUBP_LOOP")):
        asked = {"GPUBP_TEST_DRIVER": "numba_cuda", setting: "1", "GPUBP_EXECUTION": "graph"}
        command = (*test, "tests/gpu/test_training_on_gpu.py")
        found.append(Step(f"tests-{name}", f"trainings with {setting}=1", command, asked))
    rows = " or ".join(f"[{name}]" for name in EVERY_HEADER)
    chosen = f"(op_equals and ({rows})) or hundred_steps_against_numpy or ninety_steps"
    for tool in TOOLS:
        before = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9")
        command = (*before, *test, "tests/gpu", "-k", chosen)
        found.append(Step(f"sanitizer-{tool}", f"compute-sanitizer, {tool}", command))
    out = str(folder / "constants.json")
    measure = (python, "benchmarks/common/gpu_constants.py", out)
    found.append(Step("constants", "constants that were guessed", measure))
    for name, names in (("small", SMALL_ROWS), ("large", LARGE_ROWS)):
        file = str(folder / f"benchmark-{name}.json")
        options = ("--rows", names, "--repeats", "5", "--json", file)
        command = (python, "-m", "gpubp", "bench", "gpu", *options)
        found.append(Step(f"benchmark-{name}", f"beside PyTorch and JAX: {names}", command))
    for name, branches in (("branches", "1"), ("chain", "0")):
        file = str(folder / f"benchmark-{name}.json")
        options = ("--rows", SMALL_ROWS, "--peers", "none", "--repeats", "5", "--json", file)
        command = (python, "-m", "gpubp", "bench", "gpu", *options)
        asked = {"GPUBP_EXECUTION": "graph", "GPUBP_BRANCHES": branches}
        title = f"graphs, GPUBP_BRANCHES={branches}: {SMALL_ROWS}"
        found.append(Step(f"benchmark-{name}", title, command, asked))
    return {step.name: step for step in found}


def run(step: Step, folder: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Run a step, at most so long; its output goes to a log in the folder.

    Returns:
        For `summary.json`: exit code (None if it was stopped), seconds, the last lines.
    """
    paths = [str(ROOT / name) for name in ("benchmarks", "tests", "tests/cuda", ".")]
    paths += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **step.environment}
    log = folder / f"{step.name}.log"
    start = time.monotonic()
    code: int | None = None
    with log.open("w") as file:
        try:
            child = subprocess.Popen(
                step.command,
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:  # no compute-sanitizer, for one
            file.write(f"{step.command[0]} cannot be started: {error}\n")
            code = 127
        else:
            try:
                code = child.wait(seconds)
            except BaseException as error:
                os.killpg(child.pid, signal.SIGKILL)  # with what it has started
                child.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
    text = log.read_text(errors="replace")
    if len(text) > KEPT:
        log.write_text(text[-KEPT:])
    lines = [line for line in text.splitlines() if line.strip()]
    return {
        "title": step.title,
        "command": " ".join(step.command),
        "code": code,
        "seconds": round(time.monotonic() - start, 1),
        "last": lines[-3:],
    }
