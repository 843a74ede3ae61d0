"""Training on several ranks of this machine: gpubp, torch's DDP, and bare all-reduces, over gloo.

Each round starts the ranks anew, one thread each. Prints a table on stdout: microseconds a step,
median, least and most of the rounds, and the median in units of gpubp's.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common.output import Progress, digits, table
from common.results import write
from common.rows import OPTIMIZERS, Task, find_row

from gpubp.cli.bench import BenchmarkError, check_options, main, numbers
from gpubp.errors import DataError, unknown_name

CONTENDERS = ("gpubp", "torch-ddp", "all-reduce")
HEADER = ("row", "optimizer", "ranks", "contender", "us", "min", "max", "x gpubp")


def measure(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_options(options, "distributed", ())
    if options.chart is not None or options.peers not in (None, "all", "none"):
        raise DataError("of --chart and --peers, distributed takes --peers all or none.")
    if importlib.util.find_spec("torch") is None:
        raise BenchmarkError('the ranks talk through gloo: pip install "gpubp[gloo]".')
    rows = [find_row(name) for name in (options.rows or "mnistdeep").split(",")]
    optimizers = (options.optimizers or "adam").split(",")
    for name in optimizers:
        if name not in OPTIMIZERS:
            raise unknown_name("optimizer", name, OPTIMIZERS)
    ranks = numbers(options.threads, "1,2", "--threads")
    names = CONTENDERS[:1] if options.peers == "none" else CONTENDERS
    tasks = list(itertools.product(rows, optimizers, ranks))
    for row, _, size in tasks:
        if row.batch % size:
            raise DataError(
                f"{row.name} has batches of {row.batch}, which {size} ranks cannot share."
            )
    found: list[dict[str, Any]] = []
    with Progress(len(tasks) * len(names)) as progress:
        for (row, optimizer, size), name in itertools.product(tasks, names):
            task = Task(row, optimizer)
            progress.begin(f"{name} in {task}, ranks: {size}")
            result = _started(name, task, size, options.repeats)
            found.append(
                {
                    "row": row.name,
                    "optimizer": optimizer,
                    "ranks": size,
                    "contender": name,
                    **result,
                }
            )
            progress.advance()
    _compare(found, {row.name: row.tolerance for row in rows})
    print(table(HEADER, [_line(r) for r in found], 4))
    if options.json is not None:
        write(options.json, "distributed", found, left_out=[], versions={})
    return 0


def _started(name: str, task: Task, ranks: int, repeats: int) -> dict[str, Any]:
    """What rank 0 prints."""
    command = [sys.executable, "-m", "gpubp.distributed", "run", "-n", str(ranks)]
    command += ["--backend", "gloo", "-m", "common.distributed_job"]
    command += [name, task.row.name, task.optimizer, str(repeats)]
    folders = [str(Path(__file__).parent), *sys.path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in folders if p),
        "GPUBP_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchmarkError(f"{name} in {task} on {ranks} ranks: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _compare(found: list[dict[str, Any]], tolerances: dict[str, float]) -> None:
    """Refuse losses that are not those of gpubp on the first number of ranks."""
    first: dict[tuple[str, str], Any] = {}
    ours: dict[tuple[str, str, int], float] = {}
    for result in found:
        row, key = result["row"], (result["row"], result["optimizer"])
        if result["contender"] == "gpubp":
            first.setdefault(key, np.array(result["losses"]))
            ours[(*key, result["ranks"])] = statistics.median(result["seconds"])
        result["times_gpubp"] = statistics.median(result["seconds"]) / ours[(*key, result["ranks"])]
        losses = np.array(result.pop("losses"))
        if not losses.size:
            continue
        worst = float(np.abs(losses - first[key]).max() / np.abs(first[key]).max())
        if not worst <= tolerances[row]:
            raise BenchmarkError(
                f"{result['contender']} on {result['ranks']} ranks has other losses than gpubp in "
                f"{row}: they differ by {worst:.1e}."
            )


def _line(result: dict[str, Any]) -> tuple[str, ...]:
    seconds = result["seconds"]
    numbers_ = (statistics.median(seconds), min(seconds), max(seconds))
    return (
        result["row"],
        result["optimizer"],
        str(result["ranks"]),
        result["contender"],
        *(digits(1e6 * s) for s in numbers_),
        digits(result["times_gpubp"]),
    )


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
