"""Peak memory of training: gpubp beside PyTorch (or any peers), one new process for each.

A process imports its library, trains a tiny dense network with the same optimiser (libraries load
parts of themselves then), and is asked for its resident memory: the base. Then it trains the row,
with its data resident, and is asked for the peak. Prints a table on stdout: MiB after the import,
the base, the peak, what the row added to the base, and that in units of gpubp's. The rounds are
whole new processes; medians are shown.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from typing import Any

from common.children import Child, LeftOutError
from common.contest import Contender
from common.output import Progress, digits, table
from common.peers import GPUBP, choose, suits
from common.results import write
from common.rows import OPTIMIZERS, Row, Task, find_row

from gpubp.cli.bench import check_options, main, numbers
from gpubp.errors import DataError, unknown_name

TINY = Row("tiny", (4, 4, 3), 4, batches=1, epochs=1)
HEADER = ("row", "optimizer", "threads", "contender", "import", "base", "peak", "added")
HEADER += ("x gpubp",)
MIB = 2.0**20


def measure(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_options(options, "memory", ())
    if options.chart is not None:
        raise DataError("--chart means nothing to the benchmark memory; leave it out.")
    rows = [find_row(name) for name in (options.rows or "cifar").split(",")]
    optimizers = (options.optimizers or "adam").split(",")
    for name in optimizers:
        if name not in OPTIMIZERS:
            raise unknown_name("optimizer", name, OPTIMIZERS)
    threads = numbers(options.threads, "2", "--threads")
    contenders = [GPUBP, *choose(options.peers or "torch-eager")]
    tasks = list(itertools.product(rows, optimizers, threads, contenders))
    found: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    left_out: list[str] = []
    with Progress(len(tasks) * options.repeats) as progress:
        for row, optimizer, count, contender in tasks:
            if not suits(contender, row):
                continue
            task = Task(row, optimizer)
            progress.begin(f"{contender.name} in {task}, threads: {count}")
            try:
                # The first fills caches of kernels.
                runs = range(options.repeats + 1)
                rounds = [_round(contender, task, count, versions) for _ in runs][1:]
            except LeftOutError as reason:
                left_out.append(f"{contender.name} in {task}: {reason}")
            else:
                found.append(_summary(contender, task, count, rounds))
            progress.advance(options.repeats)
    _compare(found)
    print(table(HEADER, [_line(r) for r in found], 4))
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if options.json is not None:
        write(options.json, "memory", found, left_out=left_out, versions=versions)
    return 0


def _round(
    contender: Contender, task: Task, threads: int, versions: dict[str, str]
) -> dict[str, int]:
    """Bytes, by the columns' names, of one new process."""
    name = contender.name
    with Child(name, threads) as child:
        versions |= child.ask("versions", contender.module)
        imported = child.ask("resident")
        for asked in (Task(TINY, task.optimizer), task):
            base = child.ask("resident")
            child.ask("forget_peak")
            child.ask("open", name, contender.module, name, asked)
            child.ask("warm", name)
            peak = child.ask("peak")
            child.ask("clear")
    return {"import": imported, "base": base, "peak": peak, "added": peak - base}


def _summary(
    contender: Contender, task: Task, threads: int, rounds: list[dict[str, int]]
) -> dict[str, Any]:
    medians = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    return {
        "row": task.row.name,
        "optimizer": task.optimizer,
        "threads": threads,
        "contender": contender.name,
        "bytes": medians,
        "rounds": rounds,
    }


def _compare(found: list[dict[str, Any]]) -> None:
    """Add every one's share of gpubp's."""
    keys = ("row", "optimizer", "threads")
    ours = {
        tuple(r[k] for k in keys): r["bytes"]["added"]
        for r in found
        if r["contender"] == GPUBP.name
    }
    for row in found:
        row["times_gpubp"] = row["bytes"]["added"] / ours[tuple(row[k] for k in keys)]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        *(str(row[key]) for key in ("row", "optimizer", "threads", "contender")),
        *(digits(row["bytes"][key] / MIB) for key in ("import", "base", "peak", "added")),
        f"{row['times_gpubp']:.2f}",
    )


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
