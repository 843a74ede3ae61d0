"""Training on several ranks of this machine: gpubp, torch's DDP, and what bounds both.

`gpubp` is a communicator as `gpubp.distributed.init()` gives it, which goes through shared memory
on one machine; `-divided` with `shard_optimizer=True`; `-gloo` is carried by gloo, as DDP is, in
one buffer or in buckets of 1 MiB; `-mpi` by MPI, where mpi4py is installed. `compute` is a rank's
share of each batch by itself, at the same time on all ranks; `all-reduce` the bytes of the
gradients. `ddp` is DistributedDataParallel as it comes, `ddp-views` with gradient_as_bucket_view
and static_graph, `ddp-buckets` also with buckets of 1 MiB. Contenders are in the same processes, of
one thread each, and take turns. Prints a table on stdout: microseconds a step, median, least and
most of the rounds, and the median in units of gpubp's; then, by round, gpubp over the slower of
compute and all-reduce, over both (what the model of costs predicts without overlap), and the
fastest DDP over gpubp.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from common.children import environment
from common.contest import Spread, relative_difference
from common.output import Progress, digits, table
from common.results import write
from common.rows import OPTIMIZERS, Row, Task, find_row

from gpubp.cli.bench import BenchmarkError, check_options, main, numbers
from gpubp.distributed.launch import free_port
from gpubp.errors import DataError, unknown_name

OURS = ("gpubp", "gpubp-divided", "gpubp-gloo", "gpubp-gloo-buckets", "compute")
SENT = ("all-reduce", "all-reduce-gloo")
MPI = ("gpubp-mpi", "all-reduce-mpi")
DDP = ("ddp", "ddp-views", "ddp-buckets")
# Which bare all-reduce each of ours is compared with.
_CARRIED = {"": "", "-divided": "", "-gloo": "-gloo", "-gloo-buckets": "-gloo", "-mpi": "-mpi"}
ROWS = "xor,rl,digits,mnist,mnistdeep"
HEADER = ("row", "optimizer", "ranks", "contender", "us", "min", "max", "x gpubp")
RATIOS = ("row", "optimizer", "ranks", "ratio", "median", "min", "max")


def measure(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    tasks = _tasks(options)
    mpi = importlib.util.find_spec("mpi4py") is not None
    names = [*OURS, *SENT, *(MPI if mpi else ()), *(DDP if options.peers != "none" else ())]
    left_out = [] if mpi else ["gpubp-mpi, all-reduce-mpi: mpi4py is not installed (gpubp[mpi])"]
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    first: dict[str, Any] = {}  # losses of gpubp, by task
    with Progress(len(tasks)) as progress:
        for task, ranks in tasks:
            progress.begin(f"{task}, ranks: {ranks}")
            found = _started(task, ranks, options.repeats, names, "mpi" if mpi else "gloo")
            first.setdefault(str(task), np.array(found["losses"]["gpubp"]))
            _compare(task, ranks, first[str(task)], found["losses"])
            versions |= found["versions"]
            of = {"row": task.row.name, "optimizer": task.optimizer, "ranks": ranks}
            rows += _rows(of, found["rounds"])
            ratios += _ratios(of, found["rounds"])
            progress.advance()
    print(table(HEADER, [_line(r) for r in rows], 4))
    print()
    print(table(RATIOS, [_ratio_line(r) for r in ratios], 4))
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if options.json is not None:
        more = {"ratios": ratios, "left_out": left_out, "versions": versions}
        write(options.json, "distributed", rows, **more)
    return 0


def _tasks(options: argparse.Namespace) -> list[tuple[Task, int]]:
    """What to run, on how many ranks each.

    Raises:
        DataError, BenchmarkError: options that cannot work.
    """
    check_options(options, "distributed", ())
    if options.chart is not None or options.peers not in (None, "all", "none"):
        raise DataError("of --chart and --peers, distributed takes --peers all or none.")
    if importlib.util.find_spec("torch") is None:
        raise BenchmarkError('the ranks talk through gloo: pip install "gpubp[gloo]".')
    found: list[Row] = [find_row(name) for name in (options.rows or ROWS).split(",")]
    optimizers = (options.optimizers or "adam").split(",")
    for name in optimizers:
        if name not in OPTIMIZERS:
            raise unknown_name("optimizer", name, OPTIMIZERS)
    tasks = []
    for row, optimizer, ranks in itertools.product(
        found, optimizers, numbers(options.threads, "2", "--threads")
    ):
        if row.batch % ranks:
            raise DataError(
                f"{row.name} has batches of {row.batch}, which {ranks} ranks cannot share."
            )
        tasks.append((Task(row, optimizer), ranks))
    return tasks


def _started(
    task: Task, ranks: int, repeats: int, names: Sequence[str], backend: str
) -> dict[str, Any]:
    """What rank 0 prints."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gpubp.distributed", "run", "-n", str(ranks)]
    command += ["--backend", backend, "--address", address, "-m", "common.distributed_job"]
    command += [task.row.name, task.optimizer, str(repeats), ",".join(names), address]
    done = subprocess.run(command, env=environment(1), capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchmarkError(f"{task} on {ranks} ranks: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _compare(task: Task, ranks: int, first: Any, losses: Mapping[str, Sequence[float]]) -> None:
    """Refuse losses that are not those of gpubp on the first number of ranks."""
    for name, values in losses.items():
        worst = relative_difference(np.array(values), first) if values else 0.0
        if not worst <= task.row.tolerance:
            raise BenchmarkError(
                f"{name} on {ranks} ranks has other losses than gpubp in {task}: they differ by "
                f"{worst:.1e}."
            )


def _rows(of: Mapping[str, Any], rounds: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    ours = Spread.of(rounds["gpubp"]).median
    return [
        {
            **of,
            "contender": name,
            "seconds": asdict(spread := Spread.of(seconds)),
            "rounds": seconds,
            "times_gpubp": spread.median / ours,
        }
        for name, seconds in rounds.items()
    ]


def _ratios(of: Mapping[str, Any], rounds: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    """Round by round: what all contenders have in a round, the machine gave them alike."""
    found: dict[str, Any] = {}
    for suffix, carried in _CARRIED.items():
        if f"gpubp{suffix}" not in rounds:
            continue
        ours = np.array(rounds[f"gpubp{suffix}"])
        bound = np.maximum(rounds["compute"], rounds[f"all-reduce{carried}"])
        found[f"gpubp{suffix} / slower of compute and all-reduce{carried}"] = ours / bound
        both = np.add(rounds["compute"], rounds[f"all-reduce{carried}"])
        found[f"gpubp{suffix} / compute + all-reduce{carried}"] = ours / both
        if DDP[0] in rounds:
            fastest = np.minimum.reduce([rounds[name] for name in DDP])
            found[f"fastest DDP / gpubp{suffix}"] = fastest / ours
    return [
        {**of, "ratio": name, **asdict(Spread.of(values.tolist())), "rounds": values.tolist()}
        for name, values in found.items()
    ]


def _line(result: Mapping[str, Any]) -> tuple[str, ...]:
    of = (result["row"], result["optimizer"], str(result["ranks"]), result["contender"])
    times = [digits(1e6 * result["seconds"][k]) for k in ("median", "least", "most")]
    return (*of, *times, digits(result["times_gpubp"]))


def _ratio_line(result: Mapping[str, Any]) -> tuple[str, ...]:
    of = (result["row"], result["optimizer"], str(result["ranks"]), result["ratio"])
    return (*of, *(digits(result[k]) for k in ("median", "least", "most")))


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
